"""The built-in world: multi-step word problems with exact steps and a verifier."""

from fedcot.plain_text import normalize
from fedcot.world.families import CLIENT_NAMES, FAMILIES, GENERAL_NAMES
from fedcot.world.generator import generate_problem
from fedcot.world.problem import Problem, Step
from fedcot.world.splits import DEEP_DEPTHS, TRAINED_DEPTHS, draw_problems, split_of
from fedcot.world.verifier import Verification, solves, verify
from fedcot.world.vocabulary import PUBLIC_LENGTH, question_words

__all__ = [
    "CLIENT_NAMES",
    "DEEP_DEPTHS",
    "FAMILIES",
    "GENERAL_NAMES",
    "PUBLIC_LENGTH",
    "TRAINED_DEPTHS",
    "Problem",
    "Step",
    "Verification",
    "draw_problems",
    "generate_problem",
    "normalize",
    "question_words",
    "solves",
    "split_of",
    "verify",
]

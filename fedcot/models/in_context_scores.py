"""How well a model of the in-context pair reads rules that it was not trained on.

Prompts and answers are written and read as a student's in social learning
(`fedcot.social`), so that the numbers are those of a task with a hidden rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from fedcot.data.schema import Rationale
from fedcot.models.generation import generate
from fedcot.models.loading import LoadedModel
from fedcot.models.sequences import token_ids
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.social.demonstrations import Demonstration, few_shot_prompt
from fedcot.social.formats import format_named
from fedcot.world.hidden_rules import KINDS, Kind, Rule, draw_rule

EXAMPLE_COUNTS: Final = (0, 1, 2, 4, 8)
SHOWN_EXAMPLES: Final = 8
TEMPERATURE: Final = 0.7
# Steps and answer have 13 tokens at most, a question 10.
ANSWER_TOKENS: Final = 16
EXAMPLE_TOKENS: Final = 32
_FORM: Final = format_named("world")

Continue = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Trial:
    """A rule that is held out, a prompt of its examples and a further question.

    Attributes
    ----------
    rule : Rule
    examples : tuple of Demonstration
        Right ones.
    question : str
        None of the examples'.
    """

    rule: Rule
    examples: tuple[Demonstration, ...]
    question: str

    @property
    def prompt(self) -> str:
        """The examples and the question, for an answer."""
        return few_shot_prompt(_FORM, self.examples, self.question)

    @property
    def opening(self) -> str:
        """The examples alone, for one example more."""
        return few_shot_prompt(_FORM, self.examples)


def draw_trials(
    kind: Kind, num_rules: int, num_examples: int, *, seed: int
) -> list[Trial]:
    """Return trials of a kind; a kind with fewer rules repeats them.

    The rules and questions are the same for every number of examples up to what is
    drawn for it, so that counts can be compared.

    Parameters
    ----------
    kind : str
    num_rules : int
    num_examples : int
        In each prompt, at least 0.
    seed : int
    """
    trials = []
    for number in range(num_rules):
        rng = numpy_generator(seed, "in-context-scores", kind, number)
        rule = draw_rule("held-out", kind, rng)
        question = rule.question(rng)
        examples: list[Demonstration] = []
        while len(examples) < num_examples:
            asked = rule.question(rng)
            # Else the answer would stand in the prompt.
            if asked != question:
                right = _right(rule, asked)
                examples.append(Demonstration(asked, right.answer, right.text))
        trials.append(Trial(rule, tuple(examples), question))
    return trials


def answer_accuracy(trials: Sequence[Trial], continue_greedily: Continue) -> float:
    """Return the share of trials whose answer is right, in [0, 1]."""
    texts = continue_greedily([trial.prompt for trial in trials])
    hits = [
        _FORM.read_answer(text) == _right(trial.rule, trial.question).answer
        for trial, text in zip(trials, texts, strict=True)
    ]
    return sum(hits) / len(hits)


def example_accuracy(trials: Sequence[Trial], continue_by_chance: Continue) -> float:
    """Return the share of continuations that are an example of the rule, in [0, 1].

    One is right if it can be read, is a question of the rule and has the rule's steps
    and answer.
    """
    texts = continue_by_chance([trial.opening for trial in trials])
    hits = []
    for trial, text in zip(trials, texts, strict=True):
        read = _FORM.read(_FORM.opening + text)
        hits.append(
            read is not None
            and trial.rule.rationale(read.question)
            == Rationale(read.reasoning, read.answer)
        )
    return sum(hits) / len(hits)


def score_in_context(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    num_rules: int,
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return how often a model answers and writes examples by rules that are held out.

    Parameters
    ----------
    model : LlamaForCausalLM
    tokenizer : PreTrainedTokenizerBase
    num_rules : int
        Drawn for each kind, at least 1.
    seed : int

    Returns
    -------
    dict
        ``answers``: for each kind and number of examples in the prompt (as text), the
        share of right answers. ``examples``: for each kind, the share of right ones
        among those that the model writes after `SHOWN_EXAMPLES` at `TEMPERATURE`.
    """
    write = partial(_continue, model, tokenizer)
    greedily = partial(write, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0)
    by_chance = partial(
        write,
        max_new_tokens=EXAMPLE_TOKENS,
        temperature=TEMPERATURE,
        seed=derive_seed(seed, "in-context-scores", "sampling"),
    )
    answers: dict[str, Any] = {}
    examples: dict[str, Any] = {}
    for kind in KINDS:
        answers[kind] = {}
        for count in EXAMPLE_COUNTS:
            trials = draw_trials(kind, num_rules, count, seed=seed)
            answers[kind][str(count)] = round(answer_accuracy(trials, greedily), 4)
        trials = draw_trials(kind, num_rules, SHOWN_EXAMPLES, seed=seed)
        examples[kind] = round(example_accuracy(trials, by_chance), 4)
    return {"answers": answers, "examples": examples}


def _continue(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[str]:
    written = generate(
        model,
        LoadedModel("built", model, tokenizer),
        [token_ids(tokenizer, prompt) for prompt in prompts],
        batch_size=100,
        max_new_tokens=max_new_tokens,
        stop=_FORM.stop,
        temperature=temperature,
        # One for each: prompts that are the same give different texts.
        seeds=[derive_seed(seed, number) for number in range(len(prompts))],
    )
    return [one.text for one in written]


def _right(rule: Rule, question: str) -> Rationale:
    found = rule.rationale(question)
    if found is None:
        raise ValueError("a rule must answer its own questions.")
    return found

"""How good the built-in pair is, on test problems of the built-in world."""

from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from fedcot.data.prompts import explain_prompt, parse_completion, predict_prompt
from fedcot.models.generation import generate_greedy
from fedcot.models.loading import LoadedModel
from fedcot.world.families import CLIENT_NAMES, FAMILIES, GENERAL_NAMES
from fedcot.world.problem import Problem
from fedcot.world.splits import DEEP_DEPTHS, TRAINED_DEPTHS, draw_problems
from fedcot.world.verifier import verify


def exact_match(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    *,
    explain: bool,
) -> dict[str, float]:
    """Return exact match of the answer for each family and over all (key ``mean``).

    With `explain`, ``valid`` is the share of rationales whose every step is true and
    that lead to the stated answer.
    """
    prompt = explain_prompt if explain else predict_prompt
    texts = generate_greedy(
        model,
        LoadedModel("built", model, tokenizer),
        [prompt(problem.question) for problem in problems],
        batch_size=150,
        max_new_tokens=80 if explain else 8,
    )
    hits: dict[str, list[bool]] = {}
    valid = 0
    for problem, text in zip(problems, texts, strict=True):
        if explain:
            rationale = parse_completion(text)
            answer = rationale.answer if rationale else None
            if rationale and verify(rationale.text, rationale.answer).valid:
                valid += 1
        else:
            answer = text.strip()
        hits.setdefault(problem.family, []).append(answer == problem.answer)
    scores = {family: sum(found) / len(found) for family, found in hits.items()}
    scores["mean"] = sum(map(sum, hits.values())) / len(problems)
    if explain:
        scores["valid"] = valid / len(problems)
    return {name: round(score, 4) for name, score in scores.items()}


def score_pair(
    teacher: LlamaForCausalLM,
    student: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    test_per_family: int,
    *,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Return exact match on test problems of trained depths and of deeper ones."""

    def test(families: tuple[str, ...], depths: tuple[int, ...]) -> list[Problem]:
        count = test_per_family * len(families)
        return draw_problems("test", families, count, seed=seed, depths=depths)

    every, general = tuple(FAMILIES), GENERAL_NAMES
    return {
        "teacher": exact_match(
            teacher, tokenizer, test(every, TRAINED_DEPTHS), explain=True
        ),
        "teacher_deep": exact_match(
            teacher, tokenizer, test(every, DEEP_DEPTHS), explain=True
        ),
        "student_general": exact_match(
            student, tokenizer, test(general, TRAINED_DEPTHS), explain=True
        ),
        "student_general_predict": exact_match(
            student, tokenizer, test(general, TRAINED_DEPTHS), explain=False
        ),
        "student_client": exact_match(
            student, tokenizer, test(CLIENT_NAMES, TRAINED_DEPTHS), explain=True
        ),
        "student_client_predict": exact_match(
            student, tokenizer, test(CLIENT_NAMES, TRAINED_DEPTHS), explain=False
        ),
    }

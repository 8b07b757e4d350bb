"""Training examples from records and rationales: pairing and filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedcot.data.schema import Rationale, Record
from fedcot.errors import ConfigError
from fedcot.models.generation import generate_greedy
from fedcot.settings import PAIRINGS
from fedcot.student.base import Base
from fedcot.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what the student should write after it."""

    prompt: str
    target: str
    task: Literal["predict", "explain"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A record with the rationale that came back for it.

    Attributes
    ----------
    question : str
        What the teacher saw: the perturbed question, or the original one.
    rationale : Rationale or None
        None when the teacher's text could not be parsed.
    """

    record: Record
    question: str
    rationale: Rationale | None


@dataclass(frozen=True)
class Pairing:
    """Examples and what was left out, by reason.

    Attributes
    ----------
    examples : tuple of Example
    counts : dict of str to int
    owners : tuple of int
        Of each example, the index of the pair that it was made of.
    """

    examples: tuple[Example, ...]
    counts: dict[str, int]
    owners: tuple[int, ...] = ()


def label_examples(records: Sequence[Record], task: Task) -> tuple[Example, ...]:
    """Return a `predict` example for each record."""
    return tuple(
        Example(
            task.predict_prompt(record.question),
            task.prediction(record.answer),
            "predict",
        )
        for record in records
    )


def pair_examples(
    pairs: Sequence[Pair],
    *,
    pairing: str,
    task: Task,
    base: Base,
    label_filter: bool = False,
    max_new_tokens: int = 80,
    batch_size: int = 64,
) -> Pairing:
    """Make `explain` examples of rationales, and count what is filtered.

    Parameters
    ----------
    pairs : sequence of Pair
    pairing : str
        ``perturbed``: the perturbed question with its own rationale, which fit each
        other. ``original``: the original question with that rationale, as FATE-LLM
        does. ``adapted``: the original question with the rationale that the frozen
        base carries over to it.
    task : Task
        Writes the prompts, and says which rationales hold.
    base : Base
        Frozen, so that a rationale depends on its own record only; used by ``adapted``.
    label_filter : bool
        Keep a rationale only if it reaches the private label. It looks at private
        data, so ``perturbed`` refuses it: there the examples have to stay
        post-processing of the release.
    max_new_tokens : int
        Length limit of a rationale that ``adapted`` generates.
    batch_size : int
        Rationales that ``adapted`` generates together. Under DP-SGD 1: the padding of
        one batch may tip a near-tie, and a record's examples must depend on no other.

    Returns
    -------
    Pairing
        `counts` has ``pairs``, ``unparsable``, ``invalid_step``, ``label_mismatch``
        and ``kept``.

    Raises
    ------
    ConfigError
        If the pairing is unknown, or a label filter is asked for with ``perturbed``.
    """
    if pairing not in PAIRINGS:
        raise ConfigError(
            f"`pairing` must be one of {', '.join(PAIRINGS)}, found {pairing!r}."
        )
    if label_filter and pairing == "perturbed":
        raise ConfigError(
            "`label_filter` must be false with `pairing=perturbed`, found true; a "
            "perturbed question's answer is not the label: use `pairing=original` or "
            "`pairing=adapted`."
        )
    counts = dict.fromkeys(
        ("pairs", "unparsable", "invalid_step", "label_mismatch", "kept"), 0
    )
    counts["pairs"] = len(pairs)
    if pairing == "adapted":
        pairs = _adapt(pairs, task, base, max_new_tokens, batch_size)
    examples: list[Example] = []
    owners: list[int] = []
    for index, pair in enumerate(pairs):
        reason = _reason_to_drop(pair, task, label_filter)
        counts[reason or "kept"] += 1
        if reason is None and pair.rationale is not None:
            question = pair.record.question
            if pairing == "perturbed":
                question = pair.question
            examples.append(
                Example(
                    task.explain_prompt(question),
                    task.completion(pair.rationale),
                    "explain",
                )
            )
            owners.append(index)
    return Pairing(tuple(examples), counts, tuple(owners))


def _reason_to_drop(pair: Pair, task: Task, label_filter: bool) -> str | None:
    rationale = pair.rationale
    if rationale is None:
        return "unparsable"
    if not task.is_valid(rationale):
        return "invalid_step"
    if label_filter and not task.is_right(rationale.answer, pair.record.answer):
        return "label_mismatch"
    return None


def _adapt(
    pairs: Sequence[Pair],
    task: Task,
    base: Base,
    max_new_tokens: int,
    batch_size: int,
) -> list[Pair]:
    """Replace each rationale by the frozen base's one for the original question."""
    usable = [index for index, pair in enumerate(pairs) if pair.rationale is not None]
    prompts = [
        task.adapt_prompt(pairs[i].question, rationale, pairs[i].record.question)
        for i in usable
        if (rationale := pairs[i].rationale) is not None
    ]
    texts = generate_greedy(
        base.model,
        base,
        prompts,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    adapted = list(pairs)
    for index, text in zip(usable, texts, strict=True):
        pair = pairs[index]
        adapted[index] = Pair(pair.record, pair.question, task.parse_completion(text))
    return adapted


def self_rationales(
    base: Base, records: Sequence[Record], *, task: Task, max_new_tokens: int = 80
) -> list[Rationale | None]:
    """Return the frozen base's own rationale of each record (a control arm)."""
    texts = generate_greedy(
        base.model,
        base,
        [task.explain_prompt(record.question) for record in records],
        batch_size=64,
        max_new_tokens=max_new_tokens,
    )
    return [task.parse_completion(text) for text in texts]

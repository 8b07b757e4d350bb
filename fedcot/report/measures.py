"""What a run measured beside exact match, as rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedcot.report.reader import ARM_ORDER, decimal, number

_COUNTS: Final = {
    "num_pairs": "pairs",
    "num_unparsable": "unparsable",
    "num_invalid_step": "wrong step",
    "num_label_mismatch": "other answer than the label",
    "num_kept": "kept",
    "num_truncated": "cut to fit",
}
HEADINGS: Final = (
    "arm",
    "lenient",
    "likeliest",
    "answer",
    "perplexity",
    "chrF",
)
WHAT_MEASURES_ARE: Final = (
    "lenient: exact match by a laxer reading; likeliest: the right choice has the "
    "highest likelihood; answer: log-likelihood of the right one, in nats; perplexity "
    "and chrF (0 to 100): against the rationales that the dataset carries"
)


def measure_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each arm with a further measure, under `HEADINGS`.

    Exact match by a lenient extractor; share of questions whose most likely choice is
    right; mean log-likelihood of the gold answer in nats; perplexity of the reference
    rationales; chrF of written against reference rationales, 0 to 100. Empty for the
    built-in world, which has a verifier instead.
    """
    rows: list[tuple[str, ...]] = []
    for arm in ARM_ORDER:
        likelihood = _entry(summary, "answer_log_likelihood", arm)
        perplexity = _entry(summary, "rationale_perplexity", arm)
        if not likelihood and not perplexity:
            continue
        rows.append(
            (
                arm,
                _share(_entry(summary, "accuracy_flexible", arm)),
                _share(_entry(summary, "accuracy_ranked", arm)),
                decimal(likelihood.get("mean"), 2),
                decimal(perplexity.get("perplexity"), 1),
                decimal(summary.get("rationale_chrf", {}).get(arm), 1),
            )
        )
    return rows


def chance_line(summary: Mapping[str, Any]) -> str:
    """Return the accuracy of guessing in words; empty for open answers."""
    chance = number(summary.get("chance"))
    return f"Guessing would be right with probability {chance:.3f}." if chance else ""


def data_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of a dataset's rows and of the rationales."""
    data = summary.get("data") or {}
    for split, count in (data.get("rows") or {}).items():
        skipped = (data.get("skipped") or {}).get(split) or {}
        why = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
        cleaned = (data.get("cleaned") or {}).get(split, 0)
        yield (
            f"Rows ({split}): {count}, skipped: {why or 'none'}"
            + (f"; cleaned: {cleaned}" if cleaned else "")
        )
    for split, labels in (data.get("teacher_labels") or {}).items():
        yield (
            f"Recorded answers ({split}): {labels['right']} of {labels['rows']} right, "
            f"{labels['unparsed']} could not be read"
        )
    for arm, counts in (summary.get("filters") or {}).items():
        if counts.get("num_pairs"):
            shown = [
                f"{counts[name]} {text}"
                for name, text in _COUNTS.items()
                if counts.get(name)
            ]
            unused = "" if counts.get("num_kept") else "; NONE could be used"
            yield f"Rationales ({arm}): {', '.join(shown)}{unused}"


def teacher_line(summary: Mapping[str, Any]) -> str:
    """Return what the teacher was asked and what that cost; empty if unknown.

    Simulated members of communities ask it in processes of their own: how many
    questions is known, what these cost is not.
    """
    usage = (summary.get("teacher") or {}).get("usage") or {}
    by_members = _asked_by_members(summary)
    if not (usage.get("prompts") or by_members):
        return ""
    of_server = " of the server" if by_members else ""
    text = (
        f"Teacher: {usage.get('prompts', 0)} prompts{of_server}, "
        f"{usage.get('cached', 0)} from the cache"
    )
    tokens = (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
    if any(tokens):
        text += f", {tokens[0]} tokens read and {tokens[1]} written"
    if cost := usage.get("cost"):
        text += f", cost {cost:.4f}"
    return f"{text}; {by_members}" if by_members else text


def _asked_by_members(summary: Mapping[str, Any]) -> str:
    """Return what members of communities asked the provider; empty if nothing."""
    part = summary.get("community") or {}
    traces = sum(found.get("asked", 0) for found in (part.get("traces") or {}).values())
    own = ((part.get("provider") or {}).get("own") or {}).values()
    tests = sum(score.get("n", 0) for score in own)
    if not traces + tests:
        return ""
    return (
        f"members asked {traces} questions for their traces and {tests} test "
        "questions, whose tokens and cost are not in this line"
    )


def _entry(summary: Mapping[str, Any], key: str, arm: str) -> Mapping[str, Any]:
    found = (summary.get(key) or {}).get(arm)
    return found if isinstance(found, Mapping) else {}


def _share(entry: Mapping[str, Any]) -> str:
    return decimal(entry.get("mean"), 3)

"""What a model card says of privacy: as much as the summary, and never less epsilon."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedcot.arms import shares_adapter, trains_privately
from fedcot.report.card_community import passing_on
from fedcot.report.reader import nats, number
from fedcot.report.terminal import stated_for, uncharged_of
from fedcot.settings import COMMUNITY, FULL, SOCIAL

PASSING_ON_DISTILLED: Final = (
    "This adapter was trained at the server on texts that models of teacher clients "
    "wrote after private examples: no epsilon bounds what passing it on gives away of "
    "them."
)


def privacy_section(
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    arm: str,
    partition: int | None,
) -> str:
    """Return what the run gave away for this arm, and what passing this on gives."""
    entry = (summary.get("privacy") or {}).get("per_arm", {}).get(arm)
    lines = ["## Privacy", ""]
    if not isinstance(entry, Mapping):
        lines.append(
            "The run states no epsilon for this arm: take every epsilon as infinite."
        )
    else:
        lines += list(epsilon_lines(entry))
    lines += ["", _passing_on(settings, arm=arm, partition=partition)]
    return "\n".join(lines)


def epsilon_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the epsilons of an arm; what is missing counts as infinite."""
    yield "What the run sent for this arm, as its summary states it:"
    yield ""
    names = {
        "token_epsilon": "one token",
        "prompt_epsilon_max": "one whole prompt",
        "record_epsilon_max": "one record, over all rounds",
    }
    for key, what in names.items():
        yield f"* epsilon of {what}: {_epsilon(entry.get(key))}"
    at_delta, delta = entry.get("record_epsilon_at_delta"), number(entry.get("delta"))
    if at_delta is not None and delta is not None:
        yield (
            f"* epsilon of one record at delta {delta:g}, over all rounds: "
            f"{_epsilon(at_delta)}"
        )
    yield f"* unit: {plain(stated_for(entry))}"
    yield f"* guarantee: {plain(entry.get('guarantee') or 'none stated')}"
    if uncharged := uncharged_of(entry):
        yield f"* not covered by any epsilon: {plain(uncharged)}"


def _epsilon(value: Any) -> str:
    shown = nats(value)
    if number(value) is None:
        return "infinite (none is stated)"
    return "infinite (no bound holds)" if shown == "inf" else f"{shown} nats"


def _passing_on(settings: Mapping[str, Any], *, arm: str, partition: int | None) -> str:
    if settings.get("mode") == COMMUNITY:
        return passing_on(settings, arm)
    if settings.get("mode") == SOCIAL:
        return PASSING_ON_DISTILLED
    is_full = settings.get("tuning") == FULL
    aggregation = str(settings.get("aggregation", "none"))
    if partition is not None and not shares_adapter(arm, aggregation):
        what = "model" if is_full else "adapter"
        return (
            f"**This {what} never left its client.** It was trained on the questions "
            "and labels of private records, and no epsilon above covers it: who "
            "passes it on releases those records with an infinite epsilon."
        )
    if partition is not None and trains_privately(
        arm,
        aggregation=aggregation,
        pairing=str(settings.get("pairing", "")),
        noise_multiplier=number(settings.get("noise-multiplier")) or 0.0,
    ):
        return "The adapter itself went to the server under DP-SGD, counted above."
    itself = "full weights themselves" if is_full else "adapter itself"
    return f"The {itself} went to the server; what is stated above covers that."


def plain(value: Any) -> str:
    """Return a value on one line, without what Markdown or HTML would take as marks."""
    text = " ".join(str(value).split())
    return re.sub(r"[`|<>]", " ", text)

"""What a run of social learning says in single lines: tests, gate, bytes, privacy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedcot.report.community_view import p_cell, signed
from fedcot.report.reader import nats, number, size
from fedcot.report.social import (
    ORIGINAL,
    counted,
    deciding_test,
    mapping,
    one_way,
    shown_count,
    social_part,
    traffic_ratio,
    visible,
)
from fedcot.social.inspection import REFUSALS
from fedcot.social.settings import AGGREGATORS, PRIVATE_VOTING, RANDOM, VOTING

SIGNIFICANT: Final = 0.05
NO_GUARANTEE: Final = "no finite guarantee"


def closing_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run ends with beside its table, one fact a line."""
    yield from test_lines(summary)
    yield from gate_lines(summary)
    yield traffic_line(summary)
    yield privacy_line(summary)
    yield from balance_warnings(summary)


def test_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield generated against original, and voting against random, at the most."""
    generated = (deciding_test(summary, name, ORIGINAL) for name in AGGREGATORS)
    test = next(filter(None, generated), None)
    yield f"Generated against original: {_tested(test)}"
    if test := deciding_test(summary, RANDOM, VOTING):
        yield f"Random against voting: {_tested(test)}"


def _tested(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "not tested"
    paired = ", paired by question" if test.get("paired") else ""
    return (
        f"{visible(test.get('first'))} minus {visible(test.get('second'))} "
        f"{signed(number(test.get('difference')))}, p = {p_text(test)} "
        f"({shown_count(test.get('permutations'))} permutations{paired})"
    )


def p_text(test: Mapping[str, Any]) -> str:
    """Return the p-value of a test, never smaller than it is."""
    return p_cell(number(test.get("p_value")))


def gate_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the gate of all teacher clients kept back."""
    part = social_part(summary)
    generation = mapping(part.get("generation"))
    if generation:
        found = _refused(mapping(generation.get("discarded")))
        sampled = shown_count(generation.get("sampled"))
        yield (
            f"Kept back by the gate: {found} of {sampled} sampled examples"
            if counted(generation.get("sampled"))
            else "Kept back by the gate: teacher clients did not tell"
        )
    instructions = mapping(part.get("instructions"))
    if instructions:
        found = _refused(mapping(instructions.get("refused")))
        yield (
            f"Instructions: {shown_count(instructions.get('sent'))} sent, {found} "
            "kept back by the gate"
        )


def _refused(counts: Mapping[str, Any]) -> str:
    found = {name: counted(counts.get(name)) or 0 for name in REFUSALS}
    told = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    total = sum(found.values())
    return f"{total:,} ({told})" if told else str(total)


def traffic_line(summary: Mapping[str, Any]) -> str:
    """Return the bytes of one teacher client beside those of federated averaging."""
    sizes = mapping(social_part(summary).get("bytes"))
    up, down = one_way(sizes.get("per_teacher"))
    if up is None and down is None:
        return "Bytes per teacher client: not measured"
    line = f"Bytes per teacher client: {size(up)} up, {size(down)} down"
    ratio = traffic_ratio(summary)
    if ratio is None:
        return line
    fedavg = mapping(sizes.get("fedavg"))
    what = visible(fedavg.get("what") or "one round of FedAvg with LoRA")
    far_up, far_down = one_way(fedavg)
    return (
        f"{line}; {what}: {size(far_up)} up, {size(far_down)} down, {ratio_text(ratio)}"
        " as much"
    )


def ratio_text(ratio: float) -> str:
    """Return how many times something is, with three digits at least."""
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"


def privacy_line(summary: Mapping[str, Any]) -> str:
    """Return what bounds texts and votes; only private votes have an epsilon."""
    part, said = social_part(summary), [f"texts: {NO_GUARANTEE}"]
    votes = mapping(part.get("votes"))
    claims = mapping(votes.get("claims"))
    epsilon = number(claims.get("epsilon"))
    chosen = mapping(part.get("chosen"))
    if VOTING in chosen or (counted(votes.get("voters")) and not claims):
        said.append(f"votes counted as they are: {NO_GUARANTEE}")
    if claims and epsilon is not None and math.isfinite(epsilon):
        said.append(
            f"private votes: epsilon {nats(epsilon)} nats per teacher client over "
            f"{shown_count(claims.get('num_votes'))} votes, candidates not covered"
        )
    elif claims or PRIVATE_VOTING in chosen:
        said.append(f"private votes: {NO_GUARANTEE}")
    return f"Privacy: {'; '.join(said)}"


def balance_warnings(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each way of choosing that favours a label beyond chance."""
    for name, found in mapping(social_part(summary).get("chosen")).items():
        balance = mapping(mapping(found).get("balance"))
        p_value = number(balance.get("p_value"))
        if p_value is None or not p_value < SIGNIFICANT:
            continue
        why = (
            "; voting amplifies a bias of the models (Social Learning, appendix H), "
            "`-c balanced-choice=true` prevents that"
            if str(name) in (VOTING, PRIVATE_VOTING)
            else ""
        )
        yield (
            f"Warning: {visible(name)} favours the label "
            f"{visible(balance.get('favoured') or '-')} (p = {p_cell(p_value)}){why}"
        )

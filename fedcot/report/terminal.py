"""The table and the lines that a run ends with, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from rich.table import Table

from fedcot.report.measures import (
    HEADINGS,
    WHAT_MEASURES_ARE,
    chance_line,
    data_lines,
    measure_rows,
    teacher_line,
)
from fedcot.report.reader import ARM_ORDER, nats, number, privacy_of, size
from fedcot.report.social import is_social
from fedcot.report.social_lines import closing_lines
from fedcot.report.social_view import social_table
from fedcot.settings import COMMUNITY

WHAT_ARMS_ARE: Final = {
    "teacher": "(the large model)",
    "zero-shot": "nothing",
    "standalone": "labels",
    "self-rationale": "own rationales",
    "shuffled-rationale": "shuffled rationales",
    "random-bank": "public questions",
    "distil": "raw questions",
    "fedcot": "perturbed questions",
    "label-only": "the coalition's answers",
    "alone": "its own community's traces",
    "pooled": "the coalition's traces",
    "perturbed": "traces of perturbed questions",
    "federated": "members' adapters, averaged",
    "synthetic": "traces that generators wrote",
    "prompt": "a few traces as its prompt",
    "random-label": "other questions' targets",
}

WHOSE_STUDENTS: Final = (
    "zero-shot: the student before distillation; alone: each member by the student of "
    "its own community; all others: by the student of the widest coalition"
)


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """Return the arms of a run with exact match, standard error and answers counted.

    Of social learning: students by kind and number of examples in the prompt.
    """
    if is_social(summary):
        return social_table(summary)
    table = Table(
        title="Exact match on the clients' test questions", title_style="bold"
    )
    if summary.get("mode") == COMMUNITY:
        table.caption = WHOSE_STUDENTS
        table.caption_justify = "left"
    table.add_column("arm", no_wrap=True)
    table.add_column("mean ± s.e.", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("valid", justify="right", no_wrap=True)
    table.add_column("learns from")
    validity = summary.get("rationale_validity", {})
    for arm in ARM_ORDER:
        score = summary["accuracy"].get(arm)
        if score is None:
            continue
        share = number(validity.get(arm))
        table.add_row(
            arm,
            mean_and_stderr(score),
            str(score.get("n", "")),
            "-" if share is None else f"{share:.0%}",
            WHAT_ARMS_ARE[arm],
            style="bold" if arm == "fedcot" else None,
        )
    return table


def measures_table(summary: Mapping[str, Any]) -> Table | None:
    """Return what was measured beside exact match, or None if nothing was."""
    rows = measure_rows(summary)
    if not rows:
        return None
    table = Table(
        title="Further measures on the same questions",
        title_style="bold",
        caption=WHAT_MEASURES_ARE,
        caption_justify="left",
    )
    for heading in HEADINGS:
        justify: Literal["left", "right"] = "left" if heading == "arm" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def conversation_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield tests, gate, bytes and privacy of social learning; none for other modes."""
    if is_social(summary):
        yield from closing_lines(summary)


def mean_and_stderr(score: Mapping[str, Any]) -> str:
    """Show a mean with its standard error, three decimals each."""
    mean, stderr = number(score.get("mean")), number(score.get("stderr"))
    if mean is None:
        return "-"
    return f"{mean:.3f} ± " + ("-" if stderr is None else f"{stderr:.3f}")


def privacy_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each arm gave away; every epsilon with its unit and its neighbours.

    What holds for all arms is said once.
    """
    entries = privacy_of(summary)
    yield "Privacy"
    for arm, entry in entries.items():
        yield f"  {arm}: {epsilons(entry)}"
        yield f"    guarantee: {entry.get('guarantee', '-')}"
    for text in dict.fromkeys(map(stated_for, entries.values())):
        yield f"  stated for: {text}"
    for text in dict.fromkeys(filter(None, map(uncharged_of, entries.values()))):
        yield f"  not covered by any epsilon: {text}"
    if covers := summary["privacy"].get("covers"):
        yield f"  {covers}"
    if audited := audit_run_line(summary):
        yield f"  {audited}"
    worst = worst_arm(summary)
    if worst:
        yield f"  the run as a whole is as private as its worst arm: {worst}"


def audit_run_line(summary: Mapping[str, Any]) -> str:
    """Return that a run is an audit run; empty if it is none."""
    count = number(summary.get("canaries")) or 0
    if count < 1:
        return ""
    return (
        f"audit run: {count:.0f} made-up secrets (canaries) were put into the clients' "
        "training data; `fedcot audit memorization` ranks them"
    )


def epsilons(entry: Mapping[str, Any]) -> str:
    """Return an arm's epsilons, each with its unit; only the last one needs a delta."""
    text = (
        f"epsilon {nats(entry.get('token_epsilon'))} nats per token, "
        f"{nats(entry.get('prompt_epsilon_max'))} per prompt, "
        f"{nats(entry.get('record_epsilon_max'))} per record over all rounds"
    )
    at_delta, delta = entry.get("record_epsilon_at_delta"), number(entry.get("delta"))
    if at_delta is None or delta is None:
        return text
    return f"{text} ({nats(at_delta)} at delta {delta:g})"


def stated_for(entry: Mapping[str, Any]) -> str:
    """Return unit and neighbouring relation of an arm's epsilons."""
    relation = entry.get("neighboring_relation", "-")
    adjacency = entry.get("adjacency")
    shown = f"{relation} ({adjacency})" if adjacency else str(relation)
    return f"{entry.get('unit', '-')}; neighbours {shown}"


def worst_arm(summary: Mapping[str, Any]) -> str:
    """Return the arm that gives away most, as the summary names it."""
    worst = summary["privacy"].get("worst_arm", "")
    return str(worst.get("arm", "")) if isinstance(worst, Mapping) else str(worst)


def uncharged_of(entry: Mapping[str, Any]) -> str:
    """Return what an arm sent beside its epsilon, as text; empty if nothing."""
    uncharged = entry.get("uncharged") or ()
    return uncharged if isinstance(uncharged, str) else ", ".join(map(str, uncharged))


def cost_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield data, teacher, bytes, seconds per phase and failures."""
    yield from filter(None, (chance_line(summary), teacher_line(summary)))
    yield from data_lines(summary)
    traffic = summary.get("traffic", {})
    yield (
        f"Traffic: {size(traffic.get('uplink_bytes'))} up, "
        f"{size(traffic.get('downlink_bytes'))} down"
    )
    timing = [
        f"{phase} {seconds:.1f}"
        for phase, value in summary.get("timing", {}).items()
        if (seconds := number(value)) is not None
    ]
    yield "Seconds: " + ", ".join(timing)
    failures = summary.get("failures") or ()
    if failures:
        yield f"Failures: {failures}"

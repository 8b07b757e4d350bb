"""Sections of the report on a run of social learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedcot.errors import FedcotError
from fedcot.report.community_view import (
    MISSING,
    Sheet,
    plain_number,
    signed,
)
from fedcot.report.reader import Run, nats, number, size
from fedcot.report.social import (
    ORIGINAL,
    PRIVATE_MARK,
    counted,
    estimate_of,
    fates,
    kind_of,
    listed,
    mapping,
    one_way,
    shown_count,
    social_part,
    students_of,
    traffic_ratio,
    visible,
)
from fedcot.report.social_lines import (
    balance_warnings,
    gate_lines,
    p_text,
    privacy_line,
    ratio_text,
    test_lines,
)
from fedcot.report.social_view import SocialSection, accuracy_text
from fedcot.social.flow import PROTOCOL, check_log
from fedcot.social.generation import DISCARDED

WHAT_BECAME: Final[Mapping[str, str]] = {
    "kept": "passed the gate and was sent",
    "malformed": "could not be read as an example",
    "invalid": "its steps are wrong by public rules",
    "verbatim": "gate: an exact copy of a private text",
    "normalised": "gate: a copy but for case and spacing",
    "near": "gate: too near to a private text",
    "run": "gate: repeats too many words of a private text in a row",
    "repeated": "says what another sample says",
    "outranked": "others of its prompt had a lower perplexity",
}
_DIGITS: Final = 12


def run_sections(run: Run) -> tuple[SocialSection, ...]:
    """Return every section on one run; what was not measured says so."""
    summary = run.summary
    return (
        students_section(summary),
        texts_section(summary),
        balance_section(summary),
        bytes_section(summary),
        protocol_section(summary),
    )


def students_section(summary: Mapping[str, Any]) -> SocialSection:
    """Return what each student reads and how it did, and all permutation tests."""
    students = tuple(_student_row(*item) for item in students_of(summary).items())
    sheets = [
        Sheet(
            title="Students",
            headings=(
                *("student", "examples", "exact match", "answered"),
                *("teachers' questions", "prompt"),
            ),
            rows=students,
            note="answered: share of test questions with an answer that can be read; "
            "teachers' questions: exact match on what teacher clients hold out, where "
            "they told",
        )
    ]
    tests = tuple(_test_row(mapping(one)) for one in _tests(summary))
    if tests:
        sheets.append(
            Sheet(
                title="Permutation tests",
                headings=("first", "second", "difference", "p", "permutations", "how"),
                rows=tests,
                note="Two-sided, each test by itself; paired: answers to one question "
                "change sides together",
                words=(0, 1, 5),
            )
        )
    lines = [*test_lines(summary), *_distilled(summary)]
    if hint := social_part(summary).get("hint"):
        lines.append(f"The rule of the task: {visible(hint)}")
    return SocialSection(
        name="students",
        title="Students",
        sheets=tuple(sheets) if students else (),
        lines=tuple(lines),
        problem="" if students else "The run scored no student.",
    )


def _tests(summary: Mapping[str, Any]) -> list[Any]:
    return listed(social_part(summary).get("tests"))


def _student_row(name: str, view: Mapping[str, Any]) -> tuple[str, ...]:
    kind, count = kind_of(name, view)
    mark = f" ({PRIVATE_MARK})" if kind == ORIGINAL else ""
    answered = number(view.get("answered"))
    return (
        visible(name) + mark,
        str(count),
        accuracy_text(estimate_of(view.get("accuracy"))),
        MISSING if answered is None else f"{answered:.0%}",
        accuracy_text(estimate_of(view.get("own"))),
        size(view.get("prompt_bytes")),
    )


def _test_row(test: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        visible(test.get("first", MISSING)),
        visible(test.get("second", MISSING)),
        signed(number(test.get("difference"))),
        p_text(test),
        shown_count(test.get("permutations")),
        "paired" if test.get("paired") else "pooled",
    )


def _distilled(summary: Mapping[str, Any]) -> Iterator[str]:
    found = mapping(social_part(summary).get("distilled"))
    if found:
        yield (
            f"A LoRA student trained on {shown_count(found.get('num_examples'))} "
            "examples that were sent: "
            f"{accuracy_text(estimate_of(found.get('accuracy')))}"
        )


def texts_section(summary: Mapping[str, Any]) -> SocialSection:
    """Return what became of every sampled text, and the instructions."""
    part, found = social_part(summary), fates(summary)
    generation = mapping(part.get("generation"))
    total = counted(generation.get("sampled")) or sum(found.values())
    known = [name for name in ("kept", *DISCARDED) if name in found]
    order = [*known, *(name for name in found if name not in known)]
    rows = tuple(
        (
            visible(name),
            f"{found[name]:,}",
            f"{found[name] / total:.0%}" if total else MISSING,
            WHAT_BECAME.get(name, ""),
        )
        for name in order
    )
    lines = list(gate_lines(summary))
    if checked := counted(generation.get("checked")):
        wrong = counted(generation.get("wrong")) or 0
        lines.append(f"Wrong by public rules: {wrong:,} of {checked:,} readable texts")
    lines += [*_pool(part), *_instructions(part)]
    sheet = Sheet(
        title=f"What became of {total:,} sampled examples",
        headings=("what", "texts", "share", "meaning"),
        rows=rows,
        words=(0, 3),
    )
    return SocialSection(
        name="texts",
        title="Texts",
        sheets=(sheet,) if rows else (),
        lines=(*lines, privacy_line(summary)),
        problem="" if rows else "No examples were sampled.",
    )


def _pool(part: Mapping[str, Any]) -> Iterator[str]:
    pool = mapping(part.get("pool"))
    if pool:
        yield (
            f"Pool: {shown_count(pool.get('candidates'))} different examples of "
            f"{len(mapping(pool.get('by_partition')))} teacher clients, "
            f"{shown_count(pool.get('repeated'))} left out as repeated"
        )


def _instructions(part: Mapping[str, Any]) -> Iterator[str]:
    found = mapping(part.get("instructions"))
    if not found:
        return
    whose = ", ".join(visible(one) for one in listed(found.get("partitions")))
    extension = "; merging is an extension of the paper" if _is_merged(found) else ""
    yield (
        f"The student's instruction ({visible(found.get('merging', MISSING))}): "
        f"{size(found.get('bytes'))} of partition {whose or MISSING}{extension}"
    )


def _is_merged(found: Mapping[str, Any]) -> bool:
    return found.get("extension") is True


def balance_section(summary: Mapping[str, Any]) -> SocialSection:
    """Return which labels each way of choosing took, against what chance would."""
    chosen = mapping(social_part(summary).get("chosen"))
    rows = tuple(_chosen_row(str(name), mapping(one)) for name, one in chosen.items())
    pool = mapping(mapping(social_part(summary).get("pool")).get("labels"))
    sheets = [
        Sheet(
            title="Chosen examples",
            headings=(
                *("by", "examples", "of partitions", "ties", "epsilon"),
                *("labels", "expected", "skew", "p"),
            ),
            rows=rows,
            note="epsilon: nats per teacher client of the choice among given examples; "
            "skew: share of what was chosen that would have to change its label",
            words=(0, 2, 5, 6),
        )
    ]
    lines = [f"Labels of all candidates: {_labels(pool, digits=0)}"] if pool else []
    return SocialSection(
        name="balance",
        title="Choice and balance of labels",
        sheets=tuple(sheets) if rows else (),
        lines=tuple(lines),
        warnings=tuple(balance_warnings(summary)),
        problem="" if rows else "No examples were chosen.",
    )


def _chosen_row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    balance = mapping(found.get("balance"))
    partitions = sorted({str(one) for one in listed(found.get("partitions"))})
    epsilon = found.get("epsilon", 0.0)
    skew = number(balance.get("skew"))
    return (
        visible(name),
        str(len(listed(found.get("indices")))),
        visible(", ".join(partitions)) or MISSING,
        shown_count(found.get("ties")),
        # Null is how infinity goes through JSON.
        "inf" if epsilon is None else nats(epsilon),
        _labels(mapping(balance.get("counts")), digits=0),
        _labels(mapping(balance.get("expected")), digits=1),
        plain_number(skew, 2),
        p_text(balance),
    )


def _labels(counts: Mapping[str, Any], *, digits: int) -> str:
    shown = [
        f"{visible(label)} {plain_number(number(count), digits)}"
        for label, count in counts.items()
    ]
    return ", ".join(shown) or MISSING


def bytes_section(summary: Mapping[str, Any]) -> SocialSection:
    """Return what went over the wire, beside a round of federated averaging."""
    sizes = mapping(social_part(summary).get("bytes"))
    rows = []
    for name, entry in sizes.items():
        up, down = one_way(entry)
        if up is None and down is None:
            continue
        title = {"per_teacher": "each teacher client, mean", "fedavg": "FedAvg"}
        rows.append((visible(title.get(str(name), name)), size(up), size(down)))
    fedavg = mapping(sizes.get("fedavg"))
    lines = []
    if fedavg:
        lines.append(
            f"FedAvg: {visible(fedavg.get('what') or 'one round')}, "
            f"{shown_count(fedavg.get('parameters'))} parameters, for one client"
        )
    ratio = traffic_ratio(summary)
    if ratio is not None:
        lines.append(
            f"One round of FedAvg takes {ratio_text(ratio)} the bytes of a teacher "
            "client's whole conversation."
        )
    sheet = Sheet(title="Bytes", headings=("what", "up", "down"), rows=tuple(rows))
    return SocialSection(
        name="bytes",
        title="Bytes",
        sheets=(sheet,) if rows else (),
        lines=tuple(lines),
        problem="" if rows else "No bytes were counted.",
    )


def protocol_section(summary: Mapping[str, Any]) -> SocialSection:
    """Return what was said to whom: one hash a step means one message for all."""
    log = mapping(social_part(summary).get("protocol"))
    steps = [mapping(one) for one in listed(log.get("steps"))]
    teachers = len(listed(log.get("teachers")))
    rows = tuple(
        (
            str(place),
            visible(step.get("kind", MISSING)),
            visible(digest)[:_DIGITS],
            f"{len(listed(reached))} of {teachers}",
            str(len(listed(step.get("replied")))),
        )
        for place, step in enumerate(steps)
        for digest, reached in mapping(step.get("sent")).items()
    )
    sheet = Sheet(
        title="What the student said to teacher clients",
        headings=("step", "message", "SHA-256", "sent to", "replies"),
        rows=rows,
        note="A step with one line was the same message for all teacher clients",
        words=(1, 2),
    )
    lines, warnings = _verdict(log) if log else ([], [])
    gone = mapping(log.get("lost"))
    if gone:
        told = ", ".join(f"{visible(one)} in step {gone[one]}" for one in gone)
        lines.append(f"Teacher clients that went: {told}")
    return SocialSection(
        name="protocol",
        title="Protocol",
        sheets=(sheet,) if rows else (),
        lines=tuple(lines),
        warnings=tuple(warnings),
        problem="" if rows else "The run kept no log of its conversation.",
    )


def _verdict(log: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what a check of the log finds, and what to warn of."""
    warnings = [visible(one) for one in listed(log.get("departures"))]
    if log.get("protocol") != PROTOCOL:
        warnings.insert(0, f"This run was one of the {visible(log.get('protocol'))}.")
    try:
        check_log(log)
    except FedcotError as error:
        return [], [*warnings, visible(error)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [], [*warnings, "The log of the conversation is not complete."]
    return ["The log shows one message for all teacher clients in each step."], warnings

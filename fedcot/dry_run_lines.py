"""A dry run as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a dry run for a person; problems come last."""
    for role, model in found["models"].items():
        if model:
            yield f"{role}: {model['source']} ({model['found']})"
    yield from data_lines(found)
    sizes = found["partitions"]
    if sizes:
        train = ", ".join(str(size["train"]) for size in sizes)
        yield f"clients: {len(sizes)}, training records {train}"
        yield f"test records: {', '.join(str(size['test']) for size in sizes)}"
    if found["chance"]:
        yield f"guessing would be right with probability {found['chance']:.3f}"
    for part in ("community", "social", "privacy", "memory"):
        yield from (f"{part}: {line}" for line in found[part].get("lines", ()))
    yield f"seconds: {found['time'].get('seconds')} ({found['time'].get('why')})"
    for problem in found["problems"]:
        yield f"PROBLEM {problem}"


def data_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was read from a dataset and the prompts made of a public question."""
    data = found["data"]
    if data.get("found"):
        yield f"dataset: {data['dataset']} ({data['found']})"
    for split, rows in data.get("rows", {}).items():
        skipped = data["skipped"].get(split, {})
        left_out = ", ".join(f"{count} {why}" for why, count in skipped.items())
        yield (
            f"{split}: {rows} rows, left out {left_out or 'none'}, cleaned "
            f"{data['cleaned'].get(split, 0)}"
        )
    if data.get("used"):
        used = ", ".join(f"{name} {count}" for name, count in data["used"].items())
        yield f"records: {used}"
    for split, labels in found["teacher_labels"].items():
        yield (
            f"teacher's answers in {split}: {labels['right']} of {labels['rows']} "
            f"right, {labels['unparsed']} not readable"
        )
    for name, text in found["prompts"].items():
        yield f"prompt of {name.replace('_', ', ')}, on a public question:"
        yield from (f"    {line}" for line in text.splitlines())

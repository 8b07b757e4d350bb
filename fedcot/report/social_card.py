"""The card of a prompt: what social learning leaves behind is text, not weights.

Written beside ``prompts/<student>.txt`` from `config.json` and `summary.json` alone, so
that it holds no text of the prompt. Who passes a prompt on has to know whose models
wrote it, and that no epsilon bounds what it tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fedcot.models.sources import public_name
from fedcot.report.card_privacy import epsilon_lines, plain
from fedcot.report.reader import number, privacy_of, size
from fedcot.report.social import (
    ORIGINAL,
    PRIVATE_MARK,
    ZERO_SHOT,
    counted,
    estimate_of,
    kind_of,
    listed,
    mapping,
    social_part,
    students_of,
)
from fedcot.report.social_view import accuracy_text
from fedcot.runs import part_of
from fedcot.social.settings import (
    AGGREGATORS,
    EXAMPLES,
    INSTRUCTION,
    PRIVATE_VOTING,
    RANDOM,
)

PROMPTS: Final = "prompts"
_SETTINGS: Final = (
    *("task", "seed", "teaching", "examples-per-prompt", "examples-kept"),
    *("generation-prompts", "samples-per-prompt", "example-temperature"),
    *("held-out-share", "balanced-choice", "gate-distance", "gate-run"),
    *("instruction-merging", "vote-epsilon"),
)
ORIGIN_OF_DISTILLED: Final = (
    "It was trained at the server, on: all examples that teacher clients' models wrote "
    "after private ones and sent."
)
_WHAT: Final = (
    "This is a prompt: text that a language model reads before a question. It is no "
    "model, and no weight was trained."
)
_USE: Final = (
    "Put the text of the file in front of a question that is written in the format of "
    "the task, and let the model go on. It was measured with the student named above; "
    "with another model it may do better or worse."
)
_NO_BOUND: Final = (
    "No epsilon bounds what it tells of private examples: take every epsilon as "
    "infinite."
)


def write_prompt_cards(
    run_dir: Path, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> list[Path]:
    """Write ``prompts/<student>.md`` for every prompt of a run of social learning.

    Parameters
    ----------
    run_dir : Path
    config, summary : mapping
        `config.json` and `summary.json`; the latter empty if the run never ended.

    Returns
    -------
    list of Path
        The cards, sorted.
    """
    written = []
    for prompt in sorted((run_dir / PROMPTS).glob("*.txt")):
        # Not `with_suffix`, which cuts the number of examples off.
        card = prompt.with_name(f"{prompt.name.removesuffix('.txt')}.md")
        part = part_of(card)
        text = prompt_card(config, summary, prompt.name.removesuffix(".txt"))
        part.write_text(text, encoding="utf-8")
        part.replace(card)
        written.append(card)
    return written


def prompt_card(
    config: Mapping[str, Any], summary: Mapping[str, Any], student: str
) -> str:
    """Return the card of one prompt in Markdown, with what the Hub reads in front.

    Parameters
    ----------
    config, summary : mapping
    student : str
        As ``voting.8``, one of the summary's `students`.
    """
    settings = mapping(config.get("run_config"))
    kind, count = kind_of(student, students_of(summary).get(student, {}))
    sections = [
        _front(settings, summary),
        f"# fedcot: the prompt `{plain(student)}`",
        _status(summary),
        f"{_WHAT} {_origin(summary, kind, count)}",
        _made_of(config, settings, summary),
        _leaks(settings, summary, kind),
        _measured(summary, student, count),
        _settings(settings, config),
        f"## Use\n\n{_USE}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _models(
    settings: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[list[str], str]:
    """Return names of the teacher clients' models and the student's, without paths."""
    told = mapping(social_part(summary).get("models"))
    asked = str(settings.get("client-model", "")).split(",")
    clients = listed(told.get("clients")) or [one.strip() for one in asked]
    student = told.get("student") or settings.get("prompted-student")
    return [public_name(one) for one in clients], public_name(student)


def _front(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    _, student = _models(settings, summary)
    tags = ("fedcot", "federated-learning", "social-learning", "prompt")
    # JSON text is YAML text, whatever stands in it.
    base = f"base_model: {json.dumps(student)}"
    return "\n".join(["---", base, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _status(summary: Mapping[str, Any]) -> str:
    lines = []
    status = summary.get("status")
    if status != "completed":
        found = f"ended as `{plain(status)}`" if status else "has not ended"
        lines.append(
            f"> **The run that made this {found}.** Its numbers are not final."
        )
    if (counted(summary.get("canaries")) or 0) > 0:
        lines.append(
            "> **Made in an audit run**, with made-up secrets among private examples: "
            "do not use it."
        )
    return "\n>\n".join(lines)


def _origin(summary: Mapping[str, Any], kind: str, count: int) -> str:
    """Return who wrote the text, as sentences."""
    part = social_part(summary)
    if kind == ORIGINAL:
        return (
            f"**It holds {count} private examples as they are ({PRIVATE_MARK}).** It "
            "must not be passed on."
        )
    said = []
    if kind.startswith(INSTRUCTION):
        found = mapping(part.get("instructions"))
        whose = _partitions(listed(found.get("partitions")))
        merged = " and merged" if found.get("extension") is True else ""
        said.append(
            f"It begins with an instruction, written by the models of {whose}{merged}."
        )
    chooser = _chooser(kind)
    if chooser:
        found = mapping(mapping(part.get("chosen")).get(chooser))
        whose = _partitions(listed(found.get("partitions"))[:count])
        how = "drawn at random" if chooser == RANDOM else f"chosen by {chooser}"
        said.append(
            f"It holds {count} examples that models of {whose} wrote after private "
            f"ones, {how} among all that were sent."
        )
    return " ".join(said) or "Nothing in it comes from a teacher client."


def _chooser(kind: str) -> str:
    """Return which aggregator chose the examples of a kind; empty for none."""
    name = kind.removeprefix(f"{INSTRUCTION}+")
    return name if name in AGGREGATORS else ""


def _partitions(found: list[Any]) -> str:
    names = sorted({str(one) for one in found}, key=lambda one: (len(one), one))
    if not names:
        return "teacher clients that the summary does not name"
    return "the teacher clients with partition " + ", ".join(map(plain, names))


def _made_of(
    config: Mapping[str, Any], settings: Mapping[str, Any], summary: Mapping[str, Any]
) -> str:
    clients, student = _models(settings, summary)
    task = social_part(summary).get("task") or settings.get("task")
    hashes = mapping(config.get("artefacts"))
    rows = {
        "student": (student, hashes.get("student")),
        "teacher clients' models": (", ".join(clients), None),
        "task": (public_name(task), hashes.get("dataset")),
    }
    lines = ["## Made of", "", "| what | name | SHA-256 |", "|---|---|---|"]
    lines += [
        f"| {what} | `{plain(name)}` | {f'`{plain(digest)}`' if digest else '-'} |"
        for what, (name, digest) in rows.items()
    ]
    return "\n".join(lines)


def _leaks(settings: Mapping[str, Any], summary: Mapping[str, Any], kind: str) -> str:
    """Return what passing the prompt on may give away."""
    lines = ["## Privacy", ""]
    ways = list(_ways(kind))
    if kind == ORIGINAL:
        lines.append(f"It is private text. {_NO_BOUND}")
        return "\n".join(lines)
    if not ways:
        lines.append("Nothing in it was made from private examples.")
        return "\n".join(lines)
    near = number(settings.get("gate-distance"))
    run = counted(settings.get("gate-run"))
    lines += [
        "Models wrote it after they had read private examples, so it may tell of them: "
        "topics, names, numbers, turns of phrase. A gate kept back every text that "
        "copies a private one of its own client, but for case and spacing"
        + (f", or is nearer to one than {near:g} of its length" if near else "")
        + (f", or repeats {run} words of one in a row" if run else "")
        + f". A gate is no differential privacy. {_NO_BOUND}",
    ]
    if PRIVATE_VOTING in ways:
        lines.append("The epsilon of private votes covers the choice, and no text.")
    entries = privacy_of(summary)
    for way in ways:
        lines += ["", f"### {way}", ""]
        if way in entries:
            lines += epsilon_lines(entries[way])
        else:
            lines.append("The run states no epsilon: take every epsilon as infinite.")
    return "\n".join(lines)


def _ways(kind: str) -> Iterator[str]:
    """Yield the ways of teaching that a kind of prompt rests on."""
    if kind.startswith(INSTRUCTION):
        yield INSTRUCTION
    chooser = _chooser(kind)
    if chooser:
        yield EXAMPLES
    if chooser not in ("", RANDOM):
        yield chooser


def _measured(summary: Mapping[str, Any], student: str, count: int) -> str:
    """Return how the student did with this prompt, without any and with originals."""
    students = students_of(summary)
    rows = []
    for name in dict.fromkeys((student, ZERO_SHOT, f"{ORIGINAL}.{count}")):
        view = students.get(name, {})
        if score := estimate_of(view.get("accuracy")):
            mark = f" ({PRIVATE_MARK})" if name.startswith(ORIGINAL) else ""
            length = size(view.get("prompt_bytes"))
            shown = f"{accuracy_text(score)} | {score.n} | {length}"
            rows.append(f"| {plain(name)}{mark} | {shown} |")
    if not rows:
        return ""
    head = [
        "## Measured",
        "",
        "Exact match of the student on public test questions, mean ± standard error.",
        "",
        "| prompt | exact match | questions | bytes |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _settings(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    lines = ["## Settings", ""]
    told = {"seed": config.get("seed"), **settings}
    lines += [
        f"* {name}: `{plain(told[name])}`"
        for name in _SETTINGS
        if told.get(name) is not None
    ]
    commit = config.get("git_commit")
    lines.append(f"* commit: {plain(commit) if commit else 'unknown'}")
    return "\n".join(lines)

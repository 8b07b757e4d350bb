"""The model card of a student: what it is made of, and what it gave away.

Written from a run's `config.json` and `summary.json` alone, so it holds nothing of a
record. It never states a smaller epsilon than the summary, and says of an adapter that
stayed with its client that no epsilon covers passing it on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedcot.community.settings import PERTURBED
from fedcot.errors import ConfigError
from fedcot.models.sources import public_name
from fedcot.report.card_community import is_drawn, origin, settings_of
from fedcot.report.card_privacy import plain, privacy_section
from fedcot.report.reader import number
from fedcot.report.social_card import ORIGIN_OF_DISTILLED, write_prompt_cards
from fedcot.report.terminal import WHAT_ARMS_ARE, mean_and_stderr
from fedcot.runs import CONFIG, SUMMARY, part_of
from fedcot.settings import COMMUNITY, FULL, SOCIAL
from fedcot.student.files import config_of

CARD: Final = "README.md"
COMPLETED: Final = "completed"
_LEAF: Final = re.compile(r"partition-(\d+)|global")
_COALITION: Final = re.compile(r"[a-z0-9][a-z0-9+-]*")
_SETTINGS: Final = (
    "pairing",
    "rationale-weight",
    "aggregation",
    "num-server-rounds",
    "local-epochs",
    "batch-size",
    "tuning",
    "learning-rate",
    "lora-r",
    "lora-alpha",
    "target-modules",
    "noise-multiplier",
    "max-grad-norm",
    "server-noise-multiplier",
)
_OF_ADAPTERS: Final = ("lora-r", "lora-alpha", "target-modules")
_COUNTS: Final = {
    "num_pairs": "rationales received",
    "num_unparsable": "left out because they could not be read",
    "num_invalid_step": "left out because a step was wrong",
    "num_label_mismatch": "left out because they reach another answer",
    "num_kept": "trained on",
    "num_truncated": "examples cut to fit",
}


def write_cards(run_dir: Path) -> list[Path]:
    """Write a card into the folder of every adapter, or tuned model, of a run.

    The file that PEFT leaves there is replaced. A run of social learning also gets a
    card beside every prompt.

    Parameters
    ----------
    run_dir : Path
        Finished or not: an unfinished run's cards say so.

    Returns
    -------
    list of Path
        The cards, sorted; empty for a run without adapters and prompts.

    Raises
    ------
    ConfigError
        It is no run directory.
    """
    config, summary = read_made(run_dir)
    written: list[Path] = []
    for folder in sorted(run_dir.glob("adapters/*/*")):
        if (place := config_of(folder)) is None:
            continue
        is_community = config.get("run_config", {}).get("mode") == COMMUNITY
        leaf = (_COALITION if is_community else _LEAF).fullmatch(folder.name)
        if leaf is None:
            continue
        text = model_card(
            config,
            summary,
            arm=folder.parent.name,
            partition=None if is_community or not leaf[1] else int(leaf[1]),
            coalition=folder.name if is_community else "",
            adapter=json.loads(place.read_text(encoding="utf-8")),
        )
        card = folder / CARD
        part = part_of(card)
        part.write_text(text, encoding="utf-8")
        part.replace(card)
        written.append(card)
    if config.get("run_config", {}).get("mode") == SOCIAL:
        written += write_prompt_cards(run_dir, config, summary)
    return written


def read_made(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `config.json` and `summary.json` of a run; the latter may be missing.

    Raises
    ------
    ConfigError
        It is no run directory.
    """
    found: list[dict[str, Any]] = []
    for name in (CONFIG, SUMMARY):
        try:
            content = json.loads((run_dir / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if name == SUMMARY:
                content = {}
            else:
                raise _no_run(run_dir, f"no {name}") from error
        except (OSError, ValueError) as error:
            raise _no_run(run_dir, f"a {name} that cannot be read") from error
        if not isinstance(content, dict):
            raise _no_run(run_dir, f"a {name} that is no object")
        found.append(content)
    return found[0], found[1]


def model_card(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    arm: str,
    partition: int | None,
    adapter: Mapping[str, Any],
    merged: bool = False,
    coalition: str = "",
) -> str:
    """Return the card of one student in Markdown, with what the Hub reads in front.

    Parameters
    ----------
    config, summary : mapping
        `config.json` and `summary.json`; the latter empty if the run never ended.
    arm : str
        One of `fedcot.config.ARMS`.
    partition : int | None
        The client; None: the mean of all clients' adapters.
    adapter : mapping
        `adapter_config.json`, or of a student that was tuned in full `config.json`.
    merged : bool
        Whether the card is of a model with the adapter added into its weights.
    coalition : str
        Whose student it is, in a run of communities.
    """
    settings = config.get("run_config", {})
    who = "the mean of all clients" if partition is None else f"client {partition}"
    who = f"coalition {coalition}" if coalition else who
    is_social = settings.get("mode") == SOCIAL
    who = "the student" if is_social else who
    form = "merged" if merged else "lora"
    if settings.get("tuning") == FULL:
        form = FULL
    what, trained = {
        "lora": ("A LoRA adapter", "It was trained"),
        "merged": ("A LoRA model", "Its adapter was trained"),
        FULL: ("A model", "All of its weights were tuned, from those of its base,"),
    }[form]
    learnt = WHAT_ARMS_ARE.get(arm, arm)
    how = origin(settings, arm, learnt) if coalition else f"{trained} on: {learnt}."
    how = ORIGIN_OF_DISTILLED if is_social else how
    what = f"{what} of a federated chain-of-thought distillation (fedcot). {how}"
    sections = [
        _front(settings, adapter, form),
        f"# fedcot: {arm}, {who}",
        _status(summary),
        what,
        _made_of(config, settings, arm),
        privacy_section(settings, summary, arm=arm, partition=partition),
        _of_coalition(summary, arm, coalition) or _measured(summary, arm),
        _training(config, settings, summary, arm),
        _loading(settings, adapter, form),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _is_encoder_decoder(adapter: Mapping[str, Any]) -> bool:
    """Whether an adapter's or a model's configuration is of an encoder-decoder."""
    stated = adapter.get("task_type") == "SEQ_2_SEQ_LM"
    return stated or adapter.get("is_encoder_decoder") is True


def _front(settings: Mapping[str, Any], adapter: Mapping[str, Any], form: str) -> str:
    is_pair = _is_encoder_decoder(adapter)
    pipeline = "text2text-generation" if is_pair else "text-generation"
    tags = ["fedcot", "federated-learning", "distillation"]
    if form != FULL:
        tags.append(form)
    base = public_name(settings.get("student"))
    lines = [
        "---",
        # JSON text is YAML text, whatever stands in it.
        f"base_model: {json.dumps(base)}",
        *(["base_model_relation: finetune"] if form == FULL else []),
        f"library_name: {'peft' if form == 'lora' else 'transformers'}",
        f"pipeline_tag: {pipeline}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    return "\n".join(lines)


def _status(summary: Mapping[str, Any]) -> str:
    status = summary.get("status")
    if status == COMPLETED:
        return ""
    found = f"ended as `{plain(status)}`" if status else "has not ended"
    return (
        f"> **The run that made this {found}.** What is here is what was there then, "
        "and its numbers are not final."
    )


def _made_of(config: Mapping[str, Any], settings: Mapping[str, Any], arm: str) -> str:
    """Return the parts; words and mechanism only where questions were perturbed."""
    hashes = config.get("artefacts", {})
    rows: dict[str, tuple[Any, Any]] = {
        "base": (public_name(settings.get("student")), hashes.get("student")),
        "teacher": (public_name(settings.get("teacher")), hashes.get("teacher")),
        "dataset": (public_name(settings.get("dataset")), hashes.get("dataset")),
    }
    if arm in ("fedcot", PERTURBED):
        vocabulary = public_name(settings.get("vocabulary"))
        rows["vocabulary"] = (vocabulary, hashes.get("vocabulary"))
        rows["mechanism"] = (settings.get("mechanism"), hashes.get("channel"))
    lines = ["## Made of", "", "| what | name | SHA-256 |", "|---|---|---|"]
    lines += [
        f"| {what} | `{plain(name)}` | {f'`{plain(digest)}`' if digest else '-'} |"
        for what, (name, digest) in rows.items()
    ]
    return "\n".join(lines)


def _measured(summary: Mapping[str, Any], arm: str) -> str:
    lines = []
    accuracy = summary.get("accuracy") or {}
    for name in dict.fromkeys(("zero-shot", arm, "teacher")):
        score = accuracy.get(name)
        if isinstance(score, Mapping):
            lines.append(
                f"| {name} | {mean_and_stderr(score)} | {plain(score.get('n', ''))} |"
            )
    if not lines:
        return ""
    chance = number(summary.get("chance"))
    head = [
        "## Measured",
        "",
        "Exact match on the test questions of all clients together, mean ± standard "
        "error" + (f"; guessing gives {chance:.3f}." if chance else "."),
        "",
        "| arm | exact match | questions |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *lines])


def _of_coalition(summary: Mapping[str, Any], arm: str, coalition: str) -> str:
    """Return how one student of a run of communities did, question set by set."""
    students = (summary.get("community") or {}).get("students") or {}
    found = students.get(f"{arm}.{coalition}") or {}
    rows = {f"of {name}": score for name, score in (found.get("own") or {}).items()}
    rows["that nobody held"] = found.get("hold_out")
    lines = [
        f"| {plain(what)} | {mean_and_stderr(score)} | {plain(score.get('n', ''))} |"
        for what, score in rows.items()
        if isinstance(score, Mapping)
    ]
    if not lines:
        return ""
    head = [
        "## Measured",
        "",
        "Exact match, mean ± standard error.",
        "",
        "| questions | exact match | how many |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *lines])


def _training(
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    arm: str,
) -> str:
    size = (
        f"* clients: {plain(summary.get('num_partitions', '-'))}, rounds done: "
        f"{plain(summary.get('num_rounds', '-'))}"
    )
    is_community = settings.get("mode") == COMMUNITY
    seed = f"* seed of data, sampling and training: {plain(config.get('seed', '-'))}"
    if not is_community or is_drawn(settings, arm):
        but = ", but for this test run" if settings.get("test-tape") else ""
        seed += f" (the mechanism's draws have none{but})"
    lines = ["## Training", "", seed, size]
    counts = (summary.get("filters") or {}).get(arm) or {}
    shown = [
        f"{counts[name]} {text}" for name, text in _COUNTS.items() if counts.get(name)
    ]
    if shown:
        lines.append(f"* of all clients together: {', '.join(shown)}")
    unused = _OF_ADAPTERS if settings.get("tuning") == FULL else ()
    lines += [
        f"* {name}: `{plain(settings[name])}`"
        for name in (settings_of(arm) if is_community else _SETTINGS)
        if name in settings and name not in unused
    ]
    versions = config.get("versions") or {}
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = config.get("git_commit")
    lines.append(f"* commit: {plain(commit) if commit else 'unknown'}")
    return "\n".join([*lines, *([f"* versions: {plain(made)}"] if made else [])])


def _loading(settings: Mapping[str, Any], adapter: Mapping[str, Any], form: str) -> str:
    is_pair = _is_encoder_decoder(adapter)
    auto = "AutoModelForSeq2SeqLM" if is_pair else "AutoModelForCausalLM"
    base = public_name(settings.get("student"))
    lines = ["## Loading", "", "```python"]
    if form != "lora":
        lines += [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("FOLDER")  # this folder',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
            "```",
        ]
        return "\n".join(lines)
    if base == "builtin":
        lines += [
            "from fedcot.models.sources import model_folder",
            "",
            'base = model_folder("builtin", "student")',
        ]
    else:
        name, _, revision = base.partition("@")
        lines.append(f"base = {json.dumps(name)}  # the model above, or its folder")
        if revision:
            lines.append(f"# revision: {revision}")
    lines += [
        "",
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"model = {auto}.from_pretrained(base)",
        'model = PeftModel.from_pretrained(model, "FOLDER")  # this folder',
        "tokenizer = AutoTokenizer.from_pretrained(base)",
        "```",
        "",
        "```",
        "lm_eval --model hf --model_args pretrained=BASE,peft=FOLDER --tasks ...",
        "```",
    ]
    return "\n".join(lines)


def _no_run(run_dir: Path, found: str) -> ConfigError:
    return ConfigError(
        f"`RUN_DIR` must be a run directory, found {found} in '{run_dir}'; pass for "
        "example `runs/latest`."
    )

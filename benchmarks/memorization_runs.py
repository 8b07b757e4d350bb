"""Canaries in conversations: honest clients, and one that hands its canary on.

A conversation of social learning about an invented operator is replayed for every
canary (`fedcot.social.leak_audit`). Clients' models are the built-in in-context pair's.
Two students read what they say: the built-in one, which reads rules off examples and
was never trained to repeat a text, and a model that repeats what stands in its prompt.
In half of the points one client shares its canary as it is, past the gate.

Run as `python benchmarks/memorization_runs.py`, from the root of the repository.
"""

import argparse
import json
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from fedcot import provenance
from fedcot.comparison import write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.evaluation.trial_book import TrialBook, plan_digest
from fedcot.social.client_model import ClientModel, Sampled
from fedcot.social.configured import (
    client_model_of,
    configured_form,
    configured_silo,
    prompted_student,
)
from fedcot.social.conversation import (
    Conversation,
    conversation_settings,
    converse,
)
from fedcot.social.leak_audit import audit_conversations
from fedcot.social.planted import SocialTrial, social_trial

TEACHERS: Final = 8
PATTERNS: Final = ("world-codes", "world-names")
READERS: Final = ("builtin", "repeating")
LEAKS: Final = (False, True)
ORDER: Final = 12
SYMBOLS: Final = 64


class RepeatingModel:
    """Goes on as a prompt did: a model of its characters, of order 12 and below.

    The probability of a character behind a context is that of the longest suffix of it
    that the prompt holds, mixed by halves with shorter ones and with a uniform choice
    among 64 characters.
    """

    name = "repeating"

    def describe(self) -> dict[str, str]:
        """Return what it is."""
        return {"client_model": "repeating", "order": str(ORDER)}

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        """Whether it takes a prompt: any."""
        return True

    def sample(self, *given: object, **more: object) -> list[Sampled]:
        """Refuse: nothing here lets it write."""
        raise NotImplementedError("This model scores texts only.")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the mean log-probability of each continuation, nats a character."""
        counts = {prompt: _counted(prompt) for prompt in {one for one, _ in pairs}}
        return [
            sum(
                math.log(_probability(counts[prompt], prompt + text[:place], sign))
                for place, sign in enumerate(text)
            )
            / len(text)
            for prompt, text in pairs
        ]


def _counted(text: str) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for place, sign in enumerate(text):
        for order in range(min(place, ORDER) + 1):
            found.setdefault(text[place - order : place], Counter())[sign] += 1
    return found


def _probability(counts: Mapping[str, Counter[str]], context: str, sign: str) -> float:
    found = 1 / SYMBOLS
    for order in range(ORDER + 1):
        known = counts.get(context[len(context) - order :] if order else "")
        if known is None:
            break
        found = (found + known[sign] / known.total()) / 2
    return found


# Readers and leaks of a trial have the same conversation, which takes the longest.
_TOLD: Final[dict[tuple[str, int], Conversation]] = {}


def honest(silos: Mapping[int, Any], *given: Any, **more: Any) -> Conversation:
    """Converse, once for each canary."""
    canary = max(silos.values(), key=len)[-1]
    place = (canary.question, more["seed"])
    if place not in _TOLD:
        _TOLD[place] = converse(silos, *given, **more)
    return _TOLD[place]


def leaking(silos: Mapping[int, Any], *given: Any, **more: Any) -> Conversation:
    """Converse, but let the client that holds a canary share it as it is.

    A canary stands behind the examples of a silo.
    """
    told = honest(silos, *given, **more)
    largest = max(silos, key=lambda partition: len(silos[partition]))
    canary = silos[largest][-1]
    chosen = {name: (canary, *shown[1:]) for name, shown in told.chosen.items()}
    drawn = {p: shown | {canary} for p, shown in told.drawn.items()}
    return replace(told, chosen=chosen, drawn=drawn)


def audited(given: argparse.Namespace, pattern: str, reader: str, leaks: bool) -> Any:
    """Return the audit of one point."""
    config = settings(given, pattern)
    form = configured_form(config)
    student: ClientModel = (
        prompted_student(config) if reader == "builtin" else RepeatingModel()
    )
    clean = replace(config, canaries=0)

    def trial_of(number: int) -> SocialTrial:
        return social_trial(
            config,
            form,
            number,
            num_partitions=TEACHERS,
            size=given.size,
            with_steps=False,
        )

    name = f"{pattern}-{reader}-{'leak' if leaks else 'honest'}"
    decisive = {
        "run_config": config.to_run_config(),
        "point": name,
        "size": given.size,
        "code": provenance.code_hash(),
    }
    return audit_conversations(
        {p: configured_silo(clean, p, TEACHERS) for p in range(TEACHERS)},
        form,
        {p: client_model_of(clean, p) for p in range(TEACHERS)},
        student,
        conversation_settings(clean),
        trial_of=trial_of,
        trials=given.trials,
        seed=config.seed,
        book=TrialBook(given.folder / f"{name}.jsonl", plan_digest(decisive)),
        talk=leaking if leaks else honest,
        on_progress=lambda done, total: print(f"{name}: {done} of {total}", flush=True),
    )


def settings(given: argparse.Namespace, pattern: str) -> RunConfig:
    """Return the settings of the conversations."""
    return load_config(
        given.config,
        {
            "task": "operator",
            "teaching": "examples",
            "aggregators": "random",
            "example-counts": "0,8",
            "num-partitions": TEACHERS,
            "canaries": given.trials,
            "canary-pattern": pattern,
            # One holder, so that the one that shares it is known.
            "canary-insertion": "one",
            "seed": given.seed,
        },
    )


def main() -> None:
    """Audit every point and write the result."""
    given = _arguments()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    points = []
    for pattern in given.patterns.split(","):
        for reader in READERS:
            for leaks in LEAKS:
                found = audited(given, pattern, reader, leaks)
                row = {"pattern": pattern, "student": reader, "leak": leaks, **found}
                points.append(row)
                told = found["students"]["random.8"]["exposure"]
                print(json.dumps({k: row[k] for k in ("pattern", "student", "leak")}))
                print(json.dumps(told), flush=True)
    result = {
        "command": shlex.join(
            ["python", "benchmarks/memorization_runs.py", *sys.argv[1:]]
        ),
        "settings": _without_place(settings(given, PATTERNS[0]).to_run_config()),
        "size": given.size,
        "trials": given.trials,
        "git_commit": provenance.git_commit(),
        "code_hash": provenance.code_hash(),
        "versions": provenance.versions(),
        "points": points,
    }
    write_comparison(result, given.output)
    print(f"Result: {given.output}")


def _without_place(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "run-dir"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("conf/social-rules.toml"))
    parser.add_argument("--size", type=int, default=1000, help="N")
    parser.add_argument("--trials", type=int, default=100, help="T")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/memorization"))
    parser.add_argument(
        "--output", type=Path, default=Path("results/memorization.json")
    )
    parser.add_argument(
        "--patterns", default=",".join(PATTERNS), help="of the canaries, by commas"
    )
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

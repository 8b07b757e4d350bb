"""Reads finished run directories into one typed value each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, Final

from fedcot.errors import ConfigError
from fedcot.runs import CONFIG, METRICS, SUMMARY
from fedcot.settings import ARMS, SOCIAL

# What communities compare; the last is a control that should learn nothing.
COMMUNITY_ARMS: Final = (
    "label-only",
    "alone",
    "pooled",
    "perturbed",
    "federated",
    "synthetic",
    "prompt",
    "random-label",
    # No student of its own: what ways of sharing give away together.
    "together",
)
_UNSTATED: Final[Mapping[str, Any]] = {
    "token_epsilon": math.inf,
    "prompt_epsilon_max": math.inf,
    "record_epsilon_max": math.inf,
    "record_epsilon_at_delta": math.inf,
    "delta": "none",
    "guarantee": "none stated",
}
# The teacher first, then the arms from no help to most help.
ARM_ORDER: Final = ("teacher", *ARMS, *COMMUNITY_ARMS)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Exact match of one arm: share in [0, 1], standard error, number of answers."""

    mean: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Run:
    """One run directory as it was written."""

    path: Path
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The folder's name, which tells runs apart."""
        return self.path.name

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with a score, the teacher first; none in mode social."""
        if self.summary.get("mode") == SOCIAL:
            return ()
        return tuple(arm for arm in ARM_ORDER if arm in self.summary["accuracy"])

    def accuracy(self, arm: str) -> Accuracy | None:
        """Return the headline score of an arm, or None where it was not measured."""
        if self.summary.get("mode") == SOCIAL:
            return None
        return _accuracy(self.summary["accuracy"].get(arm))

    def accuracy_by_prompt(self, arm: str, prompt: str) -> Accuracy | None:
        """Return the score of an arm under one of the two prompts, if measured."""
        by_prompt = self.summary.get("accuracy_by_prompt", {}).get(arm, {})
        return _accuracy(by_prompt.get(prompt))

    @property
    def privacy(self) -> Mapping[str, Mapping[str, Any]]:
        """What each arm gave away, in the order of `arms`."""
        return privacy_of(self.summary)


def privacy_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what each arm gave away, in the order of `ARM_ORDER`.

    Mode social has ways of teaching instead of arms, and what their lines leave out
    counts as infinite.
    """
    per_arm = (summary.get("privacy") or {}).get("per_arm") or {}
    if summary.get("mode") == SOCIAL:
        return {
            str(arm): {**_UNSTATED, **{k: v for k, v in entry.items() if v is not None}}
            for arm, entry in per_arm.items()
            if isinstance(entry, Mapping)
        }
    known = [arm for arm in ARM_ORDER if per_arm.get(arm) is not None]
    return {arm: per_arm[arm] for arm in known}


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises
    ------
    ConfigError
        It holds no finished run.
    """
    summary = _read_json(path / SUMMARY)
    if "accuracy" not in summary or "privacy" not in summary:
        raise ConfigError(
            f"`RUN_DIR` must hold a finished run, found {SUMMARY} without results in "
            f"`{path}` (status: {summary.get('status', 'unknown')}); "
            "see flower.log there."
        )
    config_file, metrics_file = path / CONFIG, path / METRICS
    config = _read_json(config_file) if config_file.is_file() else {}
    metrics: list[Mapping[str, Any]] = []
    if metrics_file.is_file():
        for line in metrics_file.read_text(encoding="utf-8").splitlines():
            metrics.append(json.loads(line))
    return Run(path.resolve(), summary, config, tuple(metrics))


def number(value: Any) -> float | None:
    """Return a number that went through JSON, where infinity is the text "inf"."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def decimal(value: Any, digits: int) -> str:
    """Show a number with so many digits behind the point."""
    found = number(value)
    return "-" if found is None else f"{found:.{digits}f}"


def nats(value: Any) -> str:
    """Show an epsilon, rounded up so that it never reads smaller than it is."""
    epsilon = number(value)
    if epsilon is None:
        return "-"
    if not math.isfinite(epsilon):
        return "inf"
    # The shortest decimal that names the float, so that 7.2 does not become 7.201.
    up = Decimal(repr(epsilon)).quantize(Decimal("0.0001"), rounding=ROUND_CEILING)
    return f"{up:f}".rstrip("0").rstrip(".")


def size(value: Any) -> str:
    """Show a number of bytes."""
    count = number(value)
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _accuracy(entry: Mapping[str, Any] | None) -> Accuracy | None:
    if not entry:
        return None
    mean, stderr = number(entry.get("mean")), number(entry.get("stderr"))
    if mean is None:
        return None
    return Accuracy(
        mean, math.nan if stderr is None else stderr, int(entry.get("n", 0))
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"`RUN_DIR` must be a run directory, found no `{path}`; "
            "pass for example `runs/latest`."
        ) from error
    except ValueError as error:
        raise ConfigError(f"`{path}` must be JSON, found {error}.") from error
    return content

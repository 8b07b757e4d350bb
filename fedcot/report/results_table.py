"""Arms over seeds as text: for the terminal, and for the README, where it is compared.

The numbers come from the JSON that `fedcot compare` writes; no table is typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedcot.report.reader import ARM_ORDER, nats
from fedcot.report.terminal import WHAT_ARMS_ARE, mean_and_stderr


def results_markdown(path: Path) -> str:
    """Return the results over seeds as a Markdown table with its caption.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-main` writes.
    """
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| arm | learns from | exact match | per seed |", "|---|---|---|---|"]
    for arm in (arm for arm in ARM_ORDER if arm in results["accuracy"]):
        entry = results["accuracy"][arm]
        seeds = ", ".join(f"{value:.2f}" for value in entry["per_seed"])
        shown = mean_and_stderr(entry)
        lines.append(f"| `{arm}` | {WHAT_ARMS_ARE[arm]} | {shown} | {seeds} |")
    privacy = results["privacy"]["per_arm"]["fedcot"]
    caption = (
        f"Mean ± standard error over {len(results['seeds'])} seeds, from "
        f"`{path.parent.name}/{path.name}`, written by `make results-main`. The "
        "`fedcot` row spends "
        f"{nats(privacy['token_epsilon'])} nats per token, "
        f"{nats(privacy['prompt_epsilon_max'])} per prompt and "
        f"{nats(privacy['record_epsilon_max'])} per record over all rounds "
        f"(neighbours: {privacy['neighboring_relation']}); `distil` sends raw prompts "
        "and has no privacy at all."
    )
    return "\n".join([*lines, "", caption])


def comparison_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arms over seeds and the paired tests as lines for a terminal."""
    count = len(results["seeds"])
    yield f"Exact match, mean ± standard error over {count} seeds"
    for arm in (arm for arm in ARM_ORDER if arm in results["accuracy"]):
        entry = results["accuracy"][arm]
        yield f"  {arm:<20} {mean_and_stderr(entry)}"
    for name, test in results["paired_tests"].items():
        yield (
            f"  {name}: difference {test['difference']:+.3f}, one-sided "
            f"p = {test['p_value']:.2g}, {test['n']} pairs"
        )

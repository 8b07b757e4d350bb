"""What privacy costs as Markdown: for the README, where a test compares it.

The numbers come from the JSON files that `make results-privacy` and `make
results-words` write; no table is typed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedcot.report.reader import nats

MECHANISMS: Final = ("selection", "adaptive", "rank", "exponential")
LINES: Final = {
    "standalone": "labels alone",
    "random_bank": "public prompts drawn blindly",
    "distil": "no privacy",
}


def curve_markdown(path: Path) -> str:
    """Return accuracy by mechanism and prompt epsilon, with the controls.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-privacy` writes.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = {
        (point["mechanism"], point["asked_prompt_epsilon"]): point
        for point in result["points"]
    }
    head = " | ".join(f"`{mechanism}`" for mechanism in MECHANISMS)
    lines = [
        f"| nats for a whole prompt | {head} |",
        "|---|" + "---|" * len(MECHANISMS),
    ]
    for epsilon in sorted({epsilon for _, epsilon in found}):
        cells = [
            _estimate(found[mechanism, epsilon]["accuracy"])
            if (mechanism, epsilon) in found
            else ""
            for mechanism in MECHANISMS
        ]
        lines.append(f"| {nats(epsilon)} | {' | '.join(cells)} |")
    controls = "; ".join(
        f"{words} (`{arm.replace('_', '-')}`) {_estimate(result[arm]['accuracy'])}"
        for arm, words in LINES.items()
    )
    shares = result["recovered"]["selection"]
    recovered = ", ".join(
        f"{share:.0%} at {epsilon}" for epsilon, share in shares.items()
    )
    caption = (
        f"Student accuracy, mean ± standard error over {len(result['seeds'])} "
        f"seeds, {result['num_partitions']} clients with "
        f"{result['settings']['records-per-round']} questions each in one round. "
        f"Beside it: {controls}. Of the way from `random-bank` to `distil`, "
        f"`selection` goes {recovered}. From `{path.parent.name}/{path.name}`, "
        "written by `make results-privacy`."
    )
    return "\n".join([*lines, "", caption])


def words_markdown(path: Path) -> str:
    """Return what mechanisms keep of English words at one exact token epsilon.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-words` writes.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "| mechanism | token epsilon | of the 10 nearest | true word | perplexity |",
        "|---|---|---|---|---|",
    ]
    for row in result["mechanisms"]:
        reads = "" if row["perplexity"] is None else f"{row['perplexity']:,.0f}"
        lines.append(
            f"| `{row['mechanism']}` | {nats(row['exact_epsilon'])} | "
            f"{row['near']:.3f} | {row['kept']:.3f} | {reads} |"
        )
    caption = (
        f"{result['vocabulary']['words']} words of {result['vocabulary']['source']}; "
        f"{result['prompts']} questions; perplexity under a public model of word pairs "
        f"(the questions themselves: {result['perplexity_of_the_private_prompts']:,.0f}"
        f"). From `{path.parent.name}/{path.name}`, written by `make results-words`."
    )
    return "\n".join([*lines, "", caption])


def _estimate(entry: Mapping[str, Any]) -> str:
    if entry["stderr"] is None:
        return f"{entry['mean']:.2f}"
    return f"{entry['mean']:.2f} ± {entry['stderr']:.2f}"

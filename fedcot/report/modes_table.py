"""What the three modes reach, give away and cost on one split, for the documents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_LEARNT: Final = ("community/pooled", "social/distilled")
# Nobody should read a row's number without these.
_CAVEATS: Final = (
    "Clients, their training and test questions and the number of canaries are the "
    "same in every row, and so are base, adapter, objective and epochs of the students "
    "that are trained; a pooled student learns from all clients' traces at once, a "
    "personal one from its client's alone. The modes do not have the same help: one "
    "teacher explains for mode fedcot and for communities, while in mode social each "
    "client's own model explains and writes, and a prompted student is another model "
    "than a trained one, to be compared with its own row zero-shot. Bytes are those of "
    "Flower messages that teach, without scores; what members of communities say to "
    "their provider, which reads their questions as they are, is not among them. "
    "Exposure is that of the student itself: one that its client alone has releases "
    "nothing by it, and in mode fedcot questions leave in prompts, which epsilon is "
    "about and ranks are not."
)


def modes_markdown(path: Path) -> str:
    """Return a row for each student of each mode, and what the columns say.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-modes` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    columns = (
        "mode",
        "student",
        "who has it",
        "accuracy, %",
        "sent, kB",
        "received, kB",
        "to get it, kB",
        "epsilon, nats",
        f"rank 0 of N = {result['size']}",
        "median exposure, bits",
    )
    # Names stand to the left, numbers to the right.
    rule = ["---"] * 3 + ["---:"] * (len(columns) - 3)
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(rule)}|"]
    lines += [f"| {' | '.join(_cells(arm))} |" for arm in result["arms"].values()]
    return "\n".join([*lines, "", *_notes(result, path)])


def _cells(arm: Mapping[str, Any]) -> Iterator[str]:
    yield from (arm["mode"], arm["name"], arm["holder"])
    yield _mean(arm["accuracy"], 100, 1)
    for key in ("uplink", "downlink", "delivery"):
        yield f"{arm['bytes'][key]['mean'] / 1000:,.1f}"
    yield epsilon_shown(float(arm["epsilon"]))
    found = arm["exposure"]
    if found is None:
        yield from ("not ranked", "not ranked")
        return
    zero = found["rank_zero"]
    yield f"{zero['hits']} of {zero['n']} ({zero['low']:.2f} to {zero['high']:.2f})"
    yield f"{found['median_bits']:.2f}"


def epsilon_shown(epsilon: float) -> str:
    """Return an epsilon in nats; infinite is written as such."""
    return "infinite" if math.isinf(epsilon) else f"{epsilon:g}"


def _notes(result: Mapping[str, Any], path: Path) -> Iterator[str]:
    arms = list(result["arms"].values())
    seeds = len(result["seeds"])
    ranked = next(arm["exposure"] for arm in arms if arm["exposure"])
    spread = "mean ± standard error over" if seeds > 1 else "of"
    # Standard errors of one seed do not exist.
    yield (
        f"Accuracy on {arms[0]['test_questions']} own test questions of "
        f"{result['clients']} clients, {spread} {seeds} "
        f"{'seeds' if seeds > 1 else 'seed'}. Epsilon: the largest of one record, "
        "pure, in nats; infinite: no bound holds; 0: nothing is sent; above some ten "
        "it is a bound in form more than in effect. Ranks of "
        f"{result['canaries_per_seed']} canaries for each seed among N = "
        f"{result['size']}, of which one client holds each, with the exact 95 % "
        f"interval of the share; chance gives {ranked['rank_zero_expected']:.2g} with "
        f"rank 0 and about 1 bit at the median, {math.log2(result['size']):.2f} bits "
        "at most. Where a student has two prompts, it is ranked behind the one that "
        "exposes more."
    )
    replays = {
        name: found
        for name, found in result["social_replays"].items()
        if found and name != "zero-shot"
    }
    told = [
        f"{name}: rank 0 for {one['rank_zero']['hits']} of {one['trials']}, median "
        f"{one['median_bits']:.2f} bits"
        for name, one in replays.items()
    ]
    if told:
        yield ""
        yield (
            "With a conversation of its own for each canary, as "
            "`fedcot audit memorization` replays it, too few to exclude much: "
            f"{'; '.join(told)}."
        )
    pooled, distilled = (_texts(result, name) for name in _LEARNT)
    answered = max(
        one["answered"]["mean"] for one in result["social_students"].values()
    )
    yield ""
    yield (
        "Students that only read a prompt give an answer that can be read to at most "
        f"{100 * answered:.1f} % of the public questions. "
        f"The pooled student learns from {pooled} traces, the distilled one of mode "
        f"social from {distilled} examples. {_CAVEATS} From "
        f"`{path.parent.name}/{path.name}`, written by `make results-modes`."
    )


def _texts(result: Mapping[str, Any], arm: str) -> str:
    return f"{result['texts'][arm]['mean']:,.0f}"


def _mean(found: Mapping[str, Any], scale: float, digits: int) -> str:
    mean = f"{scale * found['mean']:.{digits}f}"
    if found.get("stderr") is None:
        return mean
    return f"{mean} ± {scale * found['stderr']:.{digits}f}"

"""What a simulated run of communities will do, and what will leave a member, in words.

It follows from the settings alone: nothing is asked, trained or drawn. A scenario, a
filter or a spent budget can leave a coalition without traces, and so without a student.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from fedcot.community.coalitions import Coalition, label, parse_coalitions
from fedcot.community.consent_rules import permits
from fedcot.community.membership import community_of, member_size
from fedcot.community.pool import coalition_arms
from fedcot.community.settings import (
    FEDERATED,
    LABEL_ONLY,
    PERTURBED,
    POOLED,
    PROMPT,
    PROVIDER_LEVELS,
    RANDOM_LABEL,
    SYNTHETIC,
)
from fedcot.data.traces import Scope
from fedcot.report.reader import nats
from fedcot.settings import FULL
from fedcot.teacher_source import is_endpoint

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.privacy.accounting import PrivacyPlan

_FEW: Final = 6
_REACHES: Final = {
    Scope.OWN: "nobody's student",
    Scope.COMMUNITY: "the student of its community alone",
    Scope.COALITION: "the students of its community's coalitions",
    Scope.PUBLIC: "the students of its community's coalitions, and it is public",
}
_UNBOUNDED: Final = "no epsilon bounds that"


def outline(
    config: RunConfig, num_partitions: int, plan: PrivacyPlan | None
) -> dict[str, Any]:
    """Return who shares what with whom in a run of communities.

    Parameters
    ----------
    config : RunConfig
        With ``mode=community``.
    num_partitions : int
        Simulated members.
    plan : PrivacyPlan or None
        Of the mechanism; None where it cannot be made.

    Returns
    -------
    dict
        `communities` (clients by name), `coalitions`, `sharing`, `controls`, `students`
        (how many are trained, by what they learn from), `leaves` (what leaves a member,
        by way of sharing), `trace_scope`, `hold_out`, and all as `lines`.

    Raises
    ------
    ConfigError
        There are fewer members than communities, or more than questions.
    """
    size = member_size(config, num_partitions)
    coalitions = parse_coalitions(config.coalitions, config.community_names)
    members: dict[str, list[int]] = {name: [] for name in config.community_names}
    for client in range(num_partitions):
        members[community_of(client, config.community_names)].append(client)
    found: dict[str, Any] = {
        "communities": members,
        "coalitions": [label(one) for one in coalitions],
        "sharing": list(config.sharing_names),
        "controls": _controls(config),
        "students": _students(config, coalitions),
        "leaves": {
            name: _leaving(name, config, size, plan) for name in config.sharing_names
        },
        "trace_scope": config.trace_scope,
        "hold_out": config.hold_out,
    }
    return {**found, "lines": list(_lines(config, found, size * num_partitions))}


def _controls(config: RunConfig) -> list[str]:
    """Return the controls that there will be: they go with pooled traces only."""
    return list(config.control_names) if POOLED in config.sharing_names else []


def _students(config: RunConfig, coalitions: tuple[Coalition, ...]) -> dict[str, int]:
    """Return how many students are trained, by what they learn from."""
    found: dict[str, int] = {}
    for coalition in coalitions:
        arms = list(coalition_arms(config, coalition, coalitions))
        arms += [FEDERATED] if FEDERATED in config.sharing_names else []
        for arm in arms:
            if arm != PROMPT:
                learns = _learns(arm, config, coalition, coalitions)
                found[arm] = found.get(arm, 0) + learns
    return found


def _learns(
    arm: str,
    config: RunConfig,
    coalition: Coalition,
    coalitions: tuple[Coalition, ...],
) -> bool:
    """Whether the scope of traces lets a student of a coalition learn anything."""
    if arm == PERTURBED:
        return True  # A released question is nobody's trace.
    if arm in (FEDERATED, SYNTHETIC) and config.noise_multiplier > 0:
        return True  # Sent whatever there is: its absence would tell.
    scope = Scope(config.trace_scope)
    for name in coalition:
        reached = [permits(scope, name, one) for one in coalitions if name in one]
        # A generator serves all coalitions of its member, with the same texts.
        if all(reached) if arm == SYNTHETIC else permits(scope, name, coalition):
            return True
    return False


def _leaving(name: str, config: RunConfig, size: int, plan: PrivacyPlan | None) -> str:
    """Return what leaves a member for one way of sharing."""
    is_private = config.noise_multiplier > 0
    noise = (
        f"under DP-SGD with noise {config.noise_multiplier:g} x norm "
        f"{config.max_grad_norm:g}"
    )
    if name == PERTURBED:
        epsilon = "unknown" if plan is None else nats(plan.prompt_epsilon)
        count = min(size, config.records_per_round)
        return (
            f"up to {count} perturbed questions a round ({config.mechanism}), "
            f"epsilon {epsilon} nats each"
        )
    if name == FEDERATED:
        what = "full weights" if config.tuning == FULL else "an adapter"
        how = noise if is_private else f"without noise, {_UNBOUNDED}"
        return f"{what} trained on its traces, for each coalition and round, {how}"
    if name == SYNTHETIC:
        count = config.synthetic_traces or size
        how = noise if is_private else f"without noise, {_UNBOUNDED}"
        return (
            f"up to {count} texts that a generator trained on its traces writes, {how}"
        )
    if name == PROMPT:
        return (
            f"up to {config.prompt_traces} traces as text for each coalition, which "
            f"fellow members read, {_UNBOUNDED}"
        )
    return f"traces as text: question, reasoning, answer, {_UNBOUNDED}"


def _lines(config: RunConfig, found: Mapping[str, Any], asked: int) -> Iterator[str]:
    for name, clients in found["communities"].items():
        count = f"{len(clients)} member{'s' if len(clients) > 1 else ''}"
        yield f"{name}: {count} (client {_few(clients)})"
    yield f"coalitions: {len(found['coalitions'])} ({_few(found['coalitions'])})"
    where = "an endpoint" if is_endpoint(config.teacher) else "the provider"
    level = (
        f", prompted for level {config.provider_level} of {PROVIDER_LEVELS}"
        if config.provider_level
        else ""
    )
    yield (
        f"members ask {where} {asked} training questions as they are{level}; "
        f"reasoning handed out: {config.provider_reasoning}"
    )
    scope = Scope(config.trace_scope)
    yield (
        f"a trace reaches {_REACHES[scope]} (trace-scope={config.trace_scope}), "
        f"filtered by trace-filter={config.trace_filter}"
    )
    for name, what in found["leaves"].items():
        yield f"leaves a member for {name}: {what}"
    counts = ", ".join(f"{arm} {count}" for arm, count in found["students"].items())
    total = sum(found["students"].values())
    yield f"students trained: {total}" + (f" ({counts})" if counts else "")
    yield f"controls: {_said(found['controls'])}"
    held = found["hold_out"]
    yield f"hold-out: {f'up to {held} questions nobody holds' if held else 'none'}"


def _said(controls: list[str]) -> str:
    """Return the controls in words."""
    words = {
        LABEL_ONLY: "label-only for every coalition",
        RANDOM_LABEL: "random-label for the widest",
    }
    named = ", ".join(words[name] for name in controls) or "none"
    return named if LABEL_ONLY in controls else f"{named}; so no gain is stated"


def _few(names: list[Any]) -> str:
    """Return some names, and how many more there are."""
    shown = ", ".join(map(str, names[:_FEW]))
    more = len(names) - _FEW
    return f"{shown} and {more} more" if more > 0 else shown

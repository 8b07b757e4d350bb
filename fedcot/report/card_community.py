"""What a model card says of a coalition's student: where it was trained, and on what.

A student of pooled traces never left a member; one of federated training is a mean of
what did. Who passes a student on has to know which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedcot.community.settings import FEDERATED, LABEL_ONLY, PERTURBED, SYNTHETIC
from fedcot.report.reader import number
from fedcot.settings import FULL

_TRAINING: Final = (
    "local-epochs",
    "batch-size",
    "tuning",
    "learning-rate",
    "lora-r",
    "lora-alpha",
    "target-modules",
)
_TRACES: Final = (
    "trace-filter",
    "provider-reasoning",
    "provider-level",
    "granularity",
    "granularity-padding",
)
_PRIVATE: Final = ("noise-multiplier", "max-grad-norm")
_GENERATORS: Final = ("generator-epochs", "synthetic-temperature")


def origin(settings: Mapping[str, Any], arm: str, learnt: str) -> str:
    """Return where a student comes from, as sentences.

    Parameters
    ----------
    settings : mapping
        `run_config` of the run.
    arm : str
        A way of sharing, or a control of the pooled traces.
    learnt : str
        What the arm learns from, in a few words.
    """
    is_full = settings.get("tuning") == FULL
    if arm == FEDERATED:
        part = "full weights" if is_full else "adapters"
        mean = f"It is the mean of {part} that members trained on their own traces."
        return f"All of its weights were tuned. {mean}" if is_full else mean
    trained = (
        "All of its weights were tuned, from those of its base," if is_full else ""
    )
    return f"{trained or 'It was trained'} at the server, on: {learnt}."


def passing_on(settings: Mapping[str, Any], arm: str) -> str:
    """Return what passing the student of a coalition on gives away, in one sentence."""
    is_full = settings.get("tuning") == FULL
    these = "These full weights were" if is_full else "This adapter was"
    is_private = (number(settings.get("noise-multiplier")) or 0.0) > 0
    unbounded = "no epsilon bounds what passing it on gives away of these traces"
    covered = "what is stated above covers passing it on"
    if arm == PERTURBED:
        return (
            f"{these} trained at the server on what the provider wrote to perturbed "
            f"questions, so {covered}."
        )
    if arm == FEDERATED:
        sent = "full weights" if is_full else "adapters"
        how = " under DP-SGD" if is_private else ""
        end = covered if is_private else unbounded
        return (
            f"{these} averaged at the server from {sent} that members trained on "
            f"their traces{how} and sent: {end}."
        )
    if arm == SYNTHETIC:
        how = " under DP-SGD" if is_private else ""
        end = covered if is_private else unbounded
        return (
            f"{these} trained at the server on texts of generators, which members "
            f"trained on their traces{how}: {end}."
        )
    return (
        f"{these} trained at the server on traces that members handed over as text: "
        f"{unbounded}. Whom traces may reach is their owners' consent."
    )


def is_drawn(settings: Mapping[str, Any], arm: str) -> bool:
    """Whether chance without a seed, of a mechanism or of DP-SGD, is in a student."""
    noise = number(settings.get("noise-multiplier")) or 0.0
    return arm == PERTURBED or (arm in (FEDERATED, SYNTHETIC) and noise > 0)


def settings_of(arm: str) -> tuple[str, ...]:
    """Return the settings that decide how the student of an arm was trained."""
    own: tuple[str, ...] = ("label-share", "pool-tokens", *_TRACES)
    if arm == FEDERATED:
        own = ("num-server-rounds", "label-share", *_TRACES, *_PRIVATE)
    elif arm == SYNTHETIC:
        own = ("label-share", "pool-tokens", *_TRACES, *_GENERATORS, *_PRIVATE)
    elif arm == PERTURBED:
        own = ("num-server-rounds", "label-share", "pool-tokens", "provider-level")
    elif arm == LABEL_ONLY:
        own = ("pool-tokens", *_TRACES)
    return (*own, *_TRAINING)

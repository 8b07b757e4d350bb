"""What communities do against the plan: free-riding, striking, poisoning.

The 2021 framework names strikes, its code has vandals; the source of this mode names
counter-measures as future work. The exact definitions below are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fedcot.data.traces import Trace
from fedcot.errors import ConfigError

FREE_RIDER: Final = "free-rider"
STRIKE: Final = "strike"
POISON: Final = "poison"
KINDS: Final = (FREE_RIDER, STRIKE, POISON)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one community does.

    Attributes
    ----------
    kind : str
        ``free-rider``: gives nothing and uses the coalition's student. ``strike``:
        gives nothing, and one that gives nothing at all has left the coalition: its
        students are not counted as its own. ``poison``: gives right answers with wrong
        steps.
    share : float
        Of its traces, in (0, 1].
    """

    kind: str
    share: float


def parse_scenario(text: str, communities: Sequence[str]) -> dict[str, Behaviour]:
    """Return what each community that misbehaves does.

    Parameters
    ----------
    text : str
        ``kind:community[:share]``, separated by commas; empty for none.

    Raises
    ------
    ConfigError
        An unknown kind or community, one that stands twice, or a share outside (0, 1].
    """
    found: dict[str, Behaviour] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind, _, rest = part.partition(":")
        name, _, share_text = rest.partition(":")
        try:
            share = float(share_text) if share_text else 1.0
        except ValueError:
            share = -1.0
        known = kind in KINDS and name in communities and name not in found
        if not known or not 0 < share <= 1:
            raise ConfigError(
                f"`scenario` must be kind:community[:share], the kind one of "
                f"{', '.join(KINDS)}, the community one of {', '.join(communities)}, "
                f"each once, the share in (0, 1], found {part!r}; pass for example "
                f"`-c scenario=poison:{communities[0]}:0.5`."
            )
        found[name] = Behaviour(kind, share)
    return found


def behave(
    traces: Sequence[Trace], behaviour: Behaviour | None, *, rng: np.random.Generator
) -> tuple[Trace, ...]:
    """Return the traces that a member holds ready after its behaviour.

    Parameters
    ----------
    traces : sequence of Trace
        Of one member.
    behaviour : Behaviour or None
        None: as they are.
    rng : numpy Generator
        Chooses the share, and whose steps a poisoned trace gets.

    Returns
    -------
    tuple of Trace
        A free-rider and a striker keep back the share; a poisoner gives the share
        another trace's reasoning and keeps question and answer. Where no trace has
        other words there is nothing to poison with.
    """
    if behaviour is None or not traces:
        return tuple(traces)
    count = round(behaviour.share * len(traces))
    chosen = set(map(int, rng.permutation(len(traces))[:count]))
    if behaviour.kind != POISON:
        return tuple(t for place, t in enumerate(traces) if place not in chosen)
    donors = _other_reasoning(traces, rng)
    return tuple(
        donors[place] if place in chosen else trace
        for place, trace in enumerate(traces)
    )


def _other_reasoning(
    traces: Sequence[Trace], rng: np.random.Generator
) -> Mapping[int, Trace]:
    """Return each trace with the reasoning of another one of the member."""
    shift = 1 + int(rng.integers(max(1, len(traces) - 1)))
    found: dict[int, Trace] = {}
    for place, trace in enumerate(traces):
        turned = [*traces[place:], *traces[:place]]
        others = (*turned[shift:], *turned[:shift])
        # Short steps recur; the same words would not be poison.
        donor = next((t for t in others if t.reasoning != trace.reasoning), trace)
        found[place] = replace(
            trace, reasoning=donor.reasoning, trace_class=donor.trace_class
        )
    return found

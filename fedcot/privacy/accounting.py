"""What a plan costs before anything is drawn, with units and neighbouring relation.

The pure epsilon is exact. The one at delta comes from the privacy loss distribution of
a pair of inputs that dominates every other; the smaller of the two is the plan's.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.common import DifferentialPrivacyParameters

from fedcot.errors import ConfigError
from fedcot.privacy.channels import Channel
from fedcot.privacy.nats import cost_in_nano_nats, nats
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import SEEDED_GUARANTEE

NEIGHBORING_RELATION = "REPLACE_SPECIAL"
UNIT = (
    "nats, pure epsilon of one token / one prompt / one record over all rounds; the "
    "vocabulary, the number of slots and the number of records are public"
)
# Losses are rounded up to this many steps per token; finer gains less than 0.01 nats.
STEPS_PER_TOKEN = 1e-4


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """The privacy of a run's prompts before it starts.

    Attributes
    ----------
    mechanism, guarantee, unit, neighboring_relation, adjacency : str
        What holds, in words.
    slots, rounds : int
        Tokens of a prompt, rounds of the run.
    token_epsilon, prompt_epsilon : float
        Nats, pure; one token, one prompt.
    record_epsilon : float
        Nats, pure; one record over all rounds. A prompt is perturbed once and sent
        again from the store, so rounds do not multiply it.
    charge : float
        Nats that the ledger books for one prompt: the pure epsilon of the channel,
        also where seeded draws guarantee nothing.
    record_limit : float
        Nats; what the node's ledger allows for one record.
    delta : float
        For `record_epsilon_at_delta`.
    record_epsilon_at_delta : float
        Nats; the smaller of the pure epsilon and the composed one at `delta`.
    """

    mechanism: str
    guarantee: str
    unit: str
    neighboring_relation: str
    adjacency: str
    slots: int
    rounds: int
    token_epsilon: float
    prompt_epsilon: float
    record_epsilon: float
    charge: float
    record_limit: float
    delta: float
    record_epsilon_at_delta: float

    @property
    def is_within_limit(self) -> bool:
        """Whether the ledger will grant a record's prompt."""
        return self.charge <= self.record_limit

    def lines(self) -> list[str]:
        """Return the plan as lines to print, each epsilon with its unit."""
        verdict = "within" if self.is_within_limit else "OVER: every release is refused"
        over_rounds = f"over {self.rounds} rounds (perturbed once, then re-sent)"
        at_delta = f"one record at delta {self.delta:g}"
        return [
            f"mechanism       {self.mechanism} ({self.guarantee})",
            f"token epsilon   {_shown(self.token_epsilon)} nats, one token",
            f"prompt epsilon  {_shown(self.prompt_epsilon)} nats, {self.slots} slots",
            f"record epsilon  {_shown(self.record_epsilon)} nats, {over_rounds}",
            f"                {_shown(self.record_epsilon_at_delta)} nats, {at_delta}",
            f"record limit    {_shown(self.record_limit)} nats, {verdict}",
            f"adjacency       {self.neighboring_relation}, {self.adjacency}",
        ]


def prompt_epsilon(token_epsilon: float, slots: int) -> float:
    """Return the pure epsilon of a prompt: what the ledger charges for it.

    Parameters
    ----------
    token_epsilon : float
        Nats for one token, > 0.
    slots : int
        Tokens of a prompt, padding included, >= 1.

    Returns
    -------
    float
        Nats, rounded up to a whole nano-nat.
    """
    _require_positive("slots", slots)
    return nats(cost_in_nano_nats(token_epsilon, slots))


def plan(
    channel: Channel,
    *,
    record_epsilon: float,
    rounds: int,
    delta: float,
    is_private: bool = True,
) -> PrivacyPlan:
    """Return what a run's prompts will cost.

    Parameters
    ----------
    channel : Channel
        The mechanism with its public number of slots.
    record_epsilon : float
        Nats that the ledger allows for one record.
    rounds : int
        Rounds of the run, >= 1.
    delta : float
        In (0, 1).
    is_private : bool
        Whether the draws are the operating system's; seeded ones guarantee nothing.

    Raises
    ------
    ConfigError
        If an argument breaks these rules.
    """
    _require_positive("num-server-rounds", rounds)
    if not 0 < delta < 1:
        raise ConfigError(
            f"`delta` must lie in (0, 1), found {delta}; pass for example "
            "`-c delta=0.000001`."
        )
    if not record_epsilon > 0:
        raise ConfigError(
            f"`record-epsilon` must be > 0, found {record_epsilon}; pass for example "
            "`-c record-epsilon=250.0`."
        )
    token = channel.token_epsilon if is_private else math.inf
    prompt = channel.prompt_epsilon if is_private else math.inf
    composed = math.inf if math.isinf(token) else epsilon_at_delta(channel, delta=delta)
    return PrivacyPlan(
        mechanism=channel.name,
        guarantee=channel.guarantee if is_private else SEEDED_GUARANTEE,
        unit=UNIT,
        neighboring_relation=NEIGHBORING_RELATION,
        adjacency=channel.adjacency,
        slots=channel.slots,
        rounds=rounds,
        token_epsilon=token,
        prompt_epsilon=prompt,
        record_epsilon=prompt,
        charge=channel.prompt_epsilon,
        record_limit=record_epsilon,
        delta=delta,
        record_epsilon_at_delta=min(prompt, composed),
    )


def epsilon_at_delta(channel: Channel, *, delta: float) -> float:
    """Return an upper bound on a prompt's epsilon at `delta` by composition.

    Parameters
    ----------
    channel : Channel
        With finite epsilon.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        Nats; may exceed the pure epsilon by the rounding of losses.
    """
    if channel.name in ("adaptive", "selection"):
        return channel.prompt_epsilon
    pair = _rank_pair(channel) if isinstance(channel, RankChannel) else None
    if pair is None:
        # Randomised response at the same epsilon dominates every mechanism.
        one_token = pld.from_privacy_parameters(
            DifferentialPrivacyParameters(channel.token_epsilon, 0.0),
            value_discretization_interval=STEPS_PER_TOKEN,
        )
    else:
        lower, upper = pair
        one_token = pld.from_two_probability_mass_functions(
            log_probability_mass_function_lower=lower,
            log_probability_mass_function_upper=upper,
            value_discretization_interval=STEPS_PER_TOKEN,
        )
    prompt = one_token.self_compose(channel.slots)
    return float(prompt.get_epsilon_for_delta(delta))


def _rank_pair(
    channel: RankChannel,
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return log probabilities of two inputs whose favoured outputs are disjoint.

    No other pair of rows with these weights is easier to tell apart, for any order of
    hockey-stick divergence. None where the vocabulary is too small to hold such a pair.
    """
    weights = channel.rank_weights.tolist()
    lowest, total = weights[-1], sum(weights)
    favoured = [weight for weight in weights if weight > lowest]
    rest = channel.size - 2 * len(favoured)
    if rest < 0:
        return None
    low = math.log(Fraction(lowest, total))
    lower, upper = {}, {}
    for rank, weight in enumerate(favoured):
        high = math.log(Fraction(weight, total))
        lower[f"mine-{rank}"], upper[f"mine-{rank}"] = low, high
        lower[f"other-{rank}"], upper[f"other-{rank}"] = high, low
    if rest:
        lower["rest"] = upper["rest"] = math.log(Fraction(rest * lowest, total))
    return lower, upper


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"`{name}` must be >= 1, found {value}; pass a positive one.")


def _shown(epsilon: float) -> str:
    """Return an epsilon with four decimals, rounded up."""
    if math.isinf(epsilon):
        return "inf"
    return f"{math.ceil(Fraction(epsilon) * 10**4) / 10**4:.4f}"

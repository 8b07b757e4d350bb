"""What a plan costs before anything is drawn, with units and neighbouring relation.

The pure epsilon is exact. The one at delta is the smallest of the bounds that hold for
budgets fixed in advance: the privacy loss distribution of a pair of laws that dominates
every pair of inputs, the Renyi divergences of all pairs, and the pure epsilon.
"""

import math
from dataclasses import dataclass

from fedcot.errors import ConfigError
from fedcot.privacy.channels import Channel
from fedcot.privacy.claims import shown_nats
from fedcot.privacy.composition import compose_record as compose_record
from fedcot.privacy.composition import epsilon_at_delta as epsilon_at_delta
from fedcot.privacy.composition import require_delta
from fedcot.privacy.composition import training_epsilon as training_epsilon
from fedcot.privacy.loss_distributions import DpTraining as DpTraining
from fedcot.privacy.nats import (
    cost_in_nano_nats,
    limit_in_nano_nats,
    nats,
    whole_nano_nats,
)
from fedcot.privacy.sampler import SEEDED_GUARANTEE

NEIGHBORING_RELATION = "REPLACE_SPECIAL"
UNIT = (
    "nats, pure epsilon of one token / one prompt / one record over all rounds; the "
    "vocabulary, the number of slots and the number of records are public"
)
TRAINING_ADJACENCY = (
    "zero-out: the prompt and the training examples of one record replaced by padding "
    "and no gradient; for DP-SGD replacement by another record is not covered"
)


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
    training_epsilon : float
        Nats at `delta`; DP-SGD of one record over all rounds, 0 where there is none.
    trained_record_epsilon : float
        Nats at `delta`; prompt and DP-SGD of one record together, under
        `TRAINING_ADJACENCY`.
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
    training_epsilon: float = 0.0
    trained_record_epsilon: float = math.inf

    @property
    def prompts_allowed(self) -> float:
        """How many different prompts of one record the limit allows; may be inf."""
        return prompts_within(self.record_limit, self.charge)

    @property
    def is_within_limit(self) -> bool:
        """Whether the ledger will grant a record's prompt."""
        return self.charge <= self.record_limit

    def lines(self) -> list[str]:
        """Return the plan as lines to print, each epsilon with its unit."""
        verdict = "within" if self.is_within_limit else "OVER: every release is refused"
        allowed = f"{self.prompts_allowed:.0f} different prompts"
        over_rounds = f"over {self.rounds} rounds (perturbed once, then re-sent)"
        at_delta = f"one record at delta {self.delta:g}"
        composed = f"{shown_nats(self.record_epsilon_at_delta)} nats, {at_delta}"
        shown = shown_nats
        lines = [
            f"mechanism       {self.mechanism} ({self.guarantee})",
            f"token epsilon   {shown(self.token_epsilon)} nats, one token",
            f"prompt epsilon  {shown(self.prompt_epsilon)} nats, {self.slots} slots",
            f"record epsilon  {shown(self.record_epsilon)} nats, {over_rounds}",
            f"                {composed}",
            f"record limit    {shown(self.record_limit)} nats, {verdict} ({allowed})",
            f"adjacency       {self.neighboring_relation}, {self.adjacency}",
        ]
        if self.training_epsilon:
            alone = f"{shown(self.training_epsilon)} nats, {at_delta}"
            both = f"{shown(self.trained_record_epsilon)} nats with its prompt"
            lines += [
                f"DP-SGD          {alone}, over {self.rounds} rounds",
                f"                {both}, {at_delta}",
                f"                {self.neighboring_relation}, {TRAINING_ADJACENCY}",
            ]
        return lines


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


def prompts_within(record_limit: float, charge: float) -> float:
    """Return how many different prompts of one record a limit allows.

    Parameters
    ----------
    record_limit, charge : float
        Nats for the record, nats for one prompt; either may be infinite.

    Returns
    -------
    float
        A whole number, or infinite without a limit.
    """
    limit, cost = limit_in_nano_nats(record_limit), whole_nano_nats(charge)
    if limit is None:
        return math.inf
    return 0.0 if cost is None else float(limit // max(1, cost))


def plan(
    channel: Channel,
    *,
    record_epsilon: float,
    rounds: int,
    delta: float,
    is_private: bool = True,
    training: DpTraining | None = None,
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
    training : DpTraining, optional
        DP-SGD on the same records.

    Raises
    ------
    ConfigError
        If an argument breaks these rules.
    """
    _require_positive("num-server-rounds", rounds)
    require_delta(delta)
    if not record_epsilon > 0:
        raise ConfigError(
            f"`record-epsilon` must be > 0, found {record_epsilon}; pass for example "
            "`-c record-epsilon=250.0`."
        )
    prompt = channel.prompt_epsilon if is_private else math.inf
    composed = (
        math.inf if math.isinf(prompt) else epsilon_at_delta(channel, delta=delta)
    )
    alone, both = 0.0, math.inf
    if training is not None:
        found = compose_record(channel, dp=training, delta=delta)
        alone = found.training_epsilon if is_private else math.inf
        both = found.record_epsilon if is_private else math.inf
    return PrivacyPlan(
        mechanism=channel.name,
        guarantee=channel.guarantee if is_private else SEEDED_GUARANTEE,
        unit=UNIT,
        neighboring_relation=NEIGHBORING_RELATION,
        adjacency=channel.adjacency,
        slots=channel.slots,
        rounds=rounds,
        token_epsilon=channel.token_epsilon if is_private else math.inf,
        prompt_epsilon=prompt,
        record_epsilon=prompt,
        charge=channel.prompt_epsilon,
        record_limit=record_epsilon,
        delta=delta,
        record_epsilon_at_delta=min(prompt, composed),
        training_epsilon=alone,
        trained_record_epsilon=both,
    )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"`{name}` must be >= 1, found {value}; pass a positive one.")

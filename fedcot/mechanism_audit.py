"""Every audit of one configured mechanism, with a verdict.

The integer weights, the draws and the attacks are those of the configured channel. The
path from text to release is enumerated on a vocabulary of a few words and slots.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.mechanism import configured_channel
from fedcot.privacy.attacks import AttackReport, attack_token
from fedcot.privacy.audit import (
    VIOLATED,
    ExactReport,
    enumerate_channel,
    is_token_channel,
)
from fedcot.privacy.black_box import (
    LowerBoundReport,
    audit_draws,
    farthest_tokens,
    sampler_p_value,
)
from fedcot.privacy.channels import Channel, build_channel
from fedcot.privacy.choices import EnumerationError
from fedcot.privacy.claims import shown_nats
from fedcot.privacy.embedding import world_similarity
from fedcot.privacy.end_to_end import (
    EndToEndReport,
    audit_end_to_end,
    reduced_vocabulary,
)
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.selection import Bank
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary, world_vocabulary

# A correct sampler fails this test once in a thousand million audits.
SMALLEST_P_VALUE = 1e-9
# A whole prompt costs so many times the work of a token.
DRAWS_PER_PROMPT = 100
FEWEST_PROMPTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MechanismAudit:
    """What was found out about a mechanism.

    Attributes
    ----------
    mechanism, guarantee, adjacency : str
        What is claimed, in words.
    token_epsilon, prompt_epsilon : float
        Nats claimed for one token and one prompt.
    exact : ExactReport or None
        None for a mechanism that treats prompts as a whole.
    end_to_end : EndToEndReport or None
        Of the same mechanism on a few words and slots.
    not_enumerated : str
        Why `end_to_end` is None, else empty.
    drawn : LowerBoundReport
        What draws prove.
    sampler_p_value : float or None
        Of draws against the integer weights; None without token weights.
    attack : AttackReport or None
        None without token weights.
    """

    mechanism: str
    guarantee: str
    adjacency: str
    token_epsilon: float
    prompt_epsilon: float
    exact: ExactReport | None
    end_to_end: EndToEndReport | None
    not_enumerated: str
    drawn: LowerBoundReport
    sampler_p_value: float | None
    attack: AttackReport | None

    @property
    def is_violated(self) -> bool:
        """Whether anything contradicts the claim."""
        verdicts = [
            report.verdict
            for report in (self.exact, self.end_to_end, self.drawn)
            if report is not None
        ]
        is_off = self.sampler_p_value is not None
        is_off = is_off and (self.sampler_p_value or 0.0) < SMALLEST_P_VALUE
        attacked = self.attack is not None and self.attack.is_violated
        return VIOLATED in verdicts or is_off or attacked

    def lines(self) -> list[str]:
        """Return the findings as lines to print, each with its unit."""
        lines = [
            f"mechanism   {self.mechanism} ({self.guarantee})",
            f"claims      {shown_nats(self.token_epsilon)} nats, one token",
            f"            {shown_nats(self.prompt_epsilon)} nats, one prompt",
        ]
        if self.exact is not None:
            lines.append(
                f"weights     {shown_nats(self.exact.epsilon)} {self.exact.unit}, "
                f"exact: {self.exact.verdict}"
            )
        lines += self._path_lines()
        lines.append(
            f"draws       at least {self.drawn.lower_bound:.4f} {self.drawn.unit}, "
            f"claimed {shown_nats(self.drawn.claimed)}, confidence "
            f"{self.drawn.confidence:g}, {self.drawn.draws} draws of each of two "
            f"inputs: {self.drawn.verdict}"
        )
        if self.sampler_p_value is not None:
            lines.append(f"sampler     p-value {self.sampler_p_value:.3g}, chi-square")
        if self.attack is not None:
            lines += _attack_lines(self.attack)
        verdict = "VIOLATED" if self.is_violated else "not violated"
        return [*lines, f"adjacency   {self.adjacency}", f"claims      {verdict}"]

    def _path_lines(self) -> list[str]:
        report = self.end_to_end
        if report is None:
            return [f"path        not enumerated: {self.not_enumerated}"]
        size = f"{report.words} words, {report.slots} slots, {report.texts} texts"
        return [
            f"path        {size}, every draw enumerated: {report.verdict}",
            *(
                f"            {shown_nats(check.epsilon)} nats, {check.neighbours}, "
                f"claimed {shown_nats(check.claimed)}"
                for check in report.checks
            ),
            *(f"            VIOLATED {found}" for found in report.violations),
        ]


def audit_mechanism(
    config: RunConfig, folder: Path, *, draws: int, source: RandomSource
) -> MechanismAudit:
    """Audit the mechanism of a configuration in every way.

    Parameters
    ----------
    config : RunConfig
        Names mechanism and epsilons.
    folder : Path
        Empty; the ledger of the audit is made in it.
    draws : int
        Under each of two inputs.
    source : RandomSource
        Randomness of the draws and of the check points.

    Raises
    ------
    ConfigError
        If the mechanism cannot be built.
    """
    channel = configured_channel(config)
    exact, p_value, attack = None, None, None
    if is_token_channel(channel):
        first, second = farthest_tokens(channel)
        exact = enumerate_channel(channel)
        p_value = sampler_p_value(channel, first, draws=draws, source=source)
        attack = attack_token(channel, similarity=world_similarity(world_vocabulary()))
        drawn = audit_draws(
            channel,
            np.array(second),
            np.array(first),
            claimed=channel.token_epsilon,
            unit="nats, one token replaced",
            draws=draws,
            source=source,
        )
    else:
        drawn = _audit_prompts(channel, draws, source)
    path, reason = _audit_path(config, folder, source)
    return MechanismAudit(
        mechanism=channel.name,
        guarantee=channel.guarantee,
        adjacency=channel.adjacency,
        token_epsilon=channel.token_epsilon,
        prompt_epsilon=channel.prompt_epsilon,
        exact=exact,
        end_to_end=path,
        not_enumerated=reason,
        drawn=drawn,
        sampler_p_value=p_value,
        attack=attack,
    )


def reduced_channel(config: RunConfig, vocabulary: Vocabulary) -> Channel:
    """Return the configured mechanism on a tiny vocabulary, with tiny artefacts.

    The public model and bank are made of the prompts whose token ids never fall, so
    that what may follow differs from word to word. A total for the prompt is scaled
    to the slots, except where the mechanism spends it in one draw.

    Raises
    ------
    ConfigError
        If the mechanism cannot be built so small.
    """
    tokens = range(len(vocabulary.words))
    prompts = np.array(
        list(combinations_with_replacement(tokens, vocabulary.length)), dtype=np.int64
    )
    whole = config.prompt_epsilon
    if config.mechanism != "selection":
        whole *= vocabulary.length / world_vocabulary().length
    return build_channel(
        config.mechanism,
        vocabulary,
        config.token_epsilon,
        prompt_epsilon=whole,
        public_model=BigramModel(vocabulary, prompts),
        bank=Bank(vocabulary, prompts),
    )


def _audit_path(
    config: RunConfig, folder: Path, source: RandomSource
) -> tuple[EndToEndReport | None, str]:
    """Enumerate the path; return why not where that cannot be done."""
    vocabulary = reduced_vocabulary(world_vocabulary())
    try:
        channel = reduced_channel(config, vocabulary)
        return audit_end_to_end(vocabulary, channel, folder, source=source), ""
    except (ConfigError, EnumerationError) as error:
        return None, str(error)


def _audit_prompts(
    channel: Channel, draws: int, source: RandomSource
) -> LowerBoundReport:
    """Tell a public prompt from an empty one by the words of it that come out."""
    from fedcot.data.banks import load_bank

    vocabulary = world_vocabulary()
    prompt = load_bank(vocabulary, "world", FEWEST_PROMPTS).prompts[0]
    held = prompt[prompt != PAD_ID]
    return audit_draws(
        channel,
        np.full(channel.slots, PAD_ID, dtype=np.int64),
        prompt,
        claimed=channel.prompt_epsilon,
        unit="nats, one prompt zeroed out",
        draws=max(FEWEST_PROMPTS, math.ceil(draws / DRAWS_PER_PROMPT)),
        source=source,
        observe=lambda released: np.isin(released, held).sum(axis=1),
    )


def _attack_lines(attack: AttackReport) -> list[str]:
    lines = [
        f"attack      {attack.bayes_success:.4f} {attack.unit}, the best attack",
        f"            {attack.bayes_bound:.4f} allowed by the epsilon",
        f"            {attack.prior_success:.4f} without the release",
        f"            {attack.min_capacity:.4f} nats, min-capacity of one token",
    ]
    if attack.inversion_success is not None:
        lines.append(
            f"            {attack.inversion_success:.4f} by the word nearest to the "
            "released one"
        )
    return lines

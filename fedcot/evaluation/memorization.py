"""What a student keeps of the texts that it was trained on.

Two audits. `audit` ranks canaries that were inserted on purpose. `audit_members` asks
of every member's own texts whether the student tells them from held-out ones, and
whether it writes them down when it reads their prompts. Neither proves that nothing
leaks: they find what these attacks find.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import CanaryTrial
from fedcot.evaluation.copying import VerbatimRate, plain, regurgitation_rate
from fedcot.evaluation.exposure import ExposureReport, rank_of, summarise_ranks
from fedcot.evaluation.membership import (
    MembershipResult,
    gains,
    membership,
    min_k,
    min_k_plus_plus,
)
from fedcot.evaluation.spans import (
    ScoreFunction,
    TokenScores,
    token_scores,
    whole_target,
)
from fedcot.models.generation import generate_greedy
from fedcot.student.base import Adapter, Base, TrainingSettings, adapted

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Pair = tuple[str, str]
"""A prompt and its target."""


@dataclass(frozen=True)
class MemorizationReport:
    """What the canaries of one model say.

    Attributes
    ----------
    ranks : tuple of int
        Of each canary among its references, 0 where it was memorised.
    exposure : ExposureReport
    """

    ranks: tuple[int, ...]
    exposure: ExposureReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: None for what is not a number, no text."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def audit(
    score: ScoreFunction,
    trials: Sequence[CanaryTrial],
    *,
    drawn: Sequence[bool] | None = None,
) -> MemorizationReport:
    """Rank the canaries of one model among their references.

    Parameters
    ----------
    score : callable
        Gives the mean log-probability of each span in nats per token; see
        `fedcot.evaluation.spans.model_scores`.
    trials : sequence of CanaryTrial
        Of one size, at least one; see `fedcot.evaluation.canaries.draw_trials`.
    drawn : sequence of bool, optional
        Whether each canary reached what the student saw; where members sample from
        their data, one may never have.

    Raises
    ------
    ConfigError
        There are no trials, or they are of several sizes.
    ValueError
        The score function gives another number of scores, or one that is no number.
    """
    sizes = {trial.size for trial in trials}
    if len(sizes) != 1:
        raise ConfigError(
            "`trials` must hold at least one trial and be of one size, found sizes "
            f"{sorted(sizes)}; draw them together."
        )
    ranks = []
    for trial in trials:
        scores = list(score(trial.spans))
        if len(scores) != trial.size:
            raise ValueError(f"{trial.size} scores are needed, found {len(scores)}.")
        ranks.append(rank_of(scores[0], scores[1:]))
    found = summarise_ranks(ranks, sizes.pop(), drawn=drawn)
    return MemorizationReport(tuple(ranks), found)


@dataclass(frozen=True)
class MemberAudit:
    """What a student gives away about the texts of one member or community.

    Attributes
    ----------
    gain, loss, min_k, min_k_plus_plus : MembershipResult
        Membership by the gain over the base, by the mean log-probability, by Min-K%
        and by Min-K%++.
    regurgitated : VerbatimRate
        Share of the member's prompts to which the greedy completion is the member's
        target.
    controls_regurgitated : VerbatimRate
        The same of held-out prompts: what a student knows without having seen it.
    regurgitation_p_value : float
        One-sided, Fisher's exact test of more normalised copies than among controls.

    Notes
    -----
    The p-values are of single tests: with many members, some are small by chance.
    """

    gain: MembershipResult
    loss: MembershipResult
    min_k: MembershipResult
    min_k_plus_plus: MembershipResult
    regurgitated: VerbatimRate
    controls_regurgitated: VerbatimRate
    regurgitation_p_value: float


@dataclass(frozen=True)
class MembersReport:
    """The audit of every member, by name."""

    members: dict[str, MemberAudit]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: None for what is not a number, no text."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


@dataclass(frozen=True, slots=True)
class _Read:
    """What was measured on some texts: scores before and after, and completions."""

    before: list[TokenScores]
    after: list[TokenScores]
    copied: VerbatimRate


def audit_members(
    base: Base,
    adapter: Adapter | None,
    members: Mapping[str, Sequence[Pair]],
    controls: Mapping[str, Sequence[Pair]] | Sequence[Pair],
    *,
    settings: TrainingSettings,
    batch_size: int = 32,
    max_new_tokens: int = 128,
) -> MembersReport:
    """Audit a student with respect to the texts of every member.

    Parameters
    ----------
    base : Base
    adapter : mapping of str to Tensor or None
        The student; None audits the base itself, which saw none of it.
    members : mapping of str to sequence of (prompt, target)
        Name of a member or community, and what it was asked to contribute.
    controls : mapping of str to sequence of (prompt, target), or one sequence
        Texts of the same distribution that nobody trained on, of each member or of all
        together.
    settings : TrainingSettings
        Of the adapter.
    batch_size : int
        Texts for each forward pass.
    max_new_tokens : int
        Length limit of a completion; a longer target is never found verbatim.

    Raises
    ------
    ConfigError
        A member has no texts or no controls, or a control is a member's text.
    """
    shared = None if isinstance(controls, Mapping) else list(controls)
    held_out = {
        name: list(controls.get(name, ())) if isinstance(controls, Mapping) else shared
        for name in members
    }
    _check(members, held_out)

    def read(pairs: Sequence[Pair]) -> _Read:
        return _read(
            base,
            adapter,
            pairs,
            settings=settings,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )

    common = read(shared) if shared is not None and members else None
    found = {}
    for name, pairs in members.items():
        others = common or read(held_out[name] or ())
        found[name] = _compare(read(pairs), others)
    return MembersReport(found)


def _check(
    members: Mapping[str, Sequence[Pair]],
    controls: Mapping[str, Sequence[Pair] | None],
) -> None:
    """Check that there is something to compare, and that controls are held out."""
    known = {
        (plain(prompt), plain(target))
        for pairs in members.values()
        for prompt, target in pairs
    }
    for name, pairs in members.items():
        others = controls[name] or ()
        if not pairs or not others:
            raise ConfigError(
                f"`members` and `controls` must have texts for each member, found "
                f"{len(pairs)} and {len(others)} for {name!r}; leave it out, or hold "
                "some of its texts out of training."
            )
        seen = sum((plain(prompt), plain(target)) in known for prompt, target in others)
        if seen:
            raise ConfigError(
                f"`controls` must be held out of training, found {seen} of "
                f"{len(others)} of {name!r} among the members' texts; take them away."
            )


@contextmanager
def _student(
    base: Base, adapter: Adapter | None, settings: TrainingSettings
) -> Iterator[PreTrainedModel | PeftModel]:
    if adapter is None:
        yield base.model
        return
    with adapted(base, settings, seed=0, adapter=adapter) as model:
        model.eval()
        yield model


def _read(
    base: Base,
    adapter: Adapter | None,
    pairs: Sequence[Pair],
    *,
    settings: TrainingSettings,
    batch_size: int,
    max_new_tokens: int,
) -> _Read:
    """Score texts with the base and the student, and let the student go on."""
    spans = [whole_target(prompt, target) for prompt, target in pairs]

    def scores(model: PreTrainedModel | PeftModel) -> list[TokenScores]:
        return token_scores(model, base, spans, batch_size=batch_size, may_be_cut=True)

    before = scores(base.model)
    with _student(base, adapter, settings) as model:
        after = before if adapter is None else scores(model)
        completions = generate_greedy(
            model,
            base,
            [prompt for prompt, _ in pairs],
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )
    targets = [target for _, target in pairs]
    return _Read(before, after, regurgitation_rate(completions, targets))


def _compare(members: _Read, controls: _Read) -> MemberAudit:
    both = (members.after, controls.after)
    copies = [read.copied.normalised for read in (members, controls)]
    table = [[rate.hits, rate.n - rate.hits] for rate in copies]
    losses, lowest, scaled = (
        [np.array([measure(tokens) for tokens in read]) for read in both]
        for measure in (
            lambda tokens: tokens.mean,
            lambda tokens: min_k(tokens.log_probabilities),
            min_k_plus_plus,
        )
    )
    return MemberAudit(
        gain=membership(
            gains(members.after, members.before), gains(controls.after, controls.before)
        ),
        loss=membership(*losses),
        min_k=membership(*lowest),
        min_k_plus_plus=membership(*scaled),
        regurgitated=members.copied,
        controls_regurgitated=controls.copied,
        regurgitation_p_value=float(
            stats.fisher_exact(table, alternative="greater").pvalue
        ),
    )


def _plain(value: Any) -> Any:
    """Return a value with None for every number that is none; JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

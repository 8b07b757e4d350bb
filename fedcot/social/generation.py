"""Synthetic demonstrations that a teacher's model writes after private ones.

Paper: https://arxiv.org/abs/2312.11441, section 3 (live models). The values of n_gen, k
and the temperature and the rules of discarding are not stated there; here they are
parameters and counted reasons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from fedcot.community.messages import LONGEST_TEXT
from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain
from fedcot.seeding import derive_seed
from fedcot.social.demonstrations import (
    Demonstration,
    DemonstrationFormat,
    draw_indices,
    few_shot_prompt,
)
from fedcot.social.inspection import REFUSALS, Considered, Gate, Verdict

if TYPE_CHECKING:
    from fedcot.social.client_model import ClientModel, Sampled

Check = Callable[[Demonstration], bool]
Ranking = Literal["perplexity", "order"]
# Why a sampled text is no candidate, in the order in which they are looked for.
DISCARDED: Final = ("malformed", "invalid", *REFUSALS, "repeated", "outranked")
# Of a larger number the exponential is infinite.
_MOST_NATS: Final = 700.0
# A sum of logarithms in single precision may come out above 0 by so much.
_ROUNDING: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generated demonstration that passed the gate and was kept.

    Attributes
    ----------
    demonstration : Demonstration
    perplexity : float or None
        Of the sampled text behind its prompt, >= 1; None if the model cannot tell.
    verdict : Verdict
        Of the gate.
    is_valid : bool or None
        What the check says; None without one.
    prompt : int
        Which prompt it comes from, 0-based.
    """

    demonstration: Demonstration
    perplexity: float | None
    verdict: Verdict
    is_valid: bool | None
    prompt: int


@dataclass(frozen=True, slots=True)
class Generated:
    """What a teacher's model wrote, and what became of it.

    Attributes
    ----------
    candidates : tuple of Candidate
        By ascending perplexity, ties in the order of sampling.
    counts : mapping of str to int
        Texts that are no candidates, for each reason in `DISCARDED`.
    num_sampled : int
        Candidates and discarded together.
    drawn : tuple of tuple of int
        For each prompt, the indices of the client's demonstrations in it.
    ranking : str
        ``order``: the model gives no log-probabilities, so that the first ones that
        were sampled were kept, and the candidates stand in that order.
    num_checked, num_wrong : int
        Readable texts that the check judged, and those that it found wrong, whether or
        not they were discarded for it.
    considered : tuple of Considered
        For the `MessageLog`: every text that the gate judged, in the order of sampling.
    """

    candidates: tuple[Candidate, ...]
    counts: Mapping[str, int]
    num_sampled: int
    drawn: tuple[tuple[int, ...], ...]
    ranking: Ranking
    num_checked: int
    num_wrong: int
    considered: tuple[Considered, ...] = field(repr=False)

    @property
    def drawn_indices(self) -> frozenset[int]:
        """Which of the client's demonstrations stood in a prompt at all."""
        return frozenset(index for prompt in self.drawn for index in prompt)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A sampled text that could be read."""

    order: int
    prompt: int
    demonstration: Demonstration
    perplexity: float | None
    is_valid: bool | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """How a teacher's model is asked for demonstrations, and how many stay.

    Attributes
    ----------
    per_prompt : int
        Demonstrations in a prompt: n_gen of the paper, >= 1.
    keep : int
        Samples of a prompt that stay: k of the paper, >= 1.
    num_prompts : int
        >= 1. The paper states no number of prompts, but at most n_gen * k candidates;
        they are reached with n_gen prompts, and never exceeded with more.
    samples_per_prompt : int
        >= `keep`.
    temperature : float
        > 0; 0 (greedy) with one sample of each prompt only.
    max_new_tokens : int
        Of a sample, >= 1.
    drops_wrong : bool
        Whether what fails a check is discarded; else it is only counted.

    Raises
    ------
    ConfigError
        A number is out of its range.
    """

    per_prompt: int
    keep: int
    num_prompts: int
    samples_per_prompt: int
    temperature: float
    max_new_tokens: int
    drops_wrong: bool = True

    def __post_init__(self) -> None:
        """Check every number."""
        for name in ("per_prompt", "keep", "num_prompts", "max_new_tokens"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(
                    f"`{name}` must be at least 1, found {value}; raise it."
                )
        if self.samples_per_prompt < self.keep:
            raise ConfigError(
                f"`samples_per_prompt` must be at least `keep` = {self.keep}, found "
                f"{self.samples_per_prompt}; raise it, or keep fewer."
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(
                f"`temperature` must be finite and >= 0, found {self.temperature}; 1 "
                "samples from the model as it is."
            )
        if self.temperature == 0 and self.samples_per_prompt > 1:
            raise ConfigError(
                "`temperature` must be > 0 where a prompt has several samples, found "
                f"0, and {self.samples_per_prompt} samples; raise it, or sample once."
            )


def generate(
    model: ClientModel,
    form: DemonstrationFormat,
    demonstrations: Sequence[Demonstration],
    settings: GenerationSettings,
    *,
    gate: Gate,
    seed: int,
    check: Check | None = None,
) -> Generated:
    """Return demonstrations that a model wrote after few-shot prompts of private ones.

    1. Each prompt takes some demonstrations at random, without replacement and without
       any instruction. 2. The model samples continuations. 3. Those that are malformed,
       wrong, copied or said before go. 4. Of each prompt those of the lowest perplexity
       stay, and of all prompts at most ``per_prompt * keep``.

    Parameters
    ----------
    model : ClientModel
        The client's own.
    form : DemonstrationFormat
    demonstrations : sequence of Demonstration
        The client's own; what it holds out for votes is not among them.
    settings : GenerationSettings
    gate : Gate
        Over all private texts of the client; it judges questions as a whole, and steps
        by their runs of words.
    seed : int
        Public chance: of the draws and of the sampling.
    check : callable, optional
        Whether a demonstration is right by public rules, for example in its steps.

    Raises
    ------
    ConfigError
        The client has too few demonstrations, or the format cannot hold one.
    """
    if settings.per_prompt > len(demonstrations):
        raise ConfigError(
            f"`per_prompt` must be at most the client's {len(demonstrations)} "
            f"demonstrations, found {settings.per_prompt}; lower it, or give it more."
        )
    drawn = tuple(
        tuple(draw_indices(len(demonstrations), settings.per_prompt, seed, prompt))
        for prompt in range(settings.num_prompts)
    )
    prompts = [
        few_shot_prompt(form, [demonstrations[index] for index in indices])
        for indices in drawn
    ]
    places = list(
        product(range(settings.num_prompts), range(settings.samples_per_prompt))
    )
    sampled = model.sample(
        [prompts[prompt] for prompt, _ in places],
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        stop=form.stop,
        seeds=[derive_seed(seed, "generation", *place) for place in places],
    )
    counts = dict.fromkeys(DISCARDED, 0)
    of_prompt = [prompt for prompt, _ in places]
    samples = _readable(form, gate, of_prompt, sampled, check, counts)
    kept = _chosen(samples, settings, counts)
    left = {sample.order for sample in kept}
    return Generated(
        candidates=tuple(_candidate(sample) for sample in kept),
        counts=MappingProxyType(counts),
        num_sampled=len(sampled),
        drawn=drawn,
        ranking="order" if any(s.perplexity is None for s in samples) else "perplexity",
        num_checked=sum(sample.is_valid is not None for sample in samples),
        num_wrong=sum(sample.is_valid is False for sample in samples),
        considered=tuple(
            Considered(form.write(s.demonstration), s.verdict, s.order in left)
            for s in samples
        ),
    )


def perplexity(mean_log_probability: float) -> float:
    """Return ``exp(-mean_log_probability)`` of a mean in nats per token.

    Infinite where a token cannot come, or nearly so.

    Raises
    ------
    ValueError
        It is not a number, or above 0 by more than rounding.
    """
    if not mean_log_probability <= _ROUNDING:
        raise ValueError(
            "`mean_log_probability` must be at most 0 nats, found "
            f"{mean_log_probability}."
        )
    if -mean_log_probability > _MOST_NATS:
        return math.inf
    return max(1.0, math.exp(-mean_log_probability))


def _readable(
    form: DemonstrationFormat,
    gate: Gate,
    prompts: Sequence[int],
    sampled: Sequence[Sampled],
    check: Check | None,
    counts: dict[str, int],
) -> list[_Sample]:
    """Return what could be read, judged, and count what could not."""
    found = []
    for order, (prompt, sample) in enumerate(zip(prompts, sampled, strict=True)):
        read = form.read(form.opening + sample.text)
        if read is None or _is_too_long(read):
            counts["malformed"] += 1
            continue
        told = sample.mean_log_probability
        found.append(
            _Sample(
                order=order,
                prompt=prompt,
                demonstration=read,
                perplexity=None if told is None else perplexity(told),
                is_valid=None if check is None else check(read),
                verdict=gate.judge(read.question, beside=read.reasoning),
            )
        )
    if any(sample.perplexity is None for sample in found):
        # Those of some texts alone would rank them against nothing.
        return [replace(sample, perplexity=None) for sample in found]
    return found


def _is_too_long(demonstration: Demonstration) -> bool:
    """Whether no message could hold it."""
    texts = (demonstration.question, demonstration.answer, demonstration.reasoning)
    return max(map(len, texts)) > LONGEST_TEXT


def _chosen(
    samples: Sequence[_Sample], settings: GenerationSettings, counts: dict[str, int]
) -> list[_Sample]:
    """Return what becomes a candidate, best first, and count what does not."""
    passed = [one for one in samples if _passes(one, settings.drops_wrong, counts)]
    kept = _kept(passed, settings.num_prompts, settings.keep, counts)
    kept = _ranked(kept)[: settings.per_prompt * settings.keep]
    counts["outranked"] = len(passed) - counts["repeated"] - len(kept)
    return kept


def _passes(sample: _Sample, drops_wrong: bool, counts: dict[str, int]) -> bool:
    reason = sample.verdict.reason
    if drops_wrong and sample.is_valid is False:
        counts["invalid"] += 1
    elif reason:
        counts[reason] += 1
    else:
        return True
    return False


def _kept(
    passed: Sequence[_Sample], num_prompts: int, keep: int, counts: dict[str, int]
) -> list[_Sample]:
    """Return the best of each prompt, and count what repeats a better or earlier one.

    A question that an earlier prompt kept, or that stands better in the same prompt, is
    said before; one that an earlier prompt did not keep may come again.
    """
    kept: list[_Sample] = []
    known: set[str] = set()
    for prompt in range(num_prompts):
        said: set[str] = set()
        best: list[_Sample] = []
        for sample in _ranked([one for one in passed if one.prompt == prompt]):
            question = plain(sample.demonstration.question)
            if question in known or question in said:
                counts["repeated"] += 1
                continue
            said.add(question)
            best.append(sample)
        kept += best[:keep]
        known |= {plain(sample.demonstration.question) for sample in best[:keep]}
    return kept


def _ranked(samples: Sequence[_Sample]) -> list[_Sample]:
    """Return samples by ascending perplexity, or as they are if there is none."""
    return sorted(samples, key=lambda one: (one.perplexity or 0.0, one.order))


def _candidate(sample: _Sample) -> Candidate:
    return Candidate(
        demonstration=sample.demonstration,
        perplexity=sample.perplexity,
        verdict=sample.verdict,
        is_valid=sample.is_valid,
        prompt=sample.prompt,
    )

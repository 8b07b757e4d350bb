"""The exact audit of the path that runs in production, on a tiny vocabulary.

From a text over the public vocabulary, the ledger and its store to what is sent: every
draw is enumerated, for every short text, so that the law of the release is known and
each claim is checked for all pairs of texts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.audit import HOLDS, NO_CLAIM, VIOLATED
from fedcot.privacy.channels import Channel
from fedcot.privacy.choices import EXHAUSTIVE, ChoiceTree, Law, Outcome
from fedcot.privacy.exact import float_up, logarithm_up
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.vocabulary import PAD_ID, UNKNOWN_ID, Vocabulary

# ``path(texts, source)`` runs the path under test once for each text, equal ones too.
TextPath = Callable[[Sequence[str], RandomSource], Sequence[Outcome]]


@dataclass(frozen=True, kw_only=True)
class NeighbourCheck:
    """The largest log ratio among pairs of texts of one kind.

    Attributes
    ----------
    neighbours : str
        Which pairs, in words.
    pairs : int
        How many there were.
    epsilon : float
        Nats by enumeration, rounded up; the largest of all pairs.
    claimed : float
        Nats that the channel claims for such a pair; infinite where it claims nothing.
    """

    neighbours: str
    pairs: int
    epsilon: float
    claimed: float


@dataclass(frozen=True, kw_only=True)
class EndToEndReport:
    """What the enumerated path from text to release gives.

    Attributes
    ----------
    unit, adjacency : str
        What the epsilons are of, in words.
    texts, slots, words, outcomes : int
        How many texts were tried, the size of the reduced prompt and vocabulary, and
        the different outcomes of all texts together.
    checks : tuple of NeighbourCheck
        By kind of neighbours.
    verdict : str
        "holds", "violated" or "no finite claim".
    violations : tuple of str
        The first pair of public test texts that breaks each claim.
    """

    unit: str
    adjacency: str
    texts: int
    slots: int
    words: int
    outcomes: int
    checks: tuple[NeighbourCheck, ...]
    verdict: str
    violations: tuple[str, ...]


def reduced_vocabulary(
    vocabulary: Vocabulary, *, words: int = 2, numbers: int = 1, slots: int = 2
) -> Vocabulary:
    """Return the first words and numbers of a vocabulary with few slots.

    Raises
    ------
    ConfigError
        If fewer than one word is left.
    """
    number_ids = set(vocabulary.numbers.values())
    plain = [
        word
        for token, word in enumerate(vocabulary.words)
        if token not in number_ids | {PAD_ID, UNKNOWN_ID}
    ]
    kept = plain[:words] + [vocabulary.words[i] for i in sorted(number_ids)[:numbers]]
    if not kept:
        raise ConfigError(
            "`vocabulary` must hold a word to be audited, found none; pass another."
        )
    return Vocabulary.of(kept, slots)


def audit_texts(vocabulary: Vocabulary) -> list[str]:
    """Return public texts that reach every encoding and every way around it.

    Every sequence of words up to the public length, and so every padding; then texts
    that are too long, hold unknown words, or numbers out of range, or differ in what
    must not show.
    """
    known = [word for token, word in enumerate(vocabulary.words) if token > UNKNOWN_ID]
    unknown = [_outside(vocabulary, letter) for letter in "qx"]
    lengths = range(vocabulary.length + 1)
    texts = [
        " ".join(chosen)
        for length in lengths
        for chosen in product([*known, unknown[0]], repeat=length)
    ]
    first = known[0]
    full = " ".join([first] * vocabulary.length)
    return [
        *texts,
        f"{full} {known[-1]}",
        f"{full} {unknown[1]} {first}",
        unknown[1],
        f"{first} {unknown[1]}",
        "9" * 30,
        f"  {first.upper()}!! ",
    ]


@contextmanager
def production_path(
    vocabulary: Vocabulary, channel: Channel, folder: Path
) -> Iterator[TextPath]:
    """Yield the path that a client runs: encode, ledger, store, decode.

    Parameters
    ----------
    vocabulary : Vocabulary
        What texts are encoded with.
    channel : Channel
        The mechanism, for the same vocabulary.
    folder : Path
        Where the ledger of the audit is made.

    Yields
    ------
    callable
        ``path(texts, source)`` gives everything that leaves the ledger for each text,
        equal ones too: ids, text, channel and charge.
    """
    with Ledger(folder, record_epsilon=math.inf) as ledger:
        # A record is drawn once and then served from the store: each copy is another.
        made = 0

        def path(texts: Sequence[str], source: RandomSource) -> list[Outcome]:
            nonlocal made
            contents = [f"{made + place} {text}" for place, text in enumerate(texts)]
            made += len(texts)
            keys = ledger.record_keys(contents)
            prompts = {text: vocabulary.encode(text) for text in set(texts)}
            records = [
                (key, prompts[text]) for key, text in zip(keys, texts, strict=True)
            ]
            released = ledger.release(records, channel, source=source)
            return [
                (
                    one.ids,
                    vocabulary.decode(one.ids),
                    one.channel_hash,
                    one.prompt_epsilon,
                )
                for one in released
            ]

        yield path


def end_to_end_laws(
    path: TextPath,
    texts: Sequence[str],
    *,
    source: RandomSource,
    exhaustive: int = EXHAUSTIVE,
) -> dict[str, Law]:
    """Return the exact law of what a path sends for each text.

    Parameters
    ----------
    path : callable
        ``path(texts, source)``, see `production_path`.
    texts : sequence of str
        Public texts.
    source : RandomSource
        Chooses the points at which intervals of draws are checked.
    exhaustive : int
        Bounds up to this are tried draw by draw, see `ChoiceTree`.

    Raises
    ------
    EnumerationError
        If the path cannot be enumerated.
    """
    tree = ChoiceTree(source, exhaustive=exhaustive)
    return tree.laws(path, texts)


def check_end_to_end(
    laws: Mapping[str, Law], vocabulary: Vocabulary, channel: Channel
) -> EndToEndReport:
    """Compare the laws of all pairs of texts with what the channel claims for them.

    A pair whose encodings differ in k tokens may have log ratios of at most k token
    epsilons, and never more than the prompt epsilon; texts with equal encodings must
    not be told apart at all.

    Parameters
    ----------
    laws : mapping of str to Law
        From `end_to_end_laws`.
    vocabulary : Vocabulary
        States which texts are neighbours.
    channel : Channel
        States the claims.
    """
    encoded = {text: vocabulary.encode(text) for text in laws}
    kinds: dict[tuple[str, float], list[float]] = {}
    violations: dict[str, str] = {}
    for left, right in combinations(laws, 2):
        kind, claimed = _claim(channel, encoded[left], encoded[right])
        ratio = _log_ratio(laws[left], laws[right])
        kinds.setdefault((kind, claimed), []).append(ratio)
        if ratio > claimed:
            found = f"'{left}' and '{right}': {ratio:.6f} nats, claimed {claimed:.6f}"
            violations.setdefault(kind, f"{kind}, {found}")
    finite = all(math.isfinite(claimed) for _, claimed in kinds)
    return EndToEndReport(
        unit="nats, two texts as they go through the path that runs",
        adjacency=channel.adjacency,
        texts=len(laws),
        slots=vocabulary.length,
        words=len(vocabulary.words),
        outcomes=len(set().union(*laws.values())),
        checks=tuple(
            NeighbourCheck(
                neighbours=kind, pairs=len(found), epsilon=max(found), claimed=claimed
            )
            for (kind, claimed), found in sorted(kinds.items())
        ),
        verdict=VIOLATED if violations else HOLDS if finite else NO_CLAIM,
        violations=tuple(violations.values()),
    )


def audit_end_to_end(
    vocabulary: Vocabulary, channel: Channel, folder: Path, *, source: RandomSource
) -> EndToEndReport:
    """Enumerate the production path of a small channel and check all its claims.

    Parameters
    ----------
    vocabulary : Vocabulary
        Small: `reduced_vocabulary`.
    channel : Channel
        Built for this vocabulary.
    folder : Path
        Empty; the ledger of the audit is made in it.
    source : RandomSource
        Chooses the points at which intervals of draws are checked.

    Raises
    ------
    EnumerationError
        If the path cannot be enumerated.
    """
    with production_path(vocabulary, channel, folder) as path:
        laws = end_to_end_laws(path, audit_texts(vocabulary), source=source)
    return check_end_to_end(laws, vocabulary, channel)


def _claim(
    channel: Channel, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[str, float]:
    """Return the kind of neighbours that two encodings are, and the nats claimed."""
    changed = int((left != right).sum())
    if changed == 0:
        return "equal encodings", 0.0
    kind = f"{changed} of {channel.slots} tokens replaced"
    whole = channel.prompt_epsilon
    if not (left != PAD_ID).any() or not (right != PAD_ID).any():
        kind = f"prompt of {changed} tokens zeroed out"
        # A channel that claims less for a prompt that is removed says so.
        whole = float(getattr(channel, "removal_epsilon", whole))
    if math.isinf(channel.token_epsilon):
        return kind, whole
    return kind, min(float_up(Fraction(channel.token_epsilon) * changed), whole)


def _log_ratio(left: Law, right: Law) -> float:
    """Return the largest log ratio of an outcome under two laws, rounded up."""
    if left.keys() != right.keys():
        return math.inf
    worst = Fraction(1)
    for outcome, share in left.items():
        ratio = share / right[outcome]
        worst = max(worst, ratio, 1 / ratio)
    return logarithm_up(worst.numerator, worst.denominator)


def _outside(vocabulary: Vocabulary, letter: str) -> str:
    """Return a word of one repeated letter that the vocabulary does not hold."""
    longest = max(len(word) for word in vocabulary.words)
    return letter * (longest + 1)

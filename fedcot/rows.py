"""The rows that messages hold: prompts, rationales, metrics and scores.

`fedcot.records` puts them on the wire. A prompt that a client releases can be built
from a ledger's `Release` only, so a raw record cannot be sent by mistake.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from fedcot.arms import PROMPTS, SENT_SOURCES, SPLITS
from fedcot.errors import WireError
from fedcot.privacy.ledger import Release
from fedcot.settings import ARMS

# A key is a record's pseudonym, an HMAC; nothing else may stand where it stands.
LONGEST_RATIONALE: Final = 4000
RECORD_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, init=False)
class PerturbedPrompt:
    """One released question: a record's pseudonym and ids of the public vocabulary.

    Parameters
    ----------
    release : Release
        What the ledger charged, drew and stored. There is no other way to build one.
    record_key : str
        The record's pseudonym in this run; the ledger's own key never leaves the node,
        because it is the same in every run.
    fresh : bool
        Whether this run sends it for the first time, for the server's accountant. It
        shows which requests a node has answered before, which the server knows, and
        not whether an earlier run had the question perturbed.
    """

    record_key: str
    ids: tuple[int, ...]
    fresh: bool

    def __init__(self, release: Release, *, record_key: str, fresh: bool) -> None:
        if type(release) is not Release:
            raise WireError(
                "A perturbed prompt must be built from a ledger's Release, "
                f"found {type(release).__name__}."
            )
        ids = tuple(int(token) for token in release.ids)
        self._fill(record_key, ids, fresh)

    def _fill(self, record_key: str, ids: tuple[int, ...], fresh: bool) -> None:
        _check_record_key(record_key)
        object.__setattr__(self, "record_key", record_key)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "fresh", fresh)

    @classmethod
    def from_wire(cls, record_key: str, ids: tuple[int, ...], fresh: bool) -> Self:
        """Return a prompt that was received; only ids can have travelled."""
        prompt = object.__new__(cls)
        prompt._fill(record_key, ids, fresh)
        return prompt


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A private question as it is: no privacy at all.

    Only the arms `distil` and `shuffled-rationale` use it, and only a simulation or
    a node whose owner set `allow-raw-prompts` builds one.
    """

    record_key: str
    question: str

    def __post_init__(self) -> None:
        """Check the key."""
        _check_record_key(self.record_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRationale:
    """The teacher's answer to one prompt.

    `key` is the record's pseudonym, or the question itself for the public bank.
    """

    source: str  # `fedcot`, `distil` or `random-bank`
    key: str
    parsed: bool  # False: the completion was dropped, text and answer are empty
    text: str
    answer: str

    def __post_init__(self) -> None:
        """Check the source, which becomes a file name on the client, and the length.

        How long a client trains is seen by the server, and grows with the longest
        rationale that it keeps.
        """
        if self.source not in SENT_SOURCES:
            raise WireError(f"`source` must be one of {', '.join(SENT_SOURCES)}.")
        if len(self.text) > LONGEST_RATIONALE or len(self.answer) > LONGEST_RATIONALE:
            raise WireError(f"A rationale must have at most {LONGEST_RATIONALE} signs.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTraining:
    """How one arm was trained in one round; every number of it is private.

    A deployed node sends none of it. How long it takes to reply stays visible.
    """

    arm: str
    num_examples: int
    num_pairs: int
    num_unparsable: int
    num_invalid_step: int
    num_label_mismatch: int
    num_kept: int
    num_truncated: int  # examples that did not fit `max-sequence-tokens`
    label_loss: tuple[float, ...]  # nats per token, one per epoch
    rationale_loss: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        """Check the arm."""
        _check_arm(self.arm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """Counts over the test records of one client; private like them."""

    arm: str
    prompt: str  # `explain` or `predict`
    split: str  # `test` or `deep-test`
    exact_match: int
    parsed: int
    valid_rationales: int
    num_records: int
    correct: str  # "1" or "0" for each record in order; paired tests need it
    flexible_match: int = 0  # right by the lenient extractor
    ranked_match: int = -1  # most likely choice is right; -1: there are no choices
    answer_nats: float = 0.0  # log-likelihood of the gold answers, summed
    rationale_nats: float = 0.0  # of the reference rationales, summed
    rationale_tokens: int = 0
    chrf: float = 0.0  # of written against reference rationales, summed
    chance: float = 0.0  # accuracy of guessing; 0 for open answers

    def __post_init__(self) -> None:
        """Check the names, and that no count exceeds the number of records."""
        _check_arm(self.arm)
        if self.prompt not in PROMPTS or self.split not in SPLITS:
            raise WireError("`prompt` or `split` is not known.")
        digits = self.correct.count("0") + self.correct.count("1")
        if not digits == len(self.correct) == self.num_records:
            raise WireError("`correct` must hold 0 or 1 for each record.")
        if self.correct.count("1") != self.exact_match:
            raise WireError("`exact-match` must count the ones of `correct`.")
        counts = (
            self.exact_match,
            self.parsed,
            self.valid_rationales,
            self.flexible_match,
            max(0, self.ranked_match),
        )
        if min(counts) < 0 or max(counts) > self.num_records:
            raise WireError("A score must count between 0 and `num-records`.")
        if self.ranked_match < -1 or self.rationale_tokens < 0:
            raise WireError("A score must count between 0 and `num-records`.")


def _check_record_key(key: str) -> None:
    if not isinstance(key, str) or RECORD_KEY.fullmatch(key) is None:
        raise WireError("A record key must be a hex digest of 64 digits.")


def _check_arm(arm: str) -> None:
    if arm not in ARMS:
        raise WireError(f"`arm` must be one of {', '.join(ARMS)}.")

"""What a text that wants to leave a client repeats, and the book of all such texts.

Paper: https://arxiv.org/abs/2312.11441, section 5 and appendix D for the measures. That
they decide what may leave, and that every text can be read before it does, is ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

from fedcot.errors import ConfigError
from fedcot.evaluation.copying import nearest, plain
from fedcot.plain_text import normalize, valid_unicode
from fedcot.social.demonstrations import Demonstration

Reason = Literal["", "verbatim", "normalised", "near", "run"]
REFUSALS: Final[tuple[Reason, ...]] = ("verbatim", "normalised", "near", "run")
Kind = Literal["candidate", "instruction", "vote"]
KINDS: Final[tuple[Kind, ...]] = ("candidate", "instruction", "vote")
# Shorter steps, as those of one equation, are alike by chance.
LONG_STEPS: Final = 6
# No normalised text holds it, so that no run of words reaches over two sources.
_END: Final = "\n"


@dataclass(frozen=True, slots=True)
class CopiedRun:
    """The longest run of words that a text shares with private ones.

    Attributes
    ----------
    num_words : int
        0 where they share no word.
    index : int or None
        Of the first source that holds the run.
    """

    num_words: int
    index: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a text may leave, and the numbers that say why.

    Attributes
    ----------
    allowed : bool
    reason : str
        Empty where it may; else the first of `REFUSALS` that holds.
    verbatim, normalised : bool
        Whether it is a source, character by character, or but for case and spacing;
        or whether what leaves with it is one, of `LONG_STEPS` words or more.
    distance : float
        To the nearest substring of a source, in [0, 1]; see
        `fedcot.evaluation.copying.substring_distance`.
    nearest_index : int
        Of that source; its text stays where it is.
    longest_run : int or None
        Words, as `CopiedRun`; None where the gate does not look for runs.
    """

    allowed: bool
    reason: Reason
    verbatim: bool
    normalised: bool
    distance: float
    nearest_index: int
    longest_run: int | None


class Gate:
    """Keeps texts back that repeat too much of private ones.

    It refuses every exact copy and every copy but for case and spacing, whatever the
    threshold; every text nearer to a source than the threshold; and, where
    `refused_run` is given, every text that holds so many consecutive words of a source.
    Of what leaves beside a text, as the steps beside a question, it refuses copies of
    `LONG_STEPS` words or more, whatever the threshold, and runs.

    Parameters
    ----------
    sources : sequence of str
        All private texts of the client, at least one.
    threshold : float
        In [0, 1]: a text with ``distance < threshold`` is refused. At 0 the distance
        refuses nothing, at 1 every text that shares a character with a source.
    refused_run : int, optional
        Words, >= 1. A long text that embeds a private one has a large distance as a
        whole; only this finds it.

    Raises
    ------
    ConfigError
        There are no sources, or a number is out of its range.

    Notes
    -----
    A gate is no differential privacy: what it lets through may still tell of the
    sources, and so may how much it refuses.
    """

    def __init__(
        self,
        sources: Sequence[str],
        threshold: float,
        *,
        refused_run: int | None = None,
    ) -> None:
        if not sources:
            raise ConfigError(
                "`sources` must hold one or more texts, found none; give the gate all "
                "private texts of the client."
            )
        if math.isnan(threshold) or not 0 <= threshold <= 1:
            raise ConfigError(
                f"`threshold` must be in [0, 1], found {threshold}; 0.1 refuses what "
                "is a tenth of its length away from a private text."
            )
        if refused_run is not None and refused_run < 1:
            raise ConfigError(
                f"`refused_run` must be at least 1 word, found {refused_run}; leave "
                "it out to refuse no runs."
            )
        self.threshold = threshold
        self.refused_run = refused_run
        self._sources = tuple(sources)
        self._known = frozenset(sources)
        self._plain = frozenset(map(plain, sources))
        self._runs = _searched(sources)

    def judge(self, text: str, *, beside: str = "") -> Verdict:
        """Return whether a text may leave.

        Parameters
        ----------
        text : str
        beside : str
            What leaves with it. It is no copy below `LONG_STEPS` words, set apart by
            blanks, and its distance is not measured: short steps are like other short
            steps by chance.
        """
        found = nearest(text, self._sources)
        run = None
        if self.refused_run is not None:
            run = max(_longest(part, self._runs).num_words for part in (text, beside))
        parts = [text, *([beside] if len(beside.split()) >= LONG_STEPS else [])]
        verbatim = any(part in self._known for part in parts)
        normalised = any(plain(part) in self._plain for part in parts)
        reason: Reason = ""
        if verbatim:
            reason = "verbatim"
        elif normalised:
            reason = "normalised"
        elif found.distance < self.threshold:
            reason = "near"
        elif run is not None and self.refused_run is not None:
            reason = "run" if run >= self.refused_run else ""
        return Verdict(
            allowed=not reason,
            reason=reason,
            verbatim=verbatim,
            normalised=normalised,
            distance=found.distance,
            nearest_index=found.index,
            longest_run=run,
        )


@dataclass(frozen=True, slots=True)
class Considered:
    """A text that a client made in order to send it.

    Attributes
    ----------
    text : str
    verdict : Verdict or None
        None for a vote, which repeats no text.
    left : bool
        Whether it is sent.

    Raises
    ------
    ValueError
        A refused text would be sent.
    """

    text: str = field(repr=False)
    verdict: Verdict | None
    left: bool

    def __post_init__(self) -> None:
        """Check that the gate is obeyed."""
        if self.left and self.verdict is not None and not self.verdict.allowed:
            raise ValueError("`left` must be false for a text that the gate refused.")


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """A line of a `MessageLog`.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    server_round : int
    sha256 : str
        Of the text in UTF-8, in hex.
    text : str or None
        What left; None for what did not.
    verdict : Verdict or None
    """

    kind: Kind
    server_round: int
    sha256: str
    text: str | None = field(repr=False)
    verdict: Verdict | None

    @property
    def left(self) -> bool:
        """Whether the text was sent."""
        return self.text is not None


class MessageLog:
    """Every text that a client considered to send, in a file that only its owner reads.

    It is written before anything is sent, holds no times, so that the same run writes
    the same file, and never a private text or one that stayed: only numbers, the index
    of the nearest private text and the hash of what was made.

    Parameters
    ----------
    path : Path
        A file of JSON lines, made by the first `append`; its folder has to be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(
        self, kind: Kind, server_round: int, considered: Sequence[Considered]
    ) -> None:
        """Add texts durably, in their order.

        Raises
        ------
        ConfigError
            There is no such kind, or others may read the file.
        ValueError
            A text that is no vote has no verdict.
        """
        if kind not in KINDS:
            raise ConfigError(
                f"`kind` must be one of {', '.join(KINDS)}, found {kind!r}; choose one."
            )
        if any((one.verdict is None) != (kind == "vote") for one in considered):
            raise ValueError("`verdict` must be given for all but votes.")
        rows = [_row(kind, server_round, one) for one in considered]
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.path, flags, 0o600), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._check_owner(file)
            _drop_torn_line(file)
            file.write(lines.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[LoggedMessage]:
        """Return all lines; none if nothing was considered yet.

        Raises
        ------
        ConfigError
            A line is not one that `append` wrote.
        """
        if not self.path.exists():
            return []
        # Behind the last line break is what a crash cut off, which was never sent.
        whole = self.path.read_bytes().split(b"\n")[:-1]
        return [self._message(number, line) for number, line in enumerate(whole, 1)]

    def _message(self, number: int, line: bytes) -> LoggedMessage:
        try:
            row = json.loads(line)
            given = row["verdict"]
            verdict = None if given is None else Verdict(**given)
            return LoggedMessage(
                row["kind"], row["round"], row["sha256"], row["text"], verdict
            )
        except (ValueError, KeyError, TypeError) as error:
            # Without the cause, which quotes the line.
            raise ConfigError(
                f"`message-log` must hold lines that fedcot wrote, found another in "
                f"line {number} of `{self.path}` ({type(error).__name__}); restore it."
            ) from None

    def _check_owner(self, file: IO[bytes]) -> None:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise ConfigError(
                "`message-log` must be for its owner alone, found mode "
                f"{mode:04o} of `{self.path}`; run `chmod 600` on it."
            )


def gate_texts(demonstrations: Sequence[Demonstration]) -> list[str]:
    """Return what a gate compares: questions, then the steps of those that have any.

    Up to the number of demonstrations, the index of a text is that of its
    demonstration. Answers are left out, since a class or a number is no copy.
    """
    questions = [demonstration.question for demonstration in demonstrations]
    return questions + [d.reasoning for d in demonstrations if d.reasoning]


def longest_copied(text: str, sources: Sequence[str]) -> CopiedRun:
    """Return the longest run of consecutive words of a text that stands in a source.

    Parameters
    ----------
    text : str
    sources : sequence of str

    Returns
    -------
    CopiedRun
        Words and whole numbers as `fedcot.plain_text.normalize` reads them, so that
        case, spacing and punctuation hide nothing.

    Notes
    -----
    A language that writes no blanks between its words has runs of few words.
    """
    return _longest(text, _searched(sources))


def _row(kind: Kind, server_round: int, considered: Considered) -> dict[str, Any]:
    text = valid_unicode(considered.text)
    return {
        "kind": kind,
        "round": server_round,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "text": text if considered.left else None,
        "verdict": None if considered.verdict is None else asdict(considered.verdict),
    }


def _drop_torn_line(file: IO[bytes]) -> None:
    """Cut off what stands behind the last line break: a crash left it, unsent."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _searched(sources: Sequence[str]) -> str:
    """Return all sources as one text in which every word has blanks around it."""
    return "".join(f" {normalize(source)} {_END}" for source in sources)


def _longest(text: str, searched: str) -> CopiedRun:
    words = normalize(text).split()
    best = CopiedRun(0, None)
    for start in range(len(words)):
        # A run that is longer than the best begins with one that is a word longer.
        while start + best.num_words < len(words):
            run = " ".join(words[start : start + best.num_words + 1])
            at = searched.find(f" {run} ")
            if at < 0:
                break
            best = CopiedRun(best.num_words + 1, searched.count(_END, 0, at))
    return best

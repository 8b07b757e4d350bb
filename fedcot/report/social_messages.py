"""What teacher clients wanted to say, read back from the books that they keep.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3.2: text can be read
by a person before it leaves. The books hold what was sent in words, and of what was
kept back only numbers and a hash.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedcot.errors import ConfigError, FedcotError
from fedcot.evaluation.copying import nearest, plain
from fedcot.report.reader import number
from fedcot.runs import CONFIG, read_config, read_members
from fedcot.settings import SOCIAL
from fedcot.social.inspection import (
    REFUSALS,
    LoggedMessage,
    MessageLog,
    Verdict,
    gate_texts,
)

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.social.demonstrations import DemonstrationFormat

MESSAGES: Final = "messages.jsonl"
SENT: Final = "sent"
# The gate let it through, but it is wrong, said before, or others were likelier.
NOT_CHOSEN: Final = "not chosen"
_NODES: Final = "nodes"
_PARTITION: Final = re.compile(r"partition-(\d+)")
_EXACT: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a teacher client's book.

    Attributes
    ----------
    partition : int or None
        Whose; None for a folder that does not say.
    run : str
        Which run, where the folder holds several; else empty.
    logged : LoggedMessage
    """

    partition: int | None
    run: str
    logged: LoggedMessage

    @property
    def fate(self) -> str:
        """`SENT`, one of the gate's refusals, or `NOT_CHOSEN`."""
        if self.logged.left:
            return SENT
        verdict = self.logged.verdict
        return (verdict.reason if verdict else "") or NOT_CHOSEN

    @property
    def is_copy(self) -> bool:
        """Whether it left although it copies a private text."""
        verdict = self.logged.verdict
        copies = verdict is not None and (verdict.verbatim or verdict.normalised)
        return self.logged.left and copies

    @property
    def is_against_the_gate(self) -> bool:
        """Whether it left although the gate refused it, or never judged it."""
        verdict = self.logged.verdict
        if not self.logged.left or self.logged.kind == "vote":
            return False
        return verdict is None or not verdict.allowed or self.is_copy


@dataclass(frozen=True, slots=True)
class Inspected:
    """All messages in numbers.

    Attributes
    ----------
    sent : int
    kept_back : dict of str to int
        By fate, those with any text.
    smallest_distance : float or None
        Of a sent text to the nearest private one; None where no text was sent.
    copies : int
        Sent texts that are a private one, but for case and spacing: has to be 0.
    against_the_gate : int
        Sent texts that the gate refused or never judged, copies among them: has to be
        0.
    """

    sent: int
    kept_back: dict[str, int]
    smallest_distance: float | None
    copies: int
    against_the_gate: int


@dataclass(frozen=True, slots=True)
class PrivateTexts:
    """What gates compared with, re-read from the data, for the owner's eyes.

    Attributes
    ----------
    texts : dict of int to tuple of str
        By partition, in the order of the gate.
    problems : tuple of str
        Why some cannot be shown; without any text.
    copies : int
        Sent texts that are a private one by the data, whatever the books say.
    """

    texts: dict[int, tuple[str, ...]]
    problems: tuple[str, ...]
    copies: int

    def nearest_to(self, message: Message) -> str | None:
        """Return the private text that a message is nearest to, if it is known."""
        verdict, place = message.logged.verdict, message.partition
        if verdict is None or place is None or place not in self.texts:
            return None
        texts = self.texts[place]
        at = verdict.nearest_index
        return texts[at] if 0 <= at < len(texts) else None


def read_messages(place: Path) -> tuple[Message, ...]:
    """Return every message of a run, or of a deployed node's state folder.

    Parameters
    ----------
    place : Path
        A run directory, or a folder with books below it.

    Returns
    -------
    tuple of Message
        By run and partition, then as they were written.

    Raises
    ------
    ConfigError
        There is no book, or a line of one cannot be read.
    """
    nodes = place / _NODES
    root = nodes if nodes.is_dir() else place
    books = [(*_whose(book, root), book) for book in root.rglob(MESSAGES)]
    if not books:
        raise ConfigError(
            f"`RUN_DIR` must hold messages of teacher clients, found no {MESSAGES} in "
            f"`{place}`; run one with `-c mode=social`, or name a node's state folder."
        )
    books.sort(key=lambda one: (one[0], -1 if one[1] is None else one[1], one[2]))
    runs = {run for run, _, _ in books}
    return tuple(
        Message(partition, run if len(runs) > 1 else "", logged)
        for run, partition, book in books
        for logged in MessageLog(book).read()
    )


def _whose(book: Path, root: Path) -> tuple[str, int | None]:
    """Return the run and the partition that a book's folders name."""
    parts = book.relative_to(root).parts[:-1]
    partition = None
    # A run may lie below a partition's folder, which may be the root itself.
    for part in (root.name, *parts):
        if found := _PARTITION.fullmatch(part):
            partition = int(found[1])
    return "/".join(part for part in parts if not _PARTITION.fullmatch(part)), partition


def inspected(messages: Sequence[Message]) -> Inspected:
    """Return all messages in numbers."""
    fates = Counter(one.fate for one in messages)
    distances = [
        distance
        for one in messages
        if one.logged.left
        and one.logged.verdict is not None
        and (distance := number(one.logged.verdict.distance)) is not None
    ]
    order = (*REFUSALS, NOT_CHOSEN)
    others = sorted(fates.keys() - {SENT, *order})
    return Inspected(
        sent=fates[SENT],
        kept_back={name: fates[name] for name in (*order, *others) if fates[name]},
        smallest_distance=min(distances, default=None),
        copies=sum(one.is_copy for one in messages),
        against_the_gate=sum(one.is_against_the_gate for one in messages),
    )


def private_texts(run_dir: Path, messages: Sequence[Message]) -> PrivateTexts:
    """Re-read what the gates of a simulated run compared with.

    A partition's texts are given only if each of its sent texts has the same nearest
    private text at the same distance as its book says: then data and order are those of
    the gate. Steps that a client's model wrote to its own examples, which the gate
    compares with too, are not in the data; their numbers stand behind all others.

    Parameters
    ----------
    run_dir : Path
    messages : sequence of Message
        Of that run.
    """
    partitions = sorted(
        {one.partition for one in messages if one.partition is not None}
    )
    try:
        config, count, form = _settings_of(run_dir)
        sources = {one: _sources(config, one, count) for one in partitions}
    except (FedcotError, OSError, IndexError) as error:
        return PrivateTexts({}, (_unreadable(error),), 0)
    texts, problems, copies = {}, [], 0
    for partition, own in sources.items():
        sent: list[tuple[str, Verdict]] = [
            (text, one.logged.verdict)
            for one in messages
            if one.partition == partition
            and one.logged.verdict is not None
            and (text := _compared(one.logged, form)) is not None
        ]
        copies += _copies([text for text, _ in sent], own)
        beyond = [
            one.logged.verdict.nearest_index >= len(own)
            for one in messages
            if one.partition == partition and one.logged.verdict is not None
        ]
        if not any(verdict.nearest_index < len(own) for _, verdict in sent):
            problems.append(
                f"partition {partition} sent no text that would show that the data is "
                "what its gate compared with"
            )
        elif all(_agrees(text, verdict, own) for text, verdict in sent):
            texts[partition] = own
            if any(beyond):
                problems.append(
                    f"partition {partition}: {sum(beyond)} texts are nearest to steps "
                    "that its model wrote, which are not in the data"
                )
        else:
            problems.append(
                f"partition {partition}: the data is not what its gate compared with, "
                "or stands in another order"
            )
    return PrivateTexts(texts, tuple(problems), copies)


def _unreadable(error: Exception) -> str:
    # An error about data may quote it; those of fedcot never do.
    told = f": {error}" if isinstance(error, FedcotError) else ""
    return f"the private data cannot be re-read ({type(error).__name__}){told}"


def _settings_of(run_dir: Path) -> tuple[RunConfig, int, DemonstrationFormat]:
    """Return settings, number of clients and format of a simulated run."""
    from fedcot.config import RunConfig
    from fedcot.social.configured import configured_form

    if not (run_dir / CONFIG).is_file():
        raise ConfigError(
            "`--private` must be given with the directory of a simulated run, found no "
            f"{CONFIG} in `{run_dir}`; the data of a deployed node is only where its "
            "owner keeps it."
        )
    stated: Any = read_config(run_dir).get("run_config")
    if not isinstance(stated, dict) or stated.get("mode") != SOCIAL:
        raise ConfigError(
            f"`RUN_DIR` must be a run of mode {SOCIAL}, found another one in "
            f"`{run_dir}`; name one."
        )
    config = RunConfig.from_run_config(stated)
    count = read_members(run_dir) or config.num_partitions
    return config, count, configured_form(config)


def _sources(config: RunConfig, partition: int, count: int) -> tuple[str, ...]:
    from fedcot.social.configured import configured_silo

    return tuple(gate_texts(configured_silo(config, partition, count)))


def _compared(logged: LoggedMessage, form: DemonstrationFormat) -> str | None:
    """Return what the gate compared of a text that left; None if it cannot be told."""
    from fedcot.social.instructions import instruction_style

    if logged.text is None:
        return None
    if logged.kind == "candidate":
        read = form.read(logged.text)
        return None if read is None else read.question
    opening = instruction_style(form).opening
    return logged.text.removeprefix(f"{opening} ") if opening else logged.text


def _agrees(text: str, verdict: Verdict, sources: Sequence[str]) -> bool:
    """Whether a text is as near to the sources, and to the same one, as was noted."""
    found = nearest(text, sources)
    told = number(verdict.distance)
    if told is None:
        return False
    if verdict.nearest_index >= len(sources):
        # Nearest to a text that the data has not got: all others are further away.
        return found.distance > told - _EXACT
    same = math.isclose(found.distance, told, abs_tol=_EXACT)
    return same and found.index == verdict.nearest_index


def _copies(texts: Sequence[str], sources: Sequence[str]) -> int:
    known = set(map(plain, sources))
    return sum(plain(text) in known for text in texts)


def as_json(
    messages: Sequence[Message], private: PrivateTexts | None
) -> Iterator[dict[str, Any]]:
    """Yield messages for JSON; a private text only where they are given."""
    for one in messages:
        verdict = one.logged.verdict
        row: dict[str, Any] = {
            "partition": one.partition,
            "run": one.run,
            "kind": one.logged.kind,
            "round": one.logged.server_round,
            "fate": one.fate,
            "distance": verdict.distance if verdict else None,
            "longest_run": verdict.longest_run if verdict else None,
            "nearest_index": verdict.nearest_index if verdict else None,
            "sha256": one.logged.sha256,
            "text": one.logged.text,
        }
        if private is not None:
            row["nearest_text"] = private.nearest_to(one)
        yield row

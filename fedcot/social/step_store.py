"""What a teacher client said at each step of a run: made once, logged, then sent.

A server that asks again gets what it got before. Nothing is sent that the message log
does not hold, and a crash between the two makes no text twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fedcot.errors import ConfigError
from fedcot.node_state import read_json
from fedcot.plain_text import valid_unicode
from fedcot.runs import write_json
from fedcot.social.demonstrations import Demonstration
from fedcot.social.flow import StepMessage
from fedcot.social.generation import Candidate
from fedcot.social.inspection import Considered, Kind, MessageLog, Verdict
from fedcot.social.instructions import Instruction

MESSAGE_LOG: Final = "messages.jsonl"
TEXTS: Final[tuple[Kind, ...]] = ("candidate", "instruction")
VOTES: Final[tuple[Kind, ...]] = ("vote",)

Content = dict[str, Any]
"""A reply in terms of JSON; private until the gate's verdicts are looked at."""


class StepStore:
    """The steps of one run on one node.

    Parameters
    ----------
    folder : Path
        Of this run, inside the node's state folder; it is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.log = MessageLog(folder / MESSAGE_LOG)

    def once(
        self,
        message: StepMessage,
        kind: Kind,
        make: Callable[[], tuple[Sequence[Considered], Content]],
        *,
        server_round: int,
    ) -> Content:
        """Return what was said at a step, which is made at the first call only.

        1. The message is written down. 2. The reply is made. 3. Every text that was
        considered is logged. 4. The reply is stored, and read back.

        Parameters
        ----------
        message : StepMessage
        kind : str
            Of the lines in the log.
        make : callable
            Returns what was considered, and the reply.
        server_round : int
            Of the lines in the log.

        Raises
        ------
        ConfigError
            Another message was answered at this step before.
        """
        path = self._path(message.step)
        entry: Content | None = read_json(path, default=None)
        if entry is None:
            entry = {
                "message": message.hash,
                # Lines behind these are of this step: steps come one after another.
                "logged": len(self.log.read()),
                "content": None,
            }
            write_json(path, entry)
        if entry["message"] != message.hash:
            raise ConfigError(
                "`step` must have one message in a run, found another one for step "
                f"{message.step}, which was answered before; start a new run."
            )
        if entry["content"] is None:
            considered, content = make()
            self._write_log(kind, server_round, considered, entry["logged"])
            write_json(path, {**entry, "content": content})
            entry = read_json(path, default=None)
        found: Content = entry["content"]
        return found

    def num_unsent(self, step: int) -> int:
        """Return how many texts of a step are logged whose reply was never stored.

        They were not sent, and stand in the log for those that the next try makes.
        """
        entry: Content | None = read_json(self._path(step), default=None)
        if entry is None or entry["content"] is not None:
            return 0
        return sum(line.left for line in self.log.read()[entry["logged"] :])

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step}.json"

    def _write_log(
        self,
        kind: Kind,
        server_round: int,
        considered: Sequence[Considered],
        before: int,
    ) -> None:
        """Log what is not there since an earlier try of this step that ended early."""
        there = Counter(
            (line.kind, line.server_round, line.sha256, line.left)
            for line in self.log.read()[before:]
        )
        missing = []
        for one in considered:
            text = valid_unicode(one.text).encode()
            row = (kind, server_round, hashlib.sha256(text).hexdigest(), one.left)
            if there[row]:
                there[row] -= 1
            else:
                missing.append(one)
        if missing:
            self.log.append(kind, server_round, missing)


def candidate_row(candidate: Candidate) -> Content:
    """Return what is stored of a candidate: its texts, and what the gate said."""
    return {
        "text": asdict(candidate.demonstration),
        "verdict": asdict(candidate.verdict),
    }


def candidate_of(row: Content) -> Candidate:
    """Return a stored candidate; the numbers of its sampling are not kept."""
    return Candidate(
        demonstration=Demonstration(**row["text"]),
        perplexity=None,
        verdict=Verdict(**row["verdict"]),
        is_valid=None,
        prompt=0,
    )


def instruction_rows(instruction: Instruction) -> list[Content]:
    """Return what is stored of an instruction: the text that may leave, if any."""
    return [
        {"text": one.text, "verdict": asdict(one.verdict)}
        for one in instruction.considered
        if one.left and one.verdict is not None
    ]


def instruction_of(row: Content) -> Instruction:
    """Return a stored instruction.

    Raises
    ------
    ValueError
        The gate refused it.
    """
    considered = Considered(row["text"], Verdict(**row["verdict"]), left=True)
    return Instruction(row["text"], {}, (considered,))


def num_sent(state_dir: Path, kinds: Collection[Kind]) -> int:
    """Return how many messages of some kinds have left a node, over all its runs.

    A log is written before its reply can be sent, so that none is missing; what a crash
    kept from being sent counts as well.
    """
    return sum(
        line.left and line.kind in kinds
        for path in state_dir.glob(f"*/{MESSAGE_LOG}")
        for line in MessageLog(path).read()
    )


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Keep other processes of this node waiting, as those of other runs.

    Else two of them could both find room for what only one may send.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        # Closing it lets the next one in.
        os.close(folder)

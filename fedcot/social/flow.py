"""The conversation of a student with its teacher clients: fixed, and the same for all.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), appendix A: teachers never
talk to each other, not even through the student; the student sends the same message to
all; the flow is fixed in advance. The guard is asked before every send and on every
reply, and its log shows afterwards that this held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedcot.errors import ConfigError, FedcotError
from fedcot.social.quotations import canonical, quotable_runs, texts_in

TEACH_EXAMPLES: Final = "teach.examples"
TEACH_INSTRUCTION: Final = "teach.instruction"
VOTE: Final = "vote"
KINDS: Final = (TEACH_EXAMPLES, TEACH_INSTRUCTION, VOTE)
# Under this key of its content a vote step carries the candidates, for all to see.
CANDIDATES: Final = "candidates"
PROTOCOL: Final = "social learning"
EXTENDED_PROTOCOL: Final = "extended protocol"


class FlowError(FedcotError):
    """A message would break the constraints of the conversation, so it is not sent."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps of a conversation, fixed before it begins.

    Parameters
    ----------
    kinds : tuple of str
        Of `KINDS`, one for each broadcast, in order; a vote stands behind a
        `teach.examples` or a `teach.instruction`.

    Raises
    ------
    ConfigError
        If there are no steps, a kind is unknown or there is nothing to vote on.
    """

    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the steps."""
        object.__setattr__(self, "kinds", tuple(self.kinds))
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if not self.kinds or unknown:
            raise ConfigError(
                f"`flow` must be steps of {', '.join(KINDS)}, found "
                f"{', '.join(map(repr, unknown)) or 'none'}; name at least one of them."
            )
        if self.kinds[0] == VOTE:
            raise ConfigError(
                f"`flow` must have a {TEACH_EXAMPLES} or a {TEACH_INSTRUCTION} before "
                "its first vote, found none; candidates must be there to vote on."
            )

    @property
    def hash(self) -> str:
        """SHA-256 of the steps, to be recorded before the first message."""
        return hashlib.sha256(json.dumps(self.kinds).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StepMessage:
    """What the student says at one step.

    Parameters
    ----------
    step : int
        Place in the flow, from 0.
    kind : str
    content : mapping of str
        Everything the message holds: strings, numbers, truth values, None, and
        sequences and mappings of these.

    Raises
    ------
    ConfigError
        If the content holds anything else, which could not be compared.
    """

    step: int
    kind: str
    content: Mapping[str, object] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the content can be hashed."""
        canonical(self.content)

    @property
    def hash(self) -> str:
        """SHA-256 of the kind and the content, whatever the order of the keys."""
        text = json.dumps(self.kind) + canonical(self.content)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class _Sent:
    """What was sent at one step, and who replied."""

    kind: str
    is_skipped: bool = False
    hashes: dict[int, str] = field(default_factory=dict)
    replied: set[int] = field(default_factory=set)


class FlowGuard:
    """Refuses what the flow does not provide for, and records what was sent.

    Parameters
    ----------
    flow : Flow
    teachers : sequence of int
        Partitions of all teacher clients, distinct.
    known : iterable of str
        What messages always hold, as the names of their parts: no quotation, whoever
        else says it.
    extended : bool
        Whether messages of one's own for a teacher, steps beside the flow and
        quotations are let through. The run is then marked as one of the extended
        protocol and its departures are listed.

    Raises
    ------
    ConfigError
        If there is no teacher client, or one is named twice.

    Notes
    -----
    `fedcot.social.quotations` says what a quotation is; what the student had said
    before a teacher client did is none. The candidates of a vote may be quoted, since
    everybody sees all of them. What another teacher said is not recognised in other
    words.
    """

    def __init__(
        self,
        flow: Flow,
        teachers: Sequence[int],
        *,
        known: Iterable[str] = (),
        extended: bool = False,
    ) -> None:
        if not teachers or len(set(teachers)) != len(teachers):
            raise ConfigError(
                "`teachers` must be distinct partitions, at least one, found "
                f"{len(teachers)} with {len(set(teachers))} distinct; name each once."
            )
        self._flow = flow
        self._teachers = tuple(sorted(teachers))
        self._extended = extended
        self._steps: list[_Sent] = []
        self._lost: dict[int, int] = {}
        self._departures: list[str] = []
        self._said: set[str] = set()
        for word in known:
            self._said |= quotable_runs([word])
        self._quotable: dict[int, set[str]] = {teacher: set() for teacher in teachers}

    @property
    def departures(self) -> tuple[str, ...]:
        """How the run departed from the protocol, in order; empty unless extended."""
        return tuple(self._departures)

    def before_send(self, message: StepMessage, teacher: int) -> None:
        """Allow and record one send, or refuse it.

        Parameters
        ----------
        message : StepMessage
        teacher : int
            Partition that it is for.

        Raises
        ------
        FlowError
            If it breaks the flow; then nothing is recorded.
        """
        self._check_teacher(teacher)
        is_new = message.step == len(self._steps)
        if not is_new and not 0 <= message.step == len(self._steps) - 1:
            raise FlowError(
                f"Step {message.step} is out of order: {len(self._steps)} steps have "
                "begun, and only the last can go on or the next begin."
            )
        departures = self._opening_departures(message) if is_new else []
        sent = _Sent(message.kind) if is_new else self._steps[-1]
        if teacher in sent.hashes:
            raise FlowError(
                f"Step {message.step} was sent to partition {teacher} before; each "
                "teacher client gets one message in each step."
            )
        if set(sent.hashes.values()) - {message.hash}:
            departures.append(
                f"step {message.step}: partition {teacher} gets another message than "
                "the others"
            )
            departures += self._quotations(message)
        self._allow(departures)
        if is_new:
            self._steps.append(sent)
        sent.hashes[teacher] = message.hash
        self._said |= quotable_runs(texts_in(_without_candidates(message)))

    def on_reply(self, step: int, teacher: int, texts: Sequence[str] = ()) -> None:
        """Take note of a reply, or refuse it.

        Parameters
        ----------
        step : int
        teacher : int
        texts : sequence of str
            Everything in words that it holds; none for a vote.

        Raises
        ------
        FlowError
            If the teacher client was not asked in the last step, or replies again.
        """
        is_last = 0 <= step == len(self._steps) - 1
        if not is_last or teacher not in self._steps[step].hashes:
            raise FlowError(
                f"Partition {teacher} replies to step {step}, which is over or in "
                "which it was not asked."
            )
        if teacher in self._steps[step].replied:
            raise FlowError(f"Partition {teacher} replies to step {step} again.")
        self._steps[step].replied.add(teacher)
        self._quotable[teacher] |= quotable_runs(texts) - self._said

    def skip(self) -> None:
        """Record that the next step has nothing to ask, so that nobody is asked.

        Raises
        ------
        FlowError
            There is no further step, or the last one has not reached everybody.
        """
        if len(self._steps) == len(self._flow.kinds):
            raise FlowError("No step is left to be skipped.")
        self._allow(self._unsent())
        self._steps.append(_Sent(self._flow.kinds[len(self._steps)], is_skipped=True))

    def lose(self, teacher: int) -> None:
        """Record that a teacher client has gone; nothing more is sent to it.

        Raises
        ------
        FlowError
            If there is no such teacher client, or it has gone before.
        """
        self._check_teacher(teacher)
        self._lost[teacher] = len(self._steps)

    def finish(self) -> None:
        """Check that the whole flow took place.

        Raises
        ------
        FlowError
            If a step is missing or was not sent to everybody.
        """
        self._allow(self._unsent())
        if len(self._steps) < len(self._flow.kinds):
            self._allow([f"the flow ends after {len(self._steps)} steps"])

    def describe(self) -> dict[str, object]:
        """Return the log of the conversation, without any text of it.

        Returns
        -------
        dict
            For JSON. ``sent`` of each step maps the hash of a message to the partitions
            that got it: one key means that all got the same.
        """
        return {
            "protocol": EXTENDED_PROTOCOL if self._extended else PROTOCOL,
            "departures": list(self._departures),
            "flow": list(self._flow.kinds),
            "flow_hash": self._flow.hash,
            "teachers": list(self._teachers),
            "lost": {str(teacher): step for teacher, step in self._lost.items()},
            "steps": [
                {
                    "kind": sent.kind,
                    "skipped": sent.is_skipped,
                    "sent": {
                        digest: sorted(t for t, h in sent.hashes.items() if h == digest)
                        for digest in dict.fromkeys(sent.hashes.values())
                    },
                    "replied": sorted(sent.replied),
                }
                for sent in self._steps
            ],
        }

    def _opening_departures(self, message: StepMessage) -> list[str]:
        """Return what is wrong with a step's first message, for any teacher client."""
        found = self._unsent()
        place = message.step
        provided = self._flow.kinds[place : place + 1]
        if provided != (message.kind,):
            found.append(
                f"step {place} is {message.kind!r} where the flow has "
                f"{provided[0] if provided else 'no further step'!r}"
            )
        return found + self._quotations(message)

    def _unsent(self) -> list[str]:
        """Return who the last step was not sent to."""
        if not self._steps or self._steps[-1].is_skipped:
            return []
        left = set(self._teachers) - set(self._steps[-1].hashes) - set(self._lost)
        place = len(self._steps) - 1
        return [f"step {place} was not sent to partition {one}" for one in sorted(left)]

    def _quotations(self, message: StepMessage) -> list[str]:
        """Return whose words a message would carry to somebody else."""
        if len(self._teachers) == 1:
            return []
        runs = quotable_runs(texts_in(_without_candidates(message)))
        return [
            f"step {message.step} quotes partition {teacher}"
            for teacher in self._teachers
            if runs & self._quotable[teacher]
        ]

    def _allow(self, departures: list[str]) -> None:
        if departures and not self._extended:
            raise FlowError(
                f"The conversation would leave its flow: {departures[0]}. Only the "
                "extended protocol allows that."
            )
        self._departures += departures

    def _check_teacher(self, teacher: int) -> None:
        if teacher not in self._teachers or teacher in self._lost:
            raise FlowError(
                f"Partition {teacher} is no teacher client of this run, or has gone."
            )


def check_log(log: Mapping[str, object]) -> None:
    """Check that a run's log shows one message for all teacher clients in each step.

    Parameters
    ----------
    log : mapping
        Of `FlowGuard.describe`, from JSON or not.

    Raises
    ------
    FlowError
        If the steps are not those of the flow, a step has several messages or missed
        somebody, or the run is one of the extended protocol.
    """
    steps, kinds, lost = log.get("steps"), log.get("flow"), log.get("lost")
    teachers = log.get("teachers")
    if not (
        isinstance(steps, list)
        and isinstance(kinds, list)
        and isinstance(lost, Mapping)
        and isinstance(teachers, list)
    ):
        raise FlowError("The log of the conversation is not one of a flow guard.")
    if log.get("protocol") != PROTOCOL or log.get("departures"):
        raise FlowError("The log is of the extended protocol, which promises nothing.")
    if log.get("flow_hash") != Flow(tuple(kinds)).hash:
        raise FlowError("The flow of the log is not the one that was hashed.")
    if [step["kind"] for step in steps] != kinds:
        raise FlowError("The steps of the log are not those of its flow.")
    for place, step in enumerate(steps):
        if step.get("skipped") is True and not step["sent"]:
            continue
        # Whoever went during a step may have been sent it or not.
        due = {t for t in teachers if lost.get(str(t), len(steps) + 1) > place + 1}
        reached = {teacher for group in step["sent"].values() for teacher in group}
        if len(step["sent"]) != 1 or not due <= reached <= set(teachers):
            raise FlowError(
                f"Step {place} of the log is not one message for everybody."
            )


def _without_candidates(message: StepMessage) -> object:
    if message.kind != VOTE:
        return message.content
    return {key: part for key, part in message.content.items() if key != CANDIDATES}

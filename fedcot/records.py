"""The whole wire: every message between server and client, and nothing else.

"Raw text never leaves" is checked by reading this file and `fedcot.rows`. A client
sends a `PerturbedPrompt`, which is built from a ledger's `Release` and holds ids of
the public vocabulary only; raw questions have a type of their own, `RawPrompt`, which
`fedcot.node.Node` builds where the node's owner or a simulation allows it.

What no message holds and no epsilon covers: when a reply comes, how long it took, and
whether a client failed. All three may depend on private records, through the length of
generated text and the number of pairs that a label filter kept, and the server sees
them.

This is the one module of `fedcot` that imports Flower.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedcot.arms import ASKED_SOURCES
from fedcot.codec import flatten, unflatten
from fedcot.errors import WireError
from fedcot.rows import (
    ArmScore,
    ArmTraining,
    PerturbedPrompt,
    RawPrompt,
    SentRationale,
)
from fedcot.settings import ARMS

QUERY_IDENTIFY: Final = "query.identify"
QUERY_PERTURB: Final = "query.perturb"
TRAIN_DISTILL: Final = "train.distill"
EVALUATE: Final = "evaluate"

CONFIG: Final = "config"
ARRAYS: Final = "arrays."
SCHEMA: Final = "schema"
VERSION: Final = 1

RUN_KEY: Final = re.compile(r"[0-9a-f]{16}")
# A client walks its records round by round, so a round of 2**62 would never end.
LAST_ROUND: Final = 10**6
# Rates of sampling follow from this number; far beyond, floats cannot tell what a
# noised step costs.
MOST_RECORDS: Final = 10**7

Adapter = Mapping[str, NDArray[np.float32]]
Adapters = Mapping[str, Adapter]  # by arm


class Wire:
    """What every message can do: go into a `RecordDict` and come out of one."""

    __slots__ = ()

    def encode(self) -> RecordDict:
        """Return fresh records that carry this message.

        Raises
        ------
        WireError
            A value of another type than declared, or a number that is not finite.
        """
        schema = f"{type(self).__name__}/{VERSION}"
        content = RecordDict({CONFIG: ConfigRecord({SCHEMA: schema, **flatten(self)})})
        for arm, adapter in getattr(self, "adapters", {}).items():
            arrays = {k: Array(_float32(k, v)) for k, v in adapter.items()}
            content[ARRAYS + arm] = ArrayRecord(arrays)
        return content

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """Return the message that the records carry.

        Raises
        ------
        WireError
            Another message type, a missing or surplus record or key, a value of
            another type, shape or range than declared.
        """
        config = content.config_records.get(CONFIG)
        if config is None or len(content.config_records) != 1 or content.metric_records:
            raise WireError(f"{cls.__name__} must come in one ConfigRecord `{CONFIG}`.")
        flat = dict(config)
        schema = flat.pop(SCHEMA, None)
        if schema != f"{cls.__name__}/{VERSION}":
            raise WireError(f"Expected {cls.__name__}/{VERSION}, found another schema.")
        arguments = unflatten(cls, flat)
        if hasattr(cls, "adapters"):
            arguments["adapters"] = _decode_adapters(content)
        elif content.array_records:
            raise WireError(f"{cls.__name__} must not carry arrays.")
        return cls(**arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyRequest(Wire):
    """The server's code and artefacts, as SHA-256 in hex."""

    code_hash: str
    student_hash: str
    vocabulary_hash: str
    dataset_hash: str  # of the mapping, empty for the built-in world


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyReply(Wire):
    """Who a node is; the number of records is public (design: zero-out adjacency).

    `partition_id` is from 0 to below `num_partitions`, `num_records` from 1 to 10^7.
    """

    code_hash: str
    student_hash: str
    vocabulary_hash: str
    dataset_hash: str
    partition_id: int
    num_partitions: int
    num_records: int
    simulated: bool
    raw_prompts_allowed: bool

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.partition_id < self.num_partitions:
            raise WireError("`partition-id` must be from 0 to below `num-partitions`.")
        if not 1 <= self.num_records <= MOST_RECORDS:
            raise WireError(
                f"A node must hold from 1 to {MOST_RECORDS} records (`num-records`)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbRequest(Wire):
    """What a client may release in this round, and by which channel."""

    server_round: int
    sources: tuple[str, ...]  # out of `fedcot` and `distil`
    mechanism: str
    token_epsilon: float  # granted, nats
    prompt_epsilon: float  # granted, nats; 0: slots x token_epsilon
    # Public prompts that `selection` chooses from in this round, one after another;
    # empty: the bank of the settings. Whatever stands here, one draw costs the same.
    bank: tuple[int, ...]
    record_epsilon: float  # limit over all rounds, nats
    channel_hash: str
    run_key: str
    run_dir: str  # empty for a deployed node

    def __post_init__(self) -> None:
        """Check what becomes file names on the client: the run key and the sources."""
        check_run(self.run_key, self.server_round)
        check_names("sources", self.sources, ASKED_SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbReply(Wire):
    """What a client released: exactly `slots` vocabulary ids per prompt.

    `prompt_epsilon` is the charge of one prompt, `spent_record_epsilon` the largest
    total that a record of this round has been charged over all runs, both in nats. It
    is infinite where an earlier run sent one of these records unprotected; what this
    run sends unprotected belongs to other arms and is not in it. `spent_record_delta`
    is the largest sum of deltas that a record of this round was charged for training
    over all runs; the total holds up to it. `num_fresh` counts the prompts that this
    run sends for the first time.
    """

    partition_id: int
    slots: int
    vocabulary_size: int
    channel_hash: str
    prompt_epsilon: float
    spent_record_epsilon: float
    spent_record_delta: float
    num_fresh: int
    num_refused: int
    prompts: tuple[PerturbedPrompt, ...] = ()
    raw_prompts: tuple[RawPrompt, ...] = ()

    def __post_init__(self) -> None:
        """Check types, number of slots, range of ids and the counts."""
        for prompt in self.prompts:
            if type(prompt) is not PerturbedPrompt:
                raise WireError("`prompts` may hold PerturbedPrompt only.")
            if len(prompt.ids) != self.slots:
                raise WireError(f"A prompt must have exactly {self.slots} ids.")
            if not all(0 <= token < self.vocabulary_size for token in prompt.ids):
                raise WireError("A prompt holds an id outside the vocabulary.")
        if self.num_fresh != sum(prompt.fresh for prompt in self.prompts):
            raise WireError("`num-fresh` must count the fresh prompts.")
        spent = (self.spent_record_epsilon, self.spent_record_delta)
        if min(self.num_refused, self.prompt_epsilon, *spent) < 0:
            raise WireError("Counts, epsilons and deltas must be >= 0.")
        for group in (self.prompts, self.raw_prompts):
            if len({prompt.record_key for prompt in group}) != len(group):
                raise WireError("A record key stands twice in one reply.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillRequest(Wire):
    """Rationales and, under federated averaging, the global adapter of each arm."""

    server_round: int
    arms: tuple[str, ...]
    run_key: str
    run_dir: str
    rationales: tuple[SentRationale, ...] = ()
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})

    def __post_init__(self) -> None:
        """Check what becomes file names on the client: the run key and the arms."""
        check_run(self.run_key, self.server_round)
        check_names("arms", self.arms, ARMS)
        check_names("adapters", tuple(self.adapters), ARMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillReply(Wire):
    """What came of training; a deployed node withholds the metrics."""

    partition_id: int
    withheld: bool
    training: tuple[ArmTraining, ...] = ()
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest(Wire):
    """Which arms to score; the final round scores both prompts and deep problems."""

    server_round: int
    arms: tuple[str, ...]
    final: bool
    run_key: str
    run_dir: str
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})

    def __post_init__(self) -> None:
        """Check what becomes file names on the client: the run key and the arms."""
        check_run(self.run_key, self.server_round)
        check_names("arms", self.arms, ARMS)
        check_names("adapters", tuple(self.adapters), ARMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateReply(Wire):
    """The scores of one client; a deployed node withholds them."""

    partition_id: int
    withheld: bool
    scores: tuple[ArmScore, ...] = ()


def serialise(content: RecordDict) -> bytes:
    """Return the bytes of the records as a deployed node sends them.

    Flower's own `count_bytes` fails on empty text and counts characters; this is the
    one place that measures traffic. Chunk headers and envelopes are left out.
    """
    parts: list[bytes] = []
    for name, record in content.items():
        parts.append(name.encode())
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                parts += [key.encode(), array.data]
        else:
            parts.append(record.deflate())
    return b"".join(parts)


def count_bytes(message: Message) -> int:
    """Return the size of a message's content or error, in bytes."""
    if message.has_content():
        return len(serialise(message.content))
    return len((message.error.reason or "").encode())


def _decode_adapters(content: RecordDict) -> dict[str, dict[str, NDArray[np.float32]]]:
    adapters: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, record in content.array_records.items():
        if not name.startswith(ARRAYS):
            raise WireError("An array record must be named after its arm.")
        adapters[name.removeprefix(ARRAYS)] = {
            key: _float32(key, _read(key, array)) for key, array in record.items()
        }
    return adapters


def _read(name: str, array: Array) -> NDArray[Any]:
    """Return an array that was received; whatever is wrong with it is one error."""
    try:
        return array.numpy()
    # NumPy and Flower raise half a dozen types for bytes that are no array.
    except Exception as error:
        raise WireError(f"Adapter tensor `{name}` could not be read.") from error


def _float32(name: str, value: Any) -> NDArray[np.float32]:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise WireError(f"Adapter tensor `{name}` must be a float32 array.")
    if not np.isfinite(value).all():
        raise WireError(f"Adapter tensor `{name}` must be finite.")
    return value


def check_run(key: str, server_round: int) -> None:
    """Refuse what must not become a folder name, or a round that would never end."""
    if not isinstance(key, str) or RUN_KEY.fullmatch(key) is None:
        raise WireError("`run-key` must be 16 hex digits.")
    if not 1 <= server_round <= LAST_ROUND:
        raise WireError(f"`server-round` must be from 1 to {LAST_ROUND}.")


def check_names(field_name: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known; the bad one is not quoted."""
    if not set(names) <= set(known) or len(set(names)) != len(names):
        allowed = ", ".join(known)
        raise WireError(f"`{field_name}` must be distinct and out of {allowed}.")

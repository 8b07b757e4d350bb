"""What a node's owner decides, and the files that a node keeps.

The server cannot reach any of this: a setting of the run may only narrow what the
owner allows. A deployed node keeps its ledger for good in ``state-dir``; a simulated
one keeps it inside the run directory.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedcot.errors import ConfigError
from fedcot.rules import split_list
from fedcot.runs import write_json

UNLIMITED = float("inf")
# Ten runs at the settings' own delta.
MAX_RECORD_DELTA = 1e-5


def inside_simulation() -> bool:
    """Whether this process is a Ray worker, where Flower runs simulated clients.

    A deployed node never starts Ray, and nothing that a server sends decides this.
    """
    # Another thread may just be importing it.
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


# What a deployed teacher client keeps back at least, where its owner says nothing.
GATE_DISTANCE = 0.1
GATE_RUN = 12
# A gate bounds nothing, so that the number of texts has to.
MAX_SHARED_TEXTS = 1000
# Each tells which candidates a client's own examples make likely.
MAX_BALLOTS = 100


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The node owner's settings, from Flower's node config.

    Parameters
    ----------
    partition_id, num_partitions : int
        Which share of the data this node holds.
    simulated : bool
        Everything runs on one machine; only then is private text allowed out.
    state_dir : Path or None
        The node's permanent folder; required unless simulated.
    max_record_epsilon : float
        The owner's limit for one record over all runs, in nats; required unless
        simulated.
    max_record_delta : float
        The owner's limit for the sum of deltas of one record's trainings over all runs,
        in (0, 1); 1e-5 where none is given. No run may ask for a larger delta: the
        server chooses it, and near 1 it makes any epsilon worthless.
    allow_raw_prompts : bool
        Whether private questions may be sent as they are.
    data_dir : Path or None
        Folder that a dataset's files lie in; a run cannot choose another one.
    dataset : str
        The mapping of those files, a shipped name or a path; empty for none.
    community : str
        Whose member this node is; empty for none.
    partners : tuple of str
        Communities that may be in one coalition with it, its own among them.
    client_model : str
        The model that a deployed teacher client reads its private examples with, one
        source as in the setting of that name; a run cannot choose another one.
    allow_sharing : bool
        Whether texts that its model writes after private examples, and votes, may be
        sent without any epsilon.
    gate_distance : float
        What the gate keeps back at least, as the setting of that name; a run can only
        ask for more.
    gate_run : int
        The same, in words of a private text; a run can only ask for fewer.
    max_shared_texts : int
        How many examples and instructions may leave this node over all runs.
    max_ballots : int
        How many ballots may leave this node over all runs: a server may start as many
        runs as it likes.
    task : str
        The one task, as the setting of that name, that a teacher client's files may be
        read for; a run cannot choose another one. Empty: no file is read.
    """

    partition_id: int
    num_partitions: int
    simulated: bool
    state_dir: Path | None
    max_record_epsilon: float
    max_record_delta: float
    allow_raw_prompts: bool
    data_dir: Path | None = None
    dataset: str = ""
    community: str = ""
    partners: tuple[str, ...] = ()
    client_model: str = ""
    allow_sharing: bool = False
    gate_distance: float = GATE_DISTANCE
    gate_run: int = GATE_RUN
    max_shared_texts: int = MAX_SHARED_TEXTS
    max_ballots: int = MAX_BALLOTS
    task: str = ""

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, Any]) -> Self:
        """Read the settings of this node.

        Raises
        ------
        ConfigError
            A setting is missing or has the wrong type.
        """
        partition_id = _integer(node_config, "partition-id")
        num_partitions = _integer(node_config, "num-partitions")
        if not 0 <= partition_id < num_partitions:
            raise ConfigError(
                "`partition-id` must be in [0, num-partitions), found "
                f"{partition_id} of {num_partitions}; correct the node config."
            )
        simulated = inside_simulation() or _flag(node_config, "simulation")
        state_dir = str(node_config.get("state-dir", ""))
        data_dir = str(node_config.get("data-dir", ""))
        if not simulated and not Path(state_dir).is_absolute():
            raise ConfigError(
                "`state-dir` must be an absolute path in the node config of a "
                "deployed node, because its ledger has to outlive every run; pass "
                "for example --node-config 'state-dir=\"/var/lib/fedcot\"'."
            )
        if not simulated and "max-record-epsilon" not in node_config:
            raise ConfigError(
                "`max-record-epsilon` must be given in the node config of a deployed "
                "node: what one record may cost over all runs, in nats, is its owner's "
                "to say; pass for example --node-config 'max-record-epsilon=250.0'."
            )
        return cls(
            partition_id=partition_id,
            num_partitions=num_partitions,
            simulated=simulated,
            state_dir=Path(state_dir) if state_dir else None,
            max_record_epsilon=_limit(node_config, "max-record-epsilon"),
            max_record_delta=_probability(node_config, "max-record-delta"),
            allow_raw_prompts=_flag(node_config, "allow-raw-prompts") or simulated,
            data_dir=Path(data_dir) if data_dir else None,
            dataset=str(node_config.get("dataset", "")),
            community=str(node_config.get("community", "")),
            partners=tuple(
                filter(None, split_list(str(node_config.get("partners", ""))))
            ),
            client_model=_one_model(node_config, "client-model"),
            allow_sharing=_flag(node_config, "allow-sharing") or simulated,
            gate_distance=_share(node_config, "gate-distance", GATE_DISTANCE),
            gate_run=_count(node_config, "gate-run", GATE_RUN),
            max_shared_texts=_count(node_config, "max-shared-texts", MAX_SHARED_TEXTS),
            max_ballots=_count(node_config, "max-ballots", MAX_BALLOTS),
            task=str(node_config.get("task", "")),
        )

    def folder(self, run_dir: str) -> Path:
        """Return this node's state folder.

        Raises
        ------
        ConfigError
            A simulated node was given no run directory.
        """
        if not self.simulated and self.state_dir is not None:
            return self.state_dir
        if not Path(run_dir).is_absolute():
            raise ConfigError(
                "A simulated node must be given the absolute run directory."
            )
        return Path(run_dir) / "nodes" / f"partition-{self.partition_id}"


@contextmanager
def private_files() -> Iterator[None]:
    """Let what is written inside be its owner's only: folders 0700, files 0600.

    The mask belongs to the whole process. A client's messages are handled one after
    another, so nothing else writes meanwhile.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class PairStore:
    """Prompts and rationales of one source, kept from round to round.

    Parameters
    ----------
    folder : Path
        This run's folder inside the node's state folder.
    source : str
        `fedcot`, `distil`, `random-bank` or `self-rationale`.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._path = folder / f"{source}.json"
        self._entries: dict[str, dict[str, Any]] = read_json(self._path, default={})

    def put_question(self, key: str, question: str, *, by: str = "") -> None:
        """Remember which question the teacher will see for a key.

        Parameters
        ----------
        by : str
            Hash of the channel that released it.
        """
        entry = self._entries.setdefault(key, {})
        if entry.get("by", by) != by:
            # Another question now, so an earlier answer is no answer to it.
            entry.pop("rationale", None)
        entry.update(question=question, by=by)

    def put_rationale(self, key: str, text: str, answer: str, *, parsed: bool) -> None:
        """Remember an answer; an unparsable one is remembered as such.

        Keys that were never asked are ignored: the server cannot plant pairs.
        """
        if key in self._entries:
            entry = {"text": text, "answer": answer} if parsed else None
            self._entries[key]["rationale"] = entry

    def has_question(self, key: str, *, by: str = "") -> bool:
        """Whether a channel released a question for this key before in this run."""
        return self._entries.get(key, {}).get("by") == by

    def answered(self) -> dict[str, dict[str, Any]]:
        """Return the entries that have been answered, in the order they were asked."""
        return {k: v for k, v in self._entries.items() if "rationale" in v}

    def save(self) -> None:
        """Write the entries durably."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self._entries)


def read_json(path: Path, *, default: Any) -> Any:
    """Return the content of a JSON file, or the default where there is none."""
    if not path.exists():
        return default
    return json.loads(path.read_text(encoding="utf-8"))


def _integer(node_config: Mapping[str, Any], key: str) -> int:
    value = node_config.get(key)
    if type(value) is not int:
        raise ConfigError(
            f"`{key}` must be a whole number in the node config, found {value!r}; "
            "pass for example --node-config 'partition-id=0 num-partitions=2'."
        )
    return value


def _flag(node_config: Mapping[str, Any], key: str) -> bool:
    value = node_config.get(key, False)
    if type(value) is not bool:
        raise ConfigError(
            f"`{key}` must be true or false in the node config, found {value!r}."
        )
    return value


def _one_model(node_config: Mapping[str, Any], key: str) -> str:
    value = node_config.get(key, "")
    if type(value) is not str or "," in value:
        raise ConfigError(
            f"`{key}` must name one model in the node config, found {value!r}; pass "
            f"for example --node-config '{key}=\"/srv/model\"'."
        )
    return value.strip()


def _share(node_config: Mapping[str, Any], key: str, default: float) -> float:
    value = node_config.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ConfigError(
            f"`{key}` must be in [0, 1] in the node config, found {value!r}; pass for "
            f"example --node-config '{key}={default}'."
        )
    return float(value)


def _count(node_config: Mapping[str, Any], key: str, default: int) -> int:
    value = node_config.get(key, default)
    if type(value) is not int or value < 1:
        raise ConfigError(
            f"`{key}` must be a whole number >= 1 in the node config, found {value!r}; "
            f"pass for example --node-config '{key}={default}'."
        )
    return value


def _limit(node_config: Mapping[str, Any], key: str) -> float:
    value = node_config.get(key, UNLIMITED)
    if type(value) not in (int, float) or not value > 0:
        raise ConfigError(
            f"`{key}` must be > 0 in the node config, found {value!r}; pass for "
            f"example --node-config '{key}=250.0'."
        )
    return float(value)


def _probability(node_config: Mapping[str, Any], key: str) -> float:
    value = node_config.get(key, MAX_RECORD_DELTA)
    if type(value) is not float or not 0 < value < 1:
        raise ConfigError(
            f"`{key}` must be in (0, 1) in the node config, found {value!r}; pass for "
            f"example --node-config '{key}=1e-5'."
        )
    return value

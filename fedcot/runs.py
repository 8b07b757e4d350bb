"""The run directory: what a run leaves behind, written so that a crash loses little.

Small results are rewritten atomically, measurements are appended line by line.
"""

import fcntl
import itertools
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from fedcot.errors import ConfigError, FedcotError

RUNS_VARIABLE: Final = "FEDCOT_RUNS_DIR"
SUMMARY: Final = "summary.json"
CONFIG: Final = "config.json"
METRICS: Final = "metrics.jsonl"
PROGRESS: Final = "progress.jsonl"
RATIONALES: Final = "rationales.jsonl"
LOCK: Final = ".lock"
MEMBERS: Final = "nodes.json"
LEDGER: Final = "ledger.sqlite"


class RunDirectory:
    """One run's files under `path`.

    Parameters
    ----------
    path : Path
        An existing folder; use `create` for a new run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, run_dir: str = "", *, name: str = "run") -> Self:
        """Create the directory of a new run and point `latest` to it.

        Parameters
        ----------
        run_dir : str
            Where; empty for ``<time>-<name>`` under `default_root`. Only that form
            and folders beside it move `latest`.
        name : str
            Part of a generated folder name.

        Raises
        ------
        ConfigError
            The path is a file, holds an earlier run, or cannot be made.
        """
        root = default_root()
        path = _absolute(run_dir) if run_dir else _unused(root, name)
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"`run-dir` must be a folder that can be written, found `{path}` "
                f"({error.strerror}); pass another folder."
            ) from error
        if path.parent == root:
            _point_latest(path)
        return cls(path)

    @classmethod
    def reopen(cls, run_dir: str) -> Self:
        """Go on with a run that ended early; the ledger and all folders stay.

        Raises
        ------
        ConfigError
            There is no run, or it is done.
        """
        path = _absolute(run_dir)
        check_resumable(path)
        return cls(path)

    def put_aside(self) -> None:
        """Rename what an earlier start measured, which will be measured again."""
        for name in (METRICS, PROGRESS, RATIONALES):
            if (self.path / name).exists():
                (self.path / name).rename(_next_copy(self.path / name))

    def keep_members(self, count: int) -> None:
        """Write down how many nodes the data is split for, before any is asked.

        Raises
        ------
        FedcotError
            The run goes on with another number: records would move to other ledgers,
            and be drawn and charged once more.
        """
        before = read_members(self.path)
        if before not in (None, count):
            raise FedcotError(
                f"a run that goes on must have the {before} nodes that it had, found "
                f"{count}; start as many"
            )
        write_json(self.path / MEMBERS, {"num_nodes": count})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on this run.

        Raises
        ------
        ConfigError
            Another one does.
        """
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    "`run-dir` must not be in use, found another process at work in "
                    f"`{self.path}`; wait for its end."
                ) from error
            yield

    @property
    def run_key(self) -> str:
        """The key that the run's first start was given."""
        return str(self.read_config()["run_key"])

    def read_config(self) -> dict[str, Any]:
        """Return what `write_config` wrote."""
        return read_config(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved settings and what made the run, atomically."""
        write_json(self.path / CONFIG, config)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the results atomically: readers see all of them or the old ones."""
        write_json(self.path / SUMMARY, summary)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line per client, round and phase to `metrics.jsonl`."""
        append_line(self.path / METRICS, row)

    def append_progress(
        self, phase: str, server_round: int, done: int, total: int, **more: Any
    ) -> None:
        """Append one line to `progress.jsonl`, which `fedcot run` follows."""
        row = {"time": round(time.time(), 3), "phase": phase, "round": server_round}
        append_line(self.path / PROGRESS, {**row, "done": done, "total": total, **more})

    @property
    def ledger(self) -> Path:
        """The server's copy of what was granted and released."""
        return self.path / LEDGER

    def adapter_folder(
        self, arm: str, partition_id: int | None, *, coalition: str = ""
    ) -> Path:
        """Return the folder of an adapter: a client's, a coalition's or the mean."""
        return adapter_folder(self.path, arm, partition_id, coalition=coalition)


def adapter_folder(
    root: Path, arm: str, partition_id: int | None, *, coalition: str = ""
) -> Path:
    """Return ``adapters/<arm>/`` with ``partition-N``, a coalition or ``global``."""
    leaf = coalition or "global"
    if partition_id is not None:
        leaf = f"partition-{partition_id}"
    return root / "adapters" / arm / leaf


def new_run_key() -> str:
    """Return 16 hex digits that name this run in the state folders of its nodes."""
    return secrets.token_hex(8)


def default_root() -> Path:
    """Return `$FEDCOT_RUNS_DIR`, or ``runs`` under the current folder.

    Raises
    ------
    ConfigError
        The current folder no longer exists.
    """
    return _absolute(os.environ.get(RUNS_VARIABLE) or "runs")


def check_free(path: Path) -> None:
    """Refuse a path where a run cannot be put without harm.

    Raises
    ------
    ConfigError
        The path or a folder above it is a file, or an earlier run lies there.
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(
                f"`run-dir` must be a folder, found the file `{place}`; pass another "
                "folder, or nothing for runs/<time>-<name>."
            )
    if (path / CONFIG).exists() or (path / SUMMARY).exists():
        raise ConfigError(
            f"`run-dir` must not hold an earlier run, found one in `{path}`; pass "
            "another folder, or nothing for runs/<time>-<name>."
        )


def check_resumable(path: Path) -> None:
    """Refuse a folder that holds no run to go on with.

    Raises
    ------
    ConfigError
        There is no run, or it is done.
    """
    read_config(path)
    summary = path / SUMMARY
    status = ""
    if summary.is_file():
        status = str(json.loads(summary.read_text(encoding="utf-8")).get("status"))
    if status == "completed":
        raise ConfigError(
            f"`RUN_DIR` must hold a run that ended early, found `{path}` completed; "
            "start a new one with `fedcot run`."
        )


def read_members(path: Path) -> int | None:
    """Return how many nodes a run has; None where it did not get so far."""
    place = path / MEMBERS
    if not place.is_file():
        return None
    return int(json.loads(place.read_text(encoding="utf-8"))["num_nodes"])


def read_config(path: Path) -> dict[str, Any]:
    """Return the `config.json` of a run directory.

    Raises
    ------
    ConfigError
        There is none.
    """
    try:
        content: dict[str, Any] = json.loads(
            (path / CONFIG).read_text(encoding="utf-8")
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"`RUN_DIR` must be a run directory, found no readable `{path / CONFIG}`; "
            "pass for example `runs/latest`."
        ) from error
    return content


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically and durably; infinity becomes the text "inf"."""
    text = json.dumps(portable(content), indent=2, allow_nan=False) + "\n"
    part = part_of(path)
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def part_of(path: Path) -> Path:
    """Return a new name beside a file or folder, for what replaces it once whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON object as a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(portable(row), allow_nan=False) + "\n")


def portable(value: Any) -> Any:
    """Return the value with infinities as text and NaN as null, as JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    return value


def _absolute(path: str) -> Path:
    place = Path(path).expanduser()
    if place.is_absolute():
        return place
    try:
        return Path.cwd() / place
    except FileNotFoundError as error:
        raise ConfigError(
            "`run-dir` must not depend on the current folder, which was deleted; "
            f"pass an absolute `run-dir` or set {RUNS_VARIABLE}."
        ) from error


def _unused(root: Path, name: str) -> Path:
    """Return a folder name that no earlier run has taken."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def _next_copy(path: Path) -> Path:
    """Return ``name.1``, ``name.2``, ...: the first that is free."""
    numbers = itertools.count(1)
    copies = (path.with_name(f"{path.name}.{number}") for number in numbers)
    return next(copy for copy in copies if not copy.exists())


def _point_latest(path: Path) -> None:
    """Let `latest` beside the run point to it; a reader never finds it missing."""
    link = path.parent / "latest"
    if link.exists() and not link.is_symlink():
        return
    part = path.parent / f".latest.{secrets.token_hex(4)}"
    part.symlink_to(path.name)
    part.replace(link)

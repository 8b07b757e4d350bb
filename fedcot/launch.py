"""One federated run through `flwr run`, followed to its end.

The steps: check everything, assemble the app, start a SuperLink, submit, follow the
run's progress file, stop what was started, read the summary.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedcot import provenance
from fedcot.app_folder import assemble_app
from fedcot.artefacts import with_artefacts
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.memory import actors_of
from fedcot.preflight import check_run
from fedcot.rules import Scalar
from fedcot.runs import (
    PROGRESS,
    RUNS_VARIABLE,
    SUMMARY,
    check_resumable,
    default_root,
    read_config,
    read_members,
)
from fedcot.settings import DATASET, RECORDED, WORLD
from fedcot.superlink import FlowerStatus, LocalSuperLink
from fedcot.tasks.mapping import shipped_mappings

DEFAULT_SUPERNODES: Final = 5
_POLL_SECONDS: Final = 0.25
_LIST_SECONDS: Final = 30.0
_PENDING_SECONDS: Final = 90.0
_LOG_FILE: Final = "flower.log"
# Settings that may name a file or folder of this machine, and what never is one.
PATHS: Final = ("teacher", "student", "dataset", "data-dir", "vocabulary", "bank")
NAMES: Final = ("", "builtin", WORLD, DATASET, RECORDED, *shipped_mappings())

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    exit_code : int
        0 done, 3 failed, 4 the privacy budget was exhausted before the work was done.
    reason : str
        One line, empty when the run is done.
    run_dir : Path
        Where everything of the run lies; `flower.log` in it holds what was printed.
    summary : dict[str, Any]
        `summary.json`, empty when the run did not get that far.
    seconds : float
        Wall time from the start of the SuperLink to the end of the run.
    """

    exit_code: int
    reason: str
    run_dir: Path
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def has_results(self) -> bool:
        """Whether there is something to show: all of it, or what the budget allowed."""
        return bool(self.summary.get("accuracy")) and "privacy" in self.summary


def launch(
    config: RunConfig,
    *,
    num_supernodes: int | None = None,
    run_dir: Path | None = None,
    on_progress: Progress = lambda line: None,
) -> Outcome:
    """Run the app on simulated nodes and wait for the end.

    Parameters
    ----------
    config : RunConfig
        Its `run_dir` is used when `run_dir` is None.
    num_supernodes : int | None
        Simulated nodes; None: `num_partitions`, or 5 where that is 0.
    run_dir : Path | None
        Where the run is written; None: `runs/<time>-<name>`.
    on_progress : Progress
        Called with every line of the run's `progress.jsonl` as it appears.

    Raises
    ------
    ConfigError
        A setting cannot work; nothing was written.
    FedcotError
        Flower did not start, or the run was stopped.
    """
    nodes = nodes_of(config, num_supernodes)
    folder = _run_dir(config, run_dir)
    config = with_artefacts(config, default_root())
    check_run(config, num_supernodes=nodes, run_dir=folder)

    started = time.monotonic()
    earlier = _file_number(folder / PROGRESS)
    environment = {
        RUNS_VARIABLE: str(default_root()),
        provenance.COMMIT_VARIABLE: provenance.git_commit() or "",
    }
    start = {"phase": "start Flower and Ray", "round": 0, "total": 1}
    on_progress({**start, "done": 0})
    with _stop_on_sigterm(), LocalSuperLink(environment) as superlink:
        run_id = superlink.submit(
            assemble_app(superlink.home),
            run_config=_write_run_config(superlink.home, config, folder),
            federation_config=_federation_config(nodes),
        )
        try:
            on_progress({**start, "done": 1})
            status = _follow(superlink, run_id, folder, on_progress, earlier)
        finally:
            _keep_log(superlink, run_id, folder)
    return _outcome(status, folder, seconds=time.monotonic() - started)


def resume(run_dir: Path, *, on_progress: Progress = lambda line: None) -> Outcome:
    """Go on with a run that ended early, on as many nodes as it had.

    What the clients released is sent again and costs nothing; rounds that a client has
    trained are not trained again, and answers in the teacher's cache are not paid for
    again.

    Parameters
    ----------
    run_dir : Path
        Of the run.
    on_progress : Progress
        As for `launch`.

    Raises
    ------
    ConfigError
        There is no run, it is done, or other code started it.
    FedcotError
        As for `launch`.
    """
    run_dir = run_dir.expanduser().absolute()
    check_resumable(run_dir)
    stated = read_config(run_dir)
    if stated.get("code_hash") != provenance.code_hash():
        raise ConfigError(
            f"`RUN_DIR` must be of the code that is installed, found `{run_dir}` made "
            "by other code; install the version that started it."
        )
    settings = {**stated["run_config"], "run-dir": str(run_dir), "resume": True}
    config = RunConfig.from_run_config(settings)
    # Before the nodes were known nothing was released, so any number may go on.
    nodes = read_members(run_dir) or config.num_partitions or None
    return launch(
        config, num_supernodes=nodes, run_dir=run_dir, on_progress=on_progress
    )


def nodes_of(config: RunConfig, num_supernodes: int | None) -> int:
    """Return how many nodes a run gets: as asked, else as the data is split, else 5."""
    if num_supernodes is not None:
        return num_supernodes
    return config.num_partitions or DEFAULT_SUPERNODES


def _keep_log(superlink: LocalSuperLink, run_id: str, folder: Path) -> None:
    """Write what the run printed; how the run ended does not depend on it."""
    try:
        log = superlink.log(run_id)
    except (FedcotError, OSError, subprocess.SubprocessError) as error:
        log = f"Flower's log could not be read: {error}\n"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _LOG_FILE).write_text(log, encoding="utf-8")


def _run_dir(config: RunConfig, run_dir: Path | None) -> Path:
    """Return where the run goes: what was given, else a new folder below `runs`."""
    if run_dir is None and config.run_dir:
        run_dir = Path(config.run_dir)
    if run_dir is not None:
        return run_dir.expanduser().absolute()
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{config.name}"
    names = itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2)))
    folders = (default_root() / name for name in names)
    return next(folder for folder in folders if not folder.exists())


def _write_run_config(home: Path, config: RunConfig, run_dir: Path) -> Path:
    """Write the run config as TOML, where a value keeps its type and its quotes."""
    values = sent_run_config(config, run_dir)
    # JSON writes these scalars as TOML reads them, floats with a dot or an exponent.
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
    ]
    path = home / "run-config.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sent_run_config(config: RunConfig, run_dir: Path) -> dict[str, Scalar]:
    """Return the run config as the app gets it.

    The app runs in a folder of its own, so a local file needs its full path.
    """
    values = {**config.to_run_config(), "run-dir": str(run_dir)}
    for key in PATHS:
        place = Path(str(values[key])).expanduser()
        if values[key] not in NAMES and place.exists():
            values[key] = str(place.absolute())
    if config.teacher_cache:
        values["teacher-cache"] = str(
            Path(config.teacher_cache).expanduser().absolute()
        )
    return values


def _federation_config(num_supernodes: int) -> dict[str, int]:
    """One processor and one thread per client, no more actors than clients.

    Two threads on two busy cores are several times slower than one.
    """
    return {
        "num-supernodes": num_supernodes,
        "client-resources-num-cpus": 1,
        "init-args-num-cpus": actors_of(num_supernodes),
    }


def _follow(
    superlink: LocalSuperLink,
    run_id: str,
    run_dir: Path,
    on_progress: Progress,
    earlier: int | None,
) -> FlowerStatus:
    """Pass progress on until Flower says that the run is over."""
    lines = _new_lines(run_dir / PROGRESS, earlier)
    began = asked = time.monotonic()
    was_alive = False
    while True:
        for line in next(lines):
            on_progress(line)
        now = time.monotonic()
        alive = superlink.simulation_is_alive()
        ended = was_alive and not alive
        was_alive = was_alive or alive
        if not was_alive and now - began > _PENDING_SECONDS:
            raise FedcotError(
                f"the run stayed pending for {_PENDING_SECONDS:.0f} s; "
                f"see {run_dir / _LOG_FILE}"
            )
        if ended or now - asked > (_LIST_SECONDS if was_alive else 5.0):
            status, asked = superlink.status(run_id), time.monotonic()
            if status.finished:
                for line in next(lines):
                    on_progress(line)
                return status
        time.sleep(_POLL_SECONDS)


def _file_number(path: Path) -> int | None:
    return path.stat().st_ino if path.is_file() else None


def _new_lines(
    path: Path, earlier: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Yield, each time it is asked, the whole lines that were added to a file.

    The file of an earlier start lies there until the run puts it aside.
    """
    position, rest = 0, b""
    while True:
        if _file_number(path) not in (None, earlier):
            with path.open("rb") as file:
                file.seek(position)
                added = file.read()
            position += len(added)
            *whole, rest = (rest + added).split(b"\n")
            yield [json.loads(line) for line in whole if line.strip()]
        else:
            yield []


def _outcome(status: FlowerStatus, run_dir: Path, *, seconds: float) -> Outcome:
    summary = read_summary(run_dir)
    said = str(summary.get("status", ""))
    if status.status == "finished:completed" and said == "completed":
        return Outcome(0, "", run_dir, seconds, summary)
    if said == "budget-exhausted":
        reason = "the privacy budget was exhausted before the work was done"
        if why := str(summary.get("reason", "")):
            reason = f"{reason}: {why}; raise `record-epsilon` or ask for less"
        return Outcome(4, reason, run_dir, seconds, summary)
    details = " ".join(status.details.split())
    reason = details if details not in ("", "N/A") else f"the summary says {said!r}"
    if not summary:
        reason = f"{reason} (no summary was written)"
    reason = f"{reason}; see {run_dir / _LOG_FILE}"
    return Outcome(3, reason, run_dir, seconds, summary)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return `summary.json` of a run directory, or nothing where there is none."""
    path = run_dir / SUMMARY
    if not path.is_file():
        return {}
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise FedcotError("the run was stopped by a signal")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

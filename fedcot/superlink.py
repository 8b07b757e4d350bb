"""A local SuperLink that belongs to one run, and the `flwr` commands sent to it.

Flower's own background SuperLink keeps the folder and the environment of the first
run that started it and is never stopped. This one has its own `FLWR_HOME`, its own
port and its own environment, and ends with the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

from fedcot.errors import FedcotError

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 60.0
# Ray keeps UNIX sockets below its folder, and their paths may have 107 bytes.
_LONGEST_RAY_FOLDER: Final = 40

# What a run may do without being asked: no telemetry, no update check, no download,
# no second installation of the dependencies, one thread per client.
_ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class FlowerStatus:
    """What `flwr list` says about a run."""

    status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether the run is over, for better or worse."""
        return self.status.startswith("finished")


class LocalSuperLink:
    """Start a SuperLink for simulations, talk to it and stop all it started.

    Parameters
    ----------
    environment : Mapping[str, str]
        Variables that the app should see, beside those of this process.

    Raises
    ------
    FedcotError
        A command is missing, the SuperLink does not start, or Flower refuses.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fedcot-"))
        self._environment = {**_environment_of(self.home), **environment}
        self._output = self.home / "superlink.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start, and wait until the SuperLink answers."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, whatever happened."""
        self.stop()

    def submit(
        self, app: Path, *, run_config: Path, federation_config: Mapping[str, int]
    ) -> str:
        """Hand an app to `flwr run` and return the run's id."""
        federation = " ".join(f"{key}={val}" for key, val in federation_config.items())
        answer = self._flwr(
            "run",
            str(app),
            "--run-config",
            str(run_config),
            "--federation-config",
            federation,
            "--format",
            "json",
        )
        return str(answer["run-id"])

    def status(self, run_id: str) -> FlowerStatus:
        """Ask `flwr list` for the state of a run."""
        answer = self._flwr("list", "--run-id", run_id, "--format", "json")
        run = answer["runs"][0]
        return FlowerStatus(str(run["status"]), str(run["status-details"]))

    def log(self, run_id: str) -> str:
        """Return what the run printed, then what the SuperLink did."""
        try:
            shown = self._call([_script("flwr"), "log", run_id, "--show"]).stdout
        # The SuperLink's own output is at hand even when it no longer answers.
        except FedcotError as error:
            shown = f"{error}\n"
        return shown + "\n" + self._output.read_text(encoding="utf-8", errors="replace")

    def simulation_is_alive(self) -> bool:
        """Tell whether Flower's simulation process exists; asking is cheap.

        `flwr list` costs most of a second of processor time, so it is asked only when
        this answer changes.
        """
        if self._process is None:
            return False
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.Error:
            return False
        return any("flwr-simulation" in _command(child) for child in children)

    def stop(self) -> None:
        """End the SuperLink and every process that carries its `FLWR_HOME`."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        # Ray may start a worker while its parents are being ended, so look again.
        while (left := self._family()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=1.0)
        self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self) -> None:
        port = _free_port()
        config = (
            '[superlink]\ndefault = "local"\n\n[superlink.local]\n'
            f'address = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        (self.home / "config.toml").write_text(config, encoding="utf-8")
        with self._output.open("wb") as output:
            # A session of its own: Ctrl-C reaches this process alone, which then
            # stops the others in order.
            self._process = subprocess.Popen(
                [
                    _script("flower-superlink"),
                    "--insecure",
                    "--simulation",
                    "--isolation=subprocess",
                    "--host=127.0.0.1",
                    f"--port={port}",
                    "--disable-runtime-dependency-installation",
                ],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._output.read_text(errors="replace").strip()[-300:]
                raise FedcotError(f"the local SuperLink did not start: {_line(tail)}")
            time.sleep(0.1)

    def _family(self) -> list[psutil.Process]:
        """Find our processes by `FLWR_HOME`: Ray's agents lose their parents."""
        ours = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == "zombie":
                    continue
                if process.environ().get("FLWR_HOME") == str(self.home):
                    ours.append(process)
        return ours

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        done = self._call([_script("flwr"), *arguments])
        try:
            answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError as error:
            said = _line(done.stderr or done.stdout)
            raise FedcotError(f"`flwr {arguments[0]}` failed: {said}") from error
        if not answer.get("success"):
            said = _line(str(answer.get("error-message", answer)))
            raise FedcotError(f"`flwr {arguments[0]}` failed: {said}")
        return answer

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FedcotError(
                f"`flwr {command[1]}` did not answer within {COMMAND_SECONDS:.0f} s"
            ) from error


def _environment_of(home: Path) -> dict[str, str]:
    """Return this process's environment with ours laid over it."""
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, **_ENVIRONMENT, "FLWR_HOME": str(home)}
    environment["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    if len(str(home)) <= _LONGEST_RAY_FOLDER:
        environment["RAY_TMPDIR"] = str(home)
    return environment


def _script(name: str) -> str:
    """Return a command that lies beside this interpreter."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise FedcotError(
            f"`{name}` must lie beside {sys.executable}; install it with "
            "`pip install 'flwr[simulation]'`."
        )
    return str(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_healthy(port: int) -> bool:
    # No proxy of the environment may stand between us and this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _line(text: str) -> str:
    return " ".join(text.split())[:300] or "it said nothing"

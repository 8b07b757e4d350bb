"""Social learning on a real SuperLink, with owners who do and do not let texts out."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcot.app_folder import assemble_app
from fedcot.social.inspection import MessageLog
from tests.deployment.test_community_deployment import environment  # noqa: F401
from tests.deployment.test_deployment import (
    RUN_SECONDS,
    SCRIPTS,
    flwr,
    free_port,
    wait_until_healthy,
)
from tests.deployment.test_social_ray import SETTINGS

pytestmark = [pytest.mark.deployment, pytest.mark.slow]
# The third owner has not said that texts may leave.
OWNERS = ("allow-sharing=true", "allow-sharing=true", "allow-sharing=false")


@pytest.fixture(name="address")
def superlink_of_owners(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:  # noqa: F811
    """Start a SuperLink and three teacher clients, and end all that they started."""
    address = f"127.0.0.1:{(port := free_port())}"
    processes = []

    def start(name: str, *arguments: str) -> None:
        with (tmp_path / f"{name}.log").open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [str(SCRIPTS / arguments[0]), *arguments[1:]],
                    cwd=tmp_path,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    plain = ("--insecure", "--host=127.0.0.1")
    try:
        start(
            "superlink",
            *("flower-superlink", *plain, f"--port={port}"),
            "--disable-runtime-dependency-installation",
        )
        wait_until_healthy(port)
        for partition, owner in enumerate(OWNERS):
            start(
                f"supernode-{partition}",
                *("flower-supernode", *plain, "--superlink", address),
                f"--port={free_port()}",
                "--node-config",
                f"partition-id={partition} num-partitions=3 max-record-epsilon=200.0 "
                f"state-dir={json.dumps(str(tmp_path / f'node-{partition}'))} "
                f'client-model="builtin-small" gate-distance=0.0 {owner}',
            )
        yield address
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_owners_decide_who_teaches(tmp_path, environment, address):  # noqa: F811
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{address}"\n'
        "insecure = true\n"
    )
    given = {
        **SETTINGS,
        # The run cannot choose the model, nor open the gate.
        "client-model": "builtin",
        "num-partitions": 3,
        "phase-timeout": 120.0,
    }
    written = " ".join(f"{key}={json.dumps(value)}" for key, value in given.items())
    started = flwr(
        environment, "run", str(assemble_app(tmp_path)), "--run-config", written
    )
    assert started["success"], started
    run_id = str(started["run-id"])
    deadline = time.monotonic() + RUN_SECONDS
    status = ""
    while not status.startswith("finished") and time.monotonic() < deadline:
        time.sleep(2)
        status = flwr(environment, "list", "--run-id", run_id)["runs"][0]["status"]
    log = (tmp_path / "superlink.log").read_text(errors="replace")
    assert status == "finished:completed", log[-3000:]

    run = (tmp_path / "runs" / "latest").resolve()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_partitions"] == 2
    assert len(summary["failures"]) == 1
    told = summary["social"]
    assert [set(*step["sent"].values()) for step in told["protocol"]["steps"]] == [
        {0, 1}
    ] * 3
    # The server tests its student on public questions; no client scores or counts.
    assert summary["accuracy"]["random"]["mean"] > 0.9
    assert "original" not in summary["accuracy"]
    assert told["generation"]["sampled"] == 0
    assert not (run / "nodes").exists()
    for partition in (0, 1):
        (book,) = (tmp_path / f"node-{partition}").glob("*/messages.jsonl")
        sent = [line for line in MessageLog(book).read() if line.left]
        assert [line.kind for line in sent].count("vote") == 1
        assert book.stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "node-2").glob("*/messages.jsonl"))

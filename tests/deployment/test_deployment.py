"""One round on a real SuperLink with two SuperNodes on this machine.

Every message starts a fresh process here, so nothing that a client needs later may
live in memory: ledger, pairs and adapters have to be in its folder.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcot.app_folder import assemble_app
from fedcot.report.ledgers import read_ledgers
from tests.deployment.models import save_tiny_model

pytestmark = pytest.mark.deployment
SCRIPTS = Path(sys.executable).parent
START_SECONDS, RUN_SECONDS = 60.0, 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FEDCOT_RUNS_DIR": str(tmp_path / "runs"),
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def superlink(tmp_path, environment) -> Iterator[str]:
    """Start a SuperLink and two SuperNodes, and end them with all they started."""
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

    try:
        start(
            "superlink",
            "flower-superlink",
            "--insecure",
            "--host=127.0.0.1",
            f"--port={port}",
            "--disable-runtime-dependency-installation",
        )
        wait_until_healthy(port)
        for partition in range(2):
            state = json.dumps(str(tmp_path / f"node-{partition}"))
            start(
                f"supernode-{partition}",
                "flower-supernode",
                "--insecure",
                "--superlink",
                address,
                "--host=127.0.0.1",
                f"--port={free_port()}",
                "--node-config",
                f"partition-id={partition} num-partitions=2 state-dir={state} "
                "max-record-epsilon=200.0",
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


def wait_until_healthy(port: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if opener.open(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                return
        time.sleep(0.2)
    pytest.fail("the SuperLink did not start")


def flwr(environment: dict[str, str], *arguments: str) -> dict:
    done = subprocess.run(
        [str(SCRIPTS / "flwr"), *arguments, "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout[done.stdout.index("{") :])


def run_config(model: Path) -> str:
    settings = {
        "teacher": str(model),
        "student": str(model),
        "arms": "standalone,distil,fedcot",
        "num-server-rounds": 1,
        "num-partitions": 2,
        "num-records": 8,
        "records-per-round": 4,
        "test-records": 2,
        "local-epochs": 1,
        "batch-size": 4,
        "lora-r": 2,
        "max-new-tokens": 8,
        "phase-timeout": 120.0,
    }
    return " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())


def test_one_round_on_deployed_nodes(tmp_path, environment, superlink):
    model = save_tiny_model(tmp_path / "model")
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{superlink}"\n'
        "insecure = true\n"
    )
    app = assemble_app(tmp_path)
    started = flwr(environment, "run", str(app), "--run-config", run_config(model))
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
    assert summary["status"] == "completed"
    assert summary["failures"] == []
    # Raw prompts were not allowed, so the arm that needs them was left out, and no
    # node sent a loss or an accuracy.
    assert list(summary["privacy"]["per_arm"]) == ["standalone", "fedcot"]
    assert list(summary["accuracy"]) == ["teacher"]
    assert summary["privacy"]["per_arm"]["fedcot"]["uncharged"] == [
        "response times and failures of clients"
    ]
    epsilon = summary["privacy"]["per_arm"]["fedcot"]["record_epsilon_max"]
    rows = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    assert not any("arm" in row for row in rows)
    assert {row["num_fresh"] for row in rows if row["phase"] == "perturb"} == {4}
    # What a node keeps is in its own folder, and nothing of it in the run's.
    assert not (run / "nodes").exists()
    for partition in range(2):
        state = tmp_path / f"node-{partition}"
        (use,) = read_ledgers(state)
        assert (use.records, use.releases, use.seeded) == (4, 4, 0)
        assert use.max_epsilon == epsilon
        kept = list(
            state.glob(f"*/adapters/fedcot/partition-{partition}/*.safetensors")
        )
        assert len(kept) == 1
        assert list(state.glob("*/metrics.jsonl"))
        assert not (state / "errors.log").exists()

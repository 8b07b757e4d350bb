"""Communities on a real SuperLink, with members whose owners filled their stores.

What the server received is written down by a few lines that the test adds to its copy
of the app; the nodes run that copy too and are asked as always.
"""

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
from fedcot.community.consent import TraceStore
from fedcot.data.traces import Scope, Trace, TraceClass
from tests.deployment.models import save_tiny_model
from tests.deployment.test_deployment import (
    RUN_SECONDS,
    SCRIPTS,
    flwr,
    free_port,
    wait_until_healthy,
)

pytestmark = [pytest.mark.deployment, pytest.mark.slow]
NAMES = ("library", "bakery")

LISTENER = """

def _listen() -> None:
    import os
    from pathlib import Path

    from fedcot.records import serialise

    honest = CommunityIntake.take

    def take(self, state, answer):
        folder = Path(os.environ["FEDCOT_RUNS_DIR"]) / "received"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(list(folder.iterdir()))}-{answer.message_type}"
        (folder / name).write_bytes(serialise(answer.content))
        honest(self, state, answer)

    CommunityIntake.take = take


_listen()
"""


def traces(community: str) -> list[Trace]:
    """Return a trace of each scope, with a word that stands nowhere else."""
    return [
        Trace(
            question=f"{community}{scope.value}zircon has 3 books 2 come back how many",
            reasoning="3 + 2 = 5",
            answer="5",
            trace_class=TraceClass.FULL,
            scope=scope,
        )
        for scope in Scope
    ]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
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


@pytest.fixture(name="address")
def superlink_of_owners(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """Start a SuperLink and two members, and end them with all they started."""
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
        for partition, community in enumerate(NAMES):
            folder = tmp_path / f"node-{partition}"
            with TraceStore(folder / "traces", community=community) as store:
                store.add(traces(community))
            start(
                f"supernode-{partition}",
                "flower-supernode",
                "--insecure",
                "--superlink",
                address,
                "--host=127.0.0.1",
                f"--port={free_port()}",
                "--node-config",
                f"partition-id={partition} num-partitions=2 max-record-epsilon=200.0 "
                f"state-dir={json.dumps(str(folder))} "
                f"community={json.dumps(community)} "
                f"partners={json.dumps(','.join(NAMES))}",
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


def run_config(model: Path) -> str:
    settings = {
        "teacher": str(model),
        "student": str(model),
        "mode": "community",
        "communities": ",".join(NAMES),
        "coalitions": "grand",
        "sharing": "pooled,federated",
        "trace-filter": "none",
        "hold-out": 0,
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


def test_deployed_members_send_what_their_owners_permit(tmp_path, environment, address):
    model = save_tiny_model(tmp_path / "model")
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{address}"\n'
        "insecure = true\n"
    )
    app = assemble_app(tmp_path)
    with (app / "strategies" / "community_intake.py").open("a") as file:
        file.write(LISTENER)
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
    received = sorted((tmp_path / "runs" / "received").iterdir())
    kinds = [path.name.partition("-")[2] for path in received]
    assert sorted(kinds) == sorted(
        2
        * [
            "evaluate.students",
            "query.identify",
            "query.traces",
            "train.coalition",
        ]
    )
    everything = b"".join(path.read_bytes() for path in received)
    for community in NAMES:
        found = {
            s for s in Scope if f"{community}{s.value}zircon".encode() in everything
        }
        assert found == {Scope.COALITION, Scope.PUBLIC}
    for path, kind in zip(received, kinds, strict=True):
        assert kind == "query.traces" or b"zircon" not in path.read_bytes()
    # The nodes kept their scores, and list what each trace has reached.
    assert summary["accuracy"] == {}
    assert summary["community"]["students"]["pooled.library+bakery"]["num_traces"] == 4
    assert not (run / "nodes").exists()
    for partition, community in enumerate(NAMES):
        folder = tmp_path / f"node-{partition}"
        assert not (folder / "errors.log").exists()
        with TraceStore(folder / "traces", community=community) as store:
            for trace in store.active():
                purposes = sorted(one.purpose for one in store.reached(trace.key))
                is_wide = trace.scope in (Scope.COALITION, Scope.PUBLIC)
                assert purposes == (["federated", "pooled"] if is_wide else [])

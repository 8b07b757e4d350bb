"""The app through a bare `flwr run`, without our wrapper around it.

Flower then starts a SuperLink in the background that outlives the run and keeps the
folder and the environment of the first run; each test gives it a home of its own and
ends it.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedcot.app_folder import assemble_app
from fedcot.launch import read_summary
from fedcot.superlink import _free_port
from tests.deployment.models import save_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SECONDS = 300.0


@pytest.fixture
def environment(tmp_path) -> Iterator[dict[str, str]]:
    """Return the environment of a user with a fresh Flower home; end what it starts."""
    home = tmp_path / "home"
    home.mkdir()
    own = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Not the ports that another local SuperLink of this machine may hold.
        "FLWR_LOCAL_CONTROL_API_PORT": str(_free_port()),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "FEDCOT_RUNS_DIR": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    # As for a user: the code comes from the app folder and from nowhere else.
    inherited = {key: val for key, val in os.environ.items() if key != "PYTHONPATH"}
    try:
        yield {**inherited, **own}
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == str(home):
                    process.kill()


def flwr_run(folder: Path, environment: dict[str, str], settings: dict) -> str:
    """Run `flwr run . --stream` in an app folder and return what it printed."""
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    done = subprocess.run(
        ["flwr", "run", ".", "--stream", "--run-config", text],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def settings_for(model: Path, run_dir: Path) -> dict:
    return {
        "teacher": str(model),
        "student": str(model),
        "arms": "standalone,fedcot",
        "num-server-rounds": 1,
        "num-records": 8,
        "records-per-round": 4,
        "test-records": 2,
        "local-epochs": 1,
        "batch-size": 4,
        "lora-r": 2,
        "max-new-tokens": 8,
        "phase-timeout": 120.0,
        "run-dir": str(run_dir),
    }


def code_hash_of(run_dir: Path) -> str:
    return json.loads((run_dir / "config.json").read_text())["code_hash"]


def test_a_bare_run_works_and_another_folder_never_mixes_code(tmp_path, environment):
    model = save_tiny_model(tmp_path / "model")
    first = assemble_app(tmp_path / "first")
    run_dir = tmp_path / "runs" / "one"
    printed = flwr_run(first, environment, settings_for(model, run_dir))
    summary = read_summary(run_dir)
    assert summary.get("status") == "completed", printed[-3000:]
    # The default federation has two nodes, and all of them took part.
    assert summary["num_partitions"] == 2
    assert summary["failures"] == []
    assert f"Run directory: {run_dir}" in printed

    # Another checkout's run on the SuperLink that the first one left behind.
    second = assemble_app(tmp_path / "second")
    with (second / "fedcot" / "__init__.py").open("a") as file:
        file.write("\n# another version of the code\n")
    other = tmp_path / "runs" / "two"
    printed = flwr_run(second, environment, settings_for(model, other))
    summary = read_summary(other)
    if summary.get("status") == "completed":
        assert code_hash_of(other) != code_hash_of(run_dir)
    else:
        assert summary.get("status") == "failed", printed[-3000:]
        assert "other code" in summary["reason"]

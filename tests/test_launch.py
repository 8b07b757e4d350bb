"""`fedcot run` through Flower and Ray: exit codes, what is left, what is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcot.errors import FedcotError
from fedcot.launch import Outcome, _keep_log, _new_lines, _outcome
from fedcot.superlink import FlowerStatus, LocalSuperLink
from tests.deployment.processes import flower_homes
from tests.tiny import tiny_base

SMALL = {
    "num-records": 12,
    "records-per-round": 4,
    "test-records": 3,
    "local-epochs": 1,
    "max-new-tokens": 8,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return the folder of a random model that runs in a moment."""
    folder = tmp_path_factory.mktemp("model")
    base = tiny_base()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def start(folder: Path, model: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a small run in a folder that is not the checkout."""
    settings = {**SMALL, "teacher": model, "student": model}
    command = [sys.executable, "-m", "fedcot.cli", "run", "--num-supernodes", "2"]
    for key, value in settings.items():
        command += ["-c", f"{key}={value}"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_an_exhausted_budget_is_exit_4(tmp_path, model):
    process = start(tmp_path, model, "-c", "record-epsilon=1.0")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 4
    assert len(err.strip().splitlines()) == 1
    assert "budget" in err
    assert "one prompt costs 168 nats" in err
    assert "record-epsilon" in err


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_fails_in_flower_is_exit_3_in_one_line(tmp_path, model):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    process = start(tmp_path, model, "-c", f"teacher={broken}", "--run-dir", "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3
    assert len(err.strip().splitlines()) == 1
    assert "flower.log" in err
    assert (tmp_path / "run" / "flower.log").stat().st_size > 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_stops_everything_it_started(tmp_path, model, number):
    before = flower_homes()
    process = start(tmp_path, model)
    deadline = time.monotonic() + 60
    while flower_homes() <= before and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(8)  # Ray is starting by now
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert len(err.strip().splitlines()) == 1
    assert flower_homes() <= before


def outcome(folder: Path, status: str, summary: dict[str, object] | None) -> Outcome:
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return _outcome(FlowerStatus(status, "N/A"), folder, seconds=1.0)


@pytest.mark.parametrize(
    ("status", "summary", "code"),
    [
        ("finished:completed", {"status": "completed"}, 0),
        ("finished:completed", {"status": "budget-exhausted"}, 4),
        ("finished:failed", {"status": "budget-exhausted"}, 4),
        # Flower may call a run completed that never wrote its results.
        ("finished:completed", None, 3),
        ("finished:completed", {"status": "failed"}, 3),
        ("finished:failed", {"status": "completed"}, 3),
        ("finished:stopped", None, 3),
    ],
)
def test_exit_codes_need_both_flower_and_the_summary(tmp_path, status, summary, code):
    ended = outcome(tmp_path, status, summary)
    assert ended.exit_code == code
    assert bool(ended.reason) == (code != 0)


def test_progress_lines_are_read_whole_and_once(tmp_path):
    path = tmp_path / "progress.jsonl"
    lines = _new_lines(path)
    assert next(lines) == []
    path.write_text('{"done": 1}\n{"done"')
    assert next(lines) == [{"done": 1}]
    with path.open("a") as file:
        file.write(": 2}\n")
    assert next(lines) == [{"done": 2}]
    assert next(lines) == []


class SilentSuperLink:
    """Stands in for a SuperLink whose log cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def log(self, run_id: str) -> str:
        raise self.error


@pytest.mark.parametrize(
    "error", [FedcotError("`flwr log` did not answer"), OSError("gone")]
)
def test_a_log_that_cannot_be_read_does_not_fail_a_run(tmp_path, error):
    _keep_log(SilentSuperLink(error), "1", tmp_path / "run")
    assert str(error) in (tmp_path / "run" / "flower.log").read_text()
    # Nor does a run directory that cannot be written any more.
    (tmp_path / "file").touch()
    _keep_log(SilentSuperLink(error), "1", tmp_path / "file")


def test_a_slow_flwr_log_still_leaves_what_the_superlink_printed(monkeypatch):
    superlink = LocalSuperLink({})
    superlink._output.write_text("what it printed")

    def slow(command):
        raise FedcotError("`flwr log` did not answer within 60 s")

    monkeypatch.setattr(superlink, "_call", slow)
    try:
        assert "what it printed" in superlink.log("1")
    finally:
        superlink.stop()

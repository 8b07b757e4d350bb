"""What batches are worth, measured by the benchmark itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_batches_are_five_times_as_fast_and_change_no_completion(
    repository: Path,
) -> None:
    """Ratios inside one process: the speed of the machine cancels out."""
    script = repository / "benchmarks" / "teacher_throughput.py"
    asked = ["--json", "--prompts", "128", "--repeats", "1", "--at-least", "5"]
    done = subprocess.run(
        [sys.executable, "-P", str(script), *asked],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [row["differing"] for row in found["batches"]] == [0] * 7
    assert found["best"]["ratio"] >= 5
    assert found["prefix"]["differing"] == 0
    assert found["prefix"]["ratio"] > 1

"""The benchmark of levels: what it reads, and what its result file says of itself."""

import json
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fedcot.community.level_data import ANSWER_FILE, HUMAN_FILE, LEVEL_FILES
from fedcot.community.step_text import count_words

ROOT = Path(__file__).resolve().parent.parent
# `benchmarks` is no package; its scripts import each other by name.
sys.path.append(str(ROOT / "benchmarks"))
granularity_runs = import_module("granularity_runs")


def write_files(folder):
    """Write four questions whose level k has k steps of three words."""
    folder.mkdir()
    for name in (*LEVEL_FILES, HUMAN_FILE, ANSWER_FILE):
        level = LEVEL_FILES.index(name) + 1 if name in LEVEL_FILES else 1
        rows = [
            {
                "instruction": f"What is {n}?",
                "output": str(n)
                if name == ANSWER_FILE
                else f"{'Take a step. ' * level}The answer is {n}",
            }
            for n in range(4)
        ]
        (folder / name).write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture(name="measured")
def _measured(tmp_path, monkeypatch):
    """Run the benchmark for one level without students; return result and calls."""
    write_files(tmp_path / "svamp_levels")
    (tmp_path / "student").mkdir()
    written = []

    def write(folder, level, out, **more):
        written.append((level, more["padded_to"]))
        return write_level_mapping(folder, level, out, **more)

    write_level_mapping = granularity_runs.write_level_mapping
    measures = {name: {} for name in granularity_runs.MEASURES}
    given = ["--only", "3", "--folder", str(tmp_path / "runs")]
    given += ["--output", str(tmp_path / "levels.json")]
    monkeypatch.setenv("FEDCOT_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["granularity_runs.py", *given])
    monkeypatch.setattr(granularity_runs, "STUDENT", tmp_path / "student")
    monkeypatch.setattr(granularity_runs, "student_measure", lambda _: count_words)
    monkeypatch.setattr(granularity_runs, "write_level_mapping", write)
    monkeypatch.setattr(granularity_runs, "_run", lambda *_: measures)
    granularity_runs.main()
    return json.loads((tmp_path / "levels.json").read_text()), written, given


def test_each_variant_is_written_once(measured):
    result, written, _ = measured
    # Level 0 takes the questions of level 1.
    plain = [(level, 0) for level in (1, 1, 2, 3, 4, 5, 6)]
    assert written == [*plain, (1, 6)]
    # Three words a step, and four of the answer.
    assert result["levels"]["used_tokens"]["medians"] == [7, 10, 13, 16, 19, 22]
    assert list(result["variants"]) == ["3"]


def test_the_result_says_how_it_was_made(measured):
    result, _, given = measured
    script = ["python", "-P", "benchmarks/granularity_runs.py"]
    assert shlex.split(result["command"]) == [*script, *given]


def test_an_interval_over_seeds_is_students():
    found = granularity_runs._interval([0.1, 0.2, 0.3, 0.4, 0.5])
    # s = sqrt(0.025); t of 4 degrees at 97.5 % is 2.776445.
    reach = 2.776445 * (0.025 / 5) ** 0.5
    assert (found["mean"], found["n"]) == (pytest.approx(0.3), 5)
    assert found["high"] - 0.3 == pytest.approx(reach, abs=1e-6)
    assert found["low"] - 0.3 == pytest.approx(-reach, abs=1e-6)
    assert granularity_runs._interval([0.5]) == {"mean": 0.5, "n": 1}

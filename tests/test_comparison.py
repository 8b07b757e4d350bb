"""Comparisons add up what finished runs wrote, and run each seed once."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedcot import comparison
from fedcot.comparison import collect, compare, correct_answers, write_comparison
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.launch import Outcome

CONFIG = RunConfig(token_epsilon=8.0, arms="standalone,random-bank,fedcot")
MADE: dict[str, Any] = {
    "code_hash": "c0de",
    "versions": {"torch": "2.13"},
    "artefacts": {"teacher": "7eac", "student": "57ud"},
}
COMMIT = {"git_commit": "abc"}
TWO: dict[str, Any] = {"num_supernodes": 2}
# Right answers by arm, of two clients with four test records each.
HITS = {
    "standalone": ("0000", "0001"),
    "random-bank": ("1100", "0001"),
    "fedcot": ("1110", "1101"),
}


def _write_run(
    folder: Path, config: RunConfig, hits: dict[str, tuple[str, ...]]
) -> None:
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for arm, clients in hits.items():
        prompt = "predict" if arm == "standalone" else "explain"
        for partition, bits in enumerate(clients):
            place = {"phase": "evaluate", "arm": arm, "partition": partition}
            rows += [
                {
                    **place,
                    "round": 1,
                    "prompt": prompt,
                    "split": "test",
                    "correct": "1111",
                },
                {
                    **place,
                    "round": 2,
                    "prompt": prompt,
                    "split": "test",
                    "correct": bits,
                },
                {
                    **place,
                    "round": 2,
                    "prompt": prompt,
                    "split": "deep-test",
                    "correct": "1",
                },
                {
                    **place,
                    "round": 2,
                    "prompt": "other",
                    "split": "test",
                    "correct": "1",
                },
            ]
    lines = "".join(json.dumps(row) + "\n" for row in reversed(rows))
    (folder / "metrics.jsonl").write_text(lines)
    accuracy = {
        arm: {"mean": "".join(bits).count("1") / 8, "stderr": 0.1, "n": 8}
        for arm, bits in hits.items()
    }
    summary = {
        "status": "completed",
        "num_partitions": 2,
        "accuracy": accuracy,
        "rationale_validity": {"fedcot": 0.5},
        "privacy": {"worst_arm": "fedcot"},
        "traffic": {"uplink_bytes": 1},
        "timing": {"identify": 1.0, "distil": 2.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    stored = {"run_config": {**config.to_run_config(), "run-dir": str(folder)}}
    (folder / "config.json").write_text(json.dumps({**stored, **MADE, **COMMIT}))


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Say what the present code is; a test may change it."""
    current = copy.deepcopy({**MADE, **COMMIT})
    monkeypatch.setattr(
        comparison.provenance, "git_commit", lambda: current["git_commit"]
    )
    monkeypatch.setattr(
        comparison, "made_with", lambda config: {key: current[key] for key in MADE}
    )
    return current


class Runs:
    """Stands in for `launch`: writes a run and remembers it."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.exit_codes: dict[int, int] = {}

    def __call__(self, config: RunConfig, *, run_dir: Path, **_: object) -> Outcome:
        self.seeds.append(config.seed)
        if run_dir.exists():
            raise ConfigError("an earlier run lies there")
        _write_run(run_dir, config, HITS)
        code = self.exit_codes.pop(config.seed, 0)
        if code:
            (run_dir / "summary.json").write_text('{"status": "failed"}')
        return Outcome(code, "no client came" if code else "", run_dir, 1.0)


def test_means_errors_and_paired_tests_add_up(tmp_path: Path) -> None:
    other = {**HITS, "fedcot": ("1111", "1111")}
    _write_run(tmp_path / "a", CONFIG, HITS)
    _write_run(tmp_path / "b", CONFIG, other)
    result = collect(
        CONFIG, {0: tmp_path / "a", 1: tmp_path / "b"}, command="fedcot compare"
    )
    found = result["accuracy"]["fedcot"]
    assert found["per_seed"] == [0.75, 1.0]
    assert found["mean"] == 0.875
    assert found["stderr"] == pytest.approx(0.25 / math.sqrt(2) / math.sqrt(2))
    test = result["paired_tests"]["fedcot > random-bank"]
    # 3 + 5 records that fedcot alone has right, none the other way round.
    assert test == {"difference": 0.5, "p_value": pytest.approx(2**-8), "n": 16}
    assert result["seconds"] == [3.5, 3.5]
    assert result["settings"]["token-epsilon"] == 8.0
    assert not {"seed", "run-dir"} & result["settings"].keys()


def test_the_newest_round_under_the_declared_prompt_counts(tmp_path: Path) -> None:
    _write_run(tmp_path / "a", CONFIG, HITS)
    found = correct_answers(tmp_path / "a", "random-bank")
    assert found == [bit == "1" for bit in "11000001"]


def test_finished_seeds_are_not_run_again(tmp_path: Path) -> None:
    runs = Runs()
    for _ in range(2):
        result = compare(
            CONFIG, range(2), folder=tmp_path, command="x", run=runs, **TWO
        )
    assert runs.seeds == [0, 1]
    compare(CONFIG, range(3), folder=tmp_path, command="x", run=runs, **TWO)
    assert runs.seeds == [0, 1, 2]
    assert result["seeds"] == [0, 1]


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), **TWO)
    other = RunConfig(token_epsilon=6.0, arms=CONFIG.arms)
    with pytest.raises(ConfigError, match="another `token-epsilon`"):
        compare(other, [0], folder=tmp_path, command="x", run=Runs(), **TWO)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_be_distinct_and_some(tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        compare(CONFIG, seeds, folder=tmp_path, command="x", run=Runs(), **TWO)


def test_a_failed_run_fails_the_comparison(tmp_path: Path) -> None:
    def failing(_config: RunConfig, *, run_dir: Path, **_: object) -> Outcome:
        return Outcome(3, "no client came", run_dir, 1.0)

    with pytest.raises(FedcotError, match="seed 0 did not finish: no client came"):
        compare(CONFIG, [0], folder=tmp_path, command="x", run=failing, **TWO)


def test_one_seed_has_no_error_and_the_file_is_json(tmp_path: Path) -> None:
    result = compare(CONFIG, [4], folder=tmp_path, command="x", run=Runs(), **TWO)
    assert result["accuracy"]["fedcot"]["stderr"] is None
    write_comparison(result, tmp_path / "new" / "result.json")
    written = json.loads((tmp_path / "new" / "result.json").read_text())
    assert written["accuracy"] == result["accuracy"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("code_hash", "other"),
        ("versions", {"torch": "2.12"}),
        ("artefacts", {"teacher": "7eac", "student": "other"}),
    ],
)
def test_a_seed_of_other_code_or_models_is_refused(
    tmp_path: Path, made: dict[str, Any], key: str, value: object
) -> None:
    compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), **TWO)
    made[key] = value
    runs = Runs()
    with pytest.raises(ConfigError, match=f"another `{key}`") as caught:
        compare(CONFIG, [1, 0], folder=tmp_path, command="x", run=runs, **TWO)
    assert "\n" not in str(caught.value)
    # Seen before any other seed was run.
    assert runs.seeds == []


def test_a_seed_with_another_number_of_clients_is_refused(tmp_path: Path) -> None:
    compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), **TWO)
    with pytest.raises(ConfigError, match="another `num-partitions`"):
        compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), num_supernodes=3)


def test_the_commit_is_that_of_the_runs_and_they_agree(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), **TWO)
    made["git_commit"] = "def"
    result = compare(CONFIG, [0], folder=tmp_path, command="x", run=Runs(), **TWO)
    assert result["git_commit"] == "abc"
    runs = Runs()
    with pytest.raises(ConfigError, match="another `git_commit`"):
        compare(CONFIG, [0, 1], folder=tmp_path, command="x", run=runs, **TWO)
    assert runs.seeds == []
    _write_run(tmp_path / "one", CONFIG, HITS)
    _write_run(tmp_path / "two", CONFIG, HITS)
    stored = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(
        json.dumps({**stored, "git_commit": "def"})
    )
    with pytest.raises(ConfigError, match="one commit"):
        collect(CONFIG, {0: tmp_path / "one", 1: tmp_path / "two"}, command="x")


def test_a_failed_seed_is_moved_aside_and_run_again(tmp_path: Path) -> None:
    runs = Runs()
    for number in (1, 2):
        runs.exit_codes = {0: 3}
        with pytest.raises(FedcotError, match="seed 0 did not finish"):
            compare(CONFIG, [0], folder=tmp_path, command="x", run=runs, **TWO)
        assert len(list(tmp_path.glob("seed-0.failed-*"))) == number - 1
    result = compare(CONFIG, [0], folder=tmp_path, command="x", run=runs, **TWO)
    assert runs.seeds == [0, 0, 0]
    assert result["seeds"] == [0]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"seed-0", "seed-0.failed-1", "seed-0.failed-2"}


def test_a_local_model_is_the_same_by_its_short_and_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    short = RunConfig(token_epsilon=8.0, arms=CONFIG.arms, teacher="model")
    whole = RunConfig(
        token_epsilon=8.0, arms=CONFIG.arms, teacher=str(tmp_path / "model")
    )
    # The app writes down what it got, which is the whole path.
    compare(whole, [0], folder=tmp_path / "f", command="x", run=Runs(), **TWO)
    runs = Runs()
    compare(short, [0], folder=tmp_path / "f", command="x", run=runs, **TWO)
    assert runs.seeds == []

"""`fedcot run --dry-run` and `fedcot data`: much is said, and nothing is done."""

import dataclasses
import functools
import json
import os
import socket
from pathlib import Path

import huggingface_hub
import pytest

from fedcot import dry_run, memory
from fedcot.budget import plan_run, world_channel
from fedcot.community.level_prompts import ARITHMETIC
from fedcot.config import RunConfig, load_config
from fedcot.data.partition import load_partition
from fedcot.earlier_runs import earlier_seconds
from tests.test_cli import call

ROOT = Path(dry_run.__file__).resolve().parents[1]
DATA = os.environ.get("FEDCOT_DATA", "")
needs_data = pytest.mark.skipif(
    not DATA, reason="FEDCOT_DATA names no folder with the public datasets"
)
PARTS = {
    "config",
    "nodes",
    "models",
    "data",
    "teacher_labels",
    "partitions",
    "chance",
    "prompts",
    "privacy",
    "community",
    "social",
    "memory",
    "time",
    "downloads",
    "problems",
}
MAPPING = """
name = "sums"
[source]
train = "rows.jsonl"
test-share = 0.3
[fields]
question = "q"
answer = "a"
[answer]
kind = "numeric"
[slots]
question = 8
"""
SECRET = "zanzibar"
ONCE = functools.cache(memory.estimate)
SMALL = memory.Estimate((memory.Need("server", 1, "idle", {"all": 10**9}),), "cpu")


@pytest.fixture(autouse=True)
def offline_and_empty(tmp_path, monkeypatch):
    """Work in an empty folder, and fail at the first attempt to reach a network."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a dry run opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Estimate memory once, except where it is what a test is about."""
    estimate = ONCE if "real_memory" in request.fixturenames else lambda *_, **__: SMALL
    monkeypatch.setattr(memory, "estimate", estimate)


@pytest.fixture
def real_memory():
    """Ask for real estimates."""


@pytest.fixture
def sums(tmp_path) -> Path:
    """Return a mapping with 40 rows, most with a word that must not be shown."""
    rows = [{"q": f"{SECRET} {n} and {n}?", "a": str(2 * n)} for n in range(38)]
    rows += [{"q": "no number", "a": "none"}, {"q": "", "a": "1"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    path = tmp_path / "sums.toml"
    path.write_text(MAPPING)
    return path


def run_dry(capsys, *arguments):
    """Return exit code and what was printed as JSON."""
    code, out, err = call(capsys, "run", "--dry-run", "--json", *arguments)
    assert err == ""
    return code, json.loads(out)


def test_the_built_in_world_has_no_problems(capsys):
    code, found = run_dry(capsys)
    assert code == 0
    assert set(found) == PARTS
    assert found["problems"] == found["downloads"] == []
    assert found["nodes"] == 5
    assert found["partitions"] == [{"train": 256, "test": 100}] * 5
    assert found["chance"] is None
    assert found["community"] == {}
    assert found["social"] == {}
    assert found["time"]["seconds"] == "unknown"


@pytest.mark.usefixtures("real_memory")
def test_it_says_what_the_other_commands_say(capsys):
    config = load_config(None)
    found = dry_run.dry_run(config)
    planned = plan_run(config, world_channel(config), num_partitions=5)
    assert found["privacy"]["record_epsilon"] == planned.record_epsilon
    assert set(planned.lines()) <= set(found["privacy"]["lines"])
    assert found["privacy"]["worst_arm"] == "distil"
    estimated = ONCE(config, num_supernodes=5)
    assert found["memory"]["host_bytes"] == estimated.host_bytes
    code, out, _ = call(capsys, "run", "--dry-run")
    assert code == 0
    for line in (*planned.lines(), *estimated.lines()):
        assert " ".join(line.split()) in " ".join(out.split())


def test_nothing_is_written_and_nothing_is_asked(capsys, tmp_path):
    """The network is closed by the fixture; models and data on the Hub are named."""
    before = sorted(tmp_path.rglob("*"))
    code, found = run_dry(
        capsys,
        *("--config", str(ROOT / "conf" / "qwen-gsm8k.toml")),
    )
    assert code == 0
    assert found["problems"] == []
    assert found["downloads"] == [
        "student Qwen/Qwen2.5-0.5B",
        "teacher Qwen/Qwen2.5-7B-Instruct",
        "dataset openai/gsm8k",
    ]
    assert found["models"]["student"]["found"].startswith("would be downloaded")
    assert found["config"]["target-modules"] == "auto"
    assert "A baker fills 3 trays" in found["prompts"]["teacher"]
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []
    assert not huggingface_hub.constants.HF_HUB_OFFLINE or os.environ["HF_HUB_OFFLINE"]


def test_every_problem_is_said_and_hides_nothing(capsys):
    code, found = run_dry(
        capsys,
        *("-c", "student=./no/such/folder"),
        *("-c", "num-partitions=3", "--num-supernodes", "2"),
        *("-c", "prompt-epsilon=5"),
    )
    assert code == 2
    said = "\n".join(found["problems"])
    assert len(found["problems"]) == 3
    for setting in ("student", "num-partitions", "prompt-epsilon"):
        assert f"`{setting}`" in said
    assert all("\n" not in problem for problem in found["problems"])
    assert len(found["partitions"]) == 3
    assert found["privacy"]["prompt_epsilon"] > 5
    assert found["models"]["teacher"]["found"]


def test_too_little_memory_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**9)
    code, found = run_dry(capsys)
    assert code == 2
    assert "must fit into memory" in found["problems"][0]


def test_rows_are_counted_and_private_ones_never_shown(capsys, sums):
    _, found = run_dry(
        capsys,
        *("-c", f"dataset={sums}", "-c", f"data-dir={sums.parent}"),
        *("-c", "num-records=12", "-c", "records-per-round=4", "-c", "test-records=2"),
        *("-c", "num-partitions=3", "-c", "partitioner=iid", "-c", "arms=standalone"),
    )
    data = found["data"]
    assert sum(data["rows"].values()) == 40
    left_out = sum(sum(why.values()) for why in data["skipped"].values())
    assert left_out == 2
    assert sum(data["used"].values()) == 38
    settings = RunConfig.from_run_config(found["config"])
    for number, sizes in enumerate(found["partitions"]):
        partition = load_partition(settings, number, 3)
        assert sizes == {"train": len(partition.train), "test": len(partition.test)}
    assert len(found["partitions"]) == 3
    assert found["prompts"]["student_predict"]
    assert SECRET not in json.dumps(found)
    # No arm asks here, so that the only thing amiss may be the world's vocabulary.
    assert all("`vocabulary`" in problem for problem in found["problems"])


def test_the_public_share_may_be_shown(sums):
    config = RunConfig(
        token_epsilon=8.0,
        dataset=str(sums),
        data_dir=str(sums.parent),
        public_share=0.5,
        arms="zero-shot",
    )
    assert SECRET in dry_run.public_question(config)
    nothing = dataclasses.replace(config, public_share=0.0)
    assert "[question]" in dry_run.public_question(nothing)


def test_an_earlier_run_with_the_same_settings_says_how_long(tmp_path, monkeypatch):
    config = RunConfig(token_epsilon=8.0)
    monkeypatch.setenv("FEDCOT_RUNS_DIR", str(tmp_path))
    assert earlier_seconds(config) is None
    for name, settings in (
        ("same", {**config.to_run_config(), "run-dir": "/x", "seed": 7}),
        ("other", {**config.to_run_config(), "local-epochs": 1}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(
            json.dumps({"run_config": settings})
        )
        summary = {"status": "completed", "timing": {"teacher": 1.5, "train": 40}}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert earlier_seconds(config) == (41.5, tmp_path / "same")


COMMUNITIES = ("--config", str(ROOT / "conf" / "community-small.toml"))
MECHANISM = ("mechanism  ", "token epsilon", "prompt epsilon", "record limit")


def test_a_run_of_communities_says_who_shares_what_with_whom(capsys):
    code, found = run_dry(capsys, *COMMUNITIES)
    assert (code, found["problems"]) == (0, [])
    part = found["community"]
    assert part["communities"] == {"library": [0], "harbor": [1]}
    assert part["coalitions"] == ["library", "harbor", "library+harbor"]
    assert part["students"] == {"pooled": 3, "label-only": 3, "random-label": 1}
    assert (part["trace_scope"], part["hold_out"]) == ("coalition", 20)
    assert set(part["leaves"]) == {"pooled"}
    # It perturbs nothing, so there is nothing to say of a mechanism.
    assert "mechanism" not in found["privacy"]
    assert set(found["privacy"]["per_arm"]) == {"pooled"}
    code, out, _ = call(capsys, "run", "--dry-run", *COMMUNITIES)
    shown = " ".join(out.split())
    assert code == 0
    for line in part["lines"]:
        assert f"community: {line}" in shown
    assert "traces as text: question, reasoning, answer" in shown
    assert not any(f"privacy: {word}" in shown for word in MECHANISM)


def test_a_mechanism_is_described_where_it_perturbs(capsys):
    sharing = ("-c", "sharing=pooled,perturbed", "-c", "token-epsilon=2.0")
    _, found = run_dry(capsys, *COMMUNITIES, *sharing)
    epsilon = found["privacy"]["prompt_epsilon"]
    assert (
        f"(rank), epsilon {epsilon:g} nats each"
        in found["community"]["leaves"]["perturbed"]
    )
    _, out, _ = call(capsys, "run", "--dry-run", *COMMUNITIES, *sharing)
    assert all(f"privacy: {word}" in out for word in MECHANISM)


def test_a_budget_that_is_not_used_is_no_problem_and_one_that_is_too_small_is(capsys):
    too_much = ("-c", "token-epsilon=15.0")
    code, found = run_dry(capsys, *COMMUNITIES, *too_much)
    assert (code, found["problems"]) == (0, [])
    noised = ("-c", "sharing=federated", "-c", "noise-multiplier=0.5")
    code, found = run_dry(capsys, *COMMUNITIES, *noised, "-c", "record-epsilon=5.0")
    assert code == 2
    (problem,) = found["problems"]
    assert problem.startswith("`record-epsilon` must be at least what one record is")
    # The dry run knows the number of members, so the rate of DP-SGD is known too.
    assert "at delta, one record (DP-SGD" in " ".join(found["privacy"]["lines"])


def test_the_prompt_of_a_level_is_shown_as_it_is_asked(capsys):
    _, found = run_dry(
        capsys,
        *("-c", "mode=community", "-c", "communities=a,b", "-c", "dataset=svamp"),
        *("-c", "teacher=http://127.0.0.1:9/v1", "-c", "provider-level=4"),
    )
    assert ARITHMETIC.rationales[3] in found["prompts"]["teacher"]


@needs_data
def test_the_recorded_teacher_of_commonsense_qa_is_counted_over_all_rows(capsys):
    path = ROOT / "conf" / "commonsense-qa-recorded.toml"
    code, found = run_dry(capsys, "--config", str(path))
    assert found["teacher_labels"] == {
        "train": {"right": 7388, "rows": 9741, "unparsed": 182},
        "test": {"right": 962, "rows": 1221, "unparsed": 16},
    }
    # The student is made by `fedcot convert`, which nobody has called here.
    assert code == 2
    (problem,) = found["problems"]
    assert "stories260K" in problem
    assert found["chance"] == pytest.approx(0.2, abs=1e-6)
    assert len(found["partitions"]) == 8
    assert found["privacy"]["prompt_epsilon"] <= 8.0


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "svamp",
        pytest.param("gsm8k", marks=pytest.mark.slow),
        pytest.param("strategyqa", marks=pytest.mark.slow),
    ],
)
def test_the_other_recorded_configurations_are_sound(capsys, name):
    path = ROOT / "conf" / f"{name}-recorded.toml"
    code, found = run_dry(capsys, "--config", str(path), "-c", "student=builtin")
    assert code == 0, found["problems"]
    data = found["data"]
    for split in ("train", "test"):
        labels = found["teacher_labels"][split]
        assert labels["rows"] == data["rows"][split]
        assert labels["right"] > 0.5 * labels["rows"]
    used = sum(data["used"].values())
    skipped = sum(sum(why.values()) for why in data["skipped"].values())
    assert used + skipped == sum(data["rows"].values())
    assert len(found["partitions"]) == 8


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_shipped_configuration_is_valid_and_keeps_its_name(path):
    assert load_config(path).name == path.stem


def test_the_shipped_mappings_are_listed(capsys):
    code, out, _ = call(capsys, "data", "list", "--json")
    found = {row["name"]: row for row in json.loads(out)["mappings"]}
    assert code == 0
    wanted = {"commonsense-qa", "gsm8k", "svamp", "strategyqa", "arc", "openbookqa"}
    assert wanted | {"boolq", "e-snli", "commonsense-qa-recorded"} <= found.keys()
    for row in found.values():
        assert all(row[key] for key in ("description", "answers", "source", "licence"))
    _, shown, _ = call(capsys, "data", "list")
    assert all(name in shown for name in found)


def test_a_mapping_is_shown_with_its_counts(capsys, sums):
    arguments = ("data", "show", str(sums), "-c", f"data-dir={sums.parent}")
    code, out, _ = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["columns"] == {"question": "q", "answer": "a"}
    assert sum(found["data"]["rows"].values()) == 40
    assert SECRET not in out
    _, shown, _ = call(capsys, *arguments)
    assert "question: read from q" in shown
    assert SECRET not in shown


def test_a_mapping_without_its_files_is_one_problem(capsys, sums):
    (sums.parent / "rows.jsonl").unlink()
    arguments = ("data", "show", str(sums), "-c", f"data-dir={sums.parent}")
    code, out, _ = call(capsys, *arguments)
    assert code == 2
    assert "PROBLEM `data-dir`" in out


def test_an_unknown_mapping_is_refused(capsys):
    code, _, err = call(capsys, "data", "show", "gsm8")
    assert code == 2
    assert "gsm8k" in err


def test_social_learning_is_outlined_and_its_faults_are_found(capsys):
    path = str(ROOT / "conf" / "social-rules.toml")
    rules = ("--config", path, "--num-supernodes", "8")
    code, found = run_dry(capsys, *rules)
    assert code == 0
    assert found["social"]["silos"] == [50] * 8
    assert found["social"]["flow"] == ["teach.examples", "vote", "teach.instruction"]
    assert set(found["privacy"]["per_arm"]) == {"examples", "instruction", "voting"}
    code, found = run_dry(capsys, *rules, "-c", "num-records=64")
    assert code == 2
    assert any("`num-records`" in problem for problem in found["problems"])

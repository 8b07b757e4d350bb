"""A run that ended early goes on: nothing is released, trained or charged twice."""

import json

import pytest

from fedcot import launch as launching
from fedcot.errors import ConfigError, FedcotError, TeacherError
from fedcot.report.ledgers import read_ledgers
from fedcot.runs import RunDirectory, check_resumable
from tests.fakes import (
    ScriptedTeacher,
    federate,
    rows_of,
    summary_of,
    tiny_config,
    tiny_world,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("tiny_world")


class FailingTeacher(ScriptedTeacher):
    """Answers so many calls, then cannot be reached."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def answer(self, questions, *, on_progress=None):
        self.left -= 1
        if self.left < 0:
            raise TeacherError("the endpoint cannot be reached")
        return super().answer(questions, on_progress=on_progress)


def charged(run_dir) -> list[tuple[int, float]]:
    return [(use.releases, use.max_epsilon) for use in read_ledgers(run_dir)]


def test_a_run_goes_on_where_its_teacher_failed(tmp_path):
    config = tiny_config(tmp_path / "run", test_tape=False)
    with pytest.raises(TeacherError):
        federate(config, teacher=FailingTeacher(2))
    before = charged(tmp_path / "run")
    first = (tmp_path / "run" / "config.json").read_text()
    again = tiny_config(tmp_path / "run", test_tape=False, resume=True)
    teacher = ScriptedTeacher()
    run, _ = federate(again, teacher=teacher)

    summary = summary_of(run)
    assert summary["status"] == "completed"
    assert json.loads(first)["run_key"] == run.run_key
    # The first start drew the prompts of its rounds; they are sent again as they are.
    after = charged(tmp_path / "run")
    assert all(new[0] >= old[0] for new, old in zip(after, before, strict=True))
    limit = 2 * config.records_per_round
    assert all(releases <= limit for releases, _ in after)
    assert len({epsilon for _, epsilon in after}) == 1  # one draw for each record
    one_prompt = max(row["prompt_epsilon"] for row in rows_of(run, phase="perturb"))
    assert after[0][1] == pytest.approx(one_prompt)
    assert (run.path / "metrics.jsonl.1").exists()


def test_a_resumed_run_gives_what_an_unbroken_one_gives(tmp_path):
    arms = {"arms": "distil,fedcot"}
    whole, _ = federate(tiny_config(tmp_path / "whole", **arms))
    with pytest.raises(TeacherError):
        federate(tiny_config(tmp_path / "broken", **arms), teacher=FailingTeacher(2))
    mended, _ = federate(tiny_config(tmp_path / "broken", resume=True, **arms))
    for key in ("accuracy", "filters", "num_rounds"):
        assert summary_of(mended)[key] == summary_of(whole)[key]


def test_only_a_run_that_ended_early_can_go_on(tmp_path):
    with pytest.raises(ConfigError, match="must be a run directory"):
        check_resumable(tmp_path)
    small = {"arms": "fedcot", "num_server_rounds": 1}
    run, _ = federate(tiny_config(tmp_path / "done", **small))
    with pytest.raises(ConfigError, match=r"found .* completed"):
        check_resumable(run.path)
    with pytest.raises(ConfigError, match="completed"):
        federate(tiny_config(tmp_path / "done", resume=True, **small))


def test_two_processes_do_not_work_on_one_run(tmp_path):
    run = RunDirectory.create(str(tmp_path / "run"))
    with (
        run.held(),
        pytest.raises(ConfigError, match="another process"),
        RunDirectory(run.path).held(),
    ):
        pass
    with run.held():  # It can be held again.
        pass


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"token_epsilon": 4.0}, "token-epsilon"),
        ({"num_records": 25}, "num-records"),
        ({"mechanism": "exponential"}, "mechanism"),
    ],
)
def test_other_settings_do_not_go_on(tmp_path, changes, named):
    with pytest.raises(TeacherError):
        federate(tiny_config(tmp_path / "run"), teacher=FailingTeacher(0))
    before = (tmp_path / "run" / "config.json").read_text()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match=f"another `{named}`"):
        federate(tiny_config(tmp_path / "run", resume=True, **changes))
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics


def test_another_number_of_nodes_does_not_go_on(tmp_path):
    """Records would move to other ledgers and be drawn once more."""
    with pytest.raises(TeacherError):
        federate(tiny_config(tmp_path / "run"), teacher=FailingTeacher(0), count=3)
    before = charged(tmp_path / "run")
    with pytest.raises(FedcotError, match="the 3 nodes that it had, found 2"):
        federate(tiny_config(tmp_path / "run", resume=True), count=2)
    assert charged(tmp_path / "run") == before


@pytest.mark.parametrize(
    "noise", [{"server_noise_multiplier": 2.0}, {"noise_multiplier": 1.0}]
)
def test_noised_adapters_are_not_released_twice(tmp_path, noise):
    config = tiny_config(tmp_path / "run", aggregation="fedavg", **noise)
    with pytest.raises(TeacherError):
        federate(config, teacher=FailingTeacher(0))
    again = tiny_config(tmp_path / "run", aggregation="fedavg", resume=True, **noise)
    with pytest.raises(ConfigError, match="released twice"):
        federate(again)


def test_a_run_at_work_keeps_its_measurements(tmp_path):
    with pytest.raises(TeacherError):
        federate(tiny_config(tmp_path / "run"), teacher=FailingTeacher(0))
    run = RunDirectory(tmp_path / "run")
    with run.held(), pytest.raises(ConfigError, match="another process"):
        federate(tiny_config(tmp_path / "run", resume=True))
    assert (run.path / "metrics.jsonl").exists()
    assert not (run.path / "metrics.jsonl.1").exists()


def test_other_code_does_not_go_on(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "run")
    with pytest.raises(FedcotError):
        federate(config, teacher=FailingTeacher(0))
    monkeypatch.setattr(launching.provenance, "code_hash", lambda: "other")
    with pytest.raises(ConfigError, match="other code"):
        launching.resume(tmp_path / "run")


def test_the_settings_and_nodes_of_the_first_start_are_used(tmp_path, monkeypatch):
    with pytest.raises(TeacherError):
        federate(tiny_config(tmp_path / "run"), count=2, teacher=FailingTeacher(0))
    seen = {}

    def launch(config, *, num_supernodes, run_dir, on_progress):
        seen.update(config=config, nodes=num_supernodes, run_dir=run_dir)

    monkeypatch.setattr(launching, "launch", launch)
    launching.resume(tmp_path / "run")
    assert seen["nodes"] == 2
    assert seen["run_dir"] == tmp_path / "run"
    assert seen["config"] == tiny_config(tmp_path / "run", resume=True)

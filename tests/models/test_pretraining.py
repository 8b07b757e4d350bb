"""Pretraining writes what it says, goes on where it stopped, and uses public data."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from fedcot.data.prompts import ADAPT, EXPLAIN, PREDICT, parse_completion
from fedcot.models import in_context_training, pretraining
from fedcot.models.loading import load_model
from fedcot.models.pretraining import (
    PretrainingPlan,
    make_adaptations,
    pretrain,
    pretrain_in_context,
)
from fedcot.models.pretraining_data import (
    SeenProblems,
    disturb,
    perturb_uniformly,
    student_pairs,
    teacher_pairs,
)
from fedcot.models.sources import builtin_folder
from fedcot.models.training_loop import Schedule, TokenSchedule
from fedcot.models.workshop import TRAINING_NAME
from fedcot.seeding import numpy_generator
from fedcot.world import CLIENT_NAMES, PUBLIC_LENGTH, draw_problems, split_of
from tests.tiny import tiny_base

PLAN = PretrainingPlan(
    teacher=Schedule(steps=2, batch_size=4),
    student=Schedule(steps=2, batch_size=4),
    public_lm=Schedule(steps=2, batch_size=4),
    plain_steps=1,
    in_context_teacher=TokenSchedule(steps=2, batch_tokens=600),
    in_context_student=TokenSchedule(steps=2, batch_tokens=600),
    num_adaptations=8,
    test_per_family=1,
    test_rules=1,
)
IN_CONTEXT = ["in_context_teacher", "in_context_student"]
NAMES = ["teacher", "student", "public_lm", *IN_CONTEXT]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the models."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.name != pretraining.RECORD_NAME and path.is_file()
    }


def test_pretraining_writes_loadable_models_and_a_record_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[str] = []
    asked: list[int] = []

    def adaptations(_teacher: object, _tokenizer: object, count: int, *, seed: int):
        asked.append(count)
        return [(f"{ADAPT} tom has 2 cards rationale:", "2 answer: 2")]

    monkeypatch.setattr(pretraining, "make_adaptations", adaptations)
    record = pretrain(tmp_path, plan=PLAN, report=lambda name, *_: reports.append(name))
    assert reports == NAMES
    assert asked == [8]
    written = json.loads((tmp_path / pretraining.RECORD_NAME).read_text())
    assert written == json.loads(json.dumps(record))
    assert set(written["models"]) == set(NAMES)
    for name in NAMES:
        AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert written["models"][name]["problems_drawn"] >= 8
    assert set(written["scores"]["in_context_student"]["answers"]["labels"]) == {
        *("0", "1", "2", "4", "8")
    }
    before = contents(tmp_path)
    shutil.rmtree(tmp_path / "in_context_student")
    reports.clear()
    pretrain_in_context(
        tmp_path,
        "in_context_student",
        plan=PLAN,
        report=lambda name, *_: reports.append(name),
    )
    assert reports == ["in_context_student"]
    after = contents(tmp_path)
    assert set(after) == set(before)
    timed = {f"in_context_student/{TRAINING_NAME}"}
    assert {name for name in after if after[name] != before[name]} <= timed

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a finished model was trained again")

    monkeypatch.setattr(pretraining, "train_model", never)
    monkeypatch.setattr(in_context_training, "fit", never)
    again = pretrain(tmp_path, plan=PLAN)
    assert again["scores"] == record["scores"]
    assert contents(tmp_path) == after
    with pytest.raises(AssertionError, match="trained again"):
        pretrain(tmp_path, plan=PLAN, seed=1)
    shutil.rmtree(tmp_path / "in_context_teacher")
    with pytest.raises(AssertionError, match="trained again"):
        pretrain(tmp_path, plan=PLAN)


def test_the_teacher_answers_perturbed_questions_of_the_general_families() -> None:
    teacher = load_model("builtin", "teacher")
    pairs = make_adaptations(teacher.model, teacher.tokenizer, 20, seed=3)
    assert len(pairs) >= 18
    for prompt, target in pairs:
        perturbed, rest = prompt.removeprefix(f"{ADAPT} ").split(" rationale: ", 1)
        original = rest.split("question: ")[1].removesuffix(" rationale:")
        assert parse_completion(rest.split(" question: ")[0]) is not None
        assert parse_completion(target) is not None
        assert len(set(original.split()) & set(perturbed.split())) >= 2


def test_a_teacher_that_cannot_be_read_is_refused() -> None:
    base = tiny_base()
    with pytest.raises(ValueError, match="found none of 4"):
        make_adaptations(base.model, base.tokenizer, 4, seed=0)


@pytest.mark.parametrize("shape", [Schedule, TokenSchedule])
def test_the_schedule_warms_up_and_falls_to_two_percent(shape) -> None:
    schedule = shape(steps=1000, learning_rate=1.0)
    assert schedule.rate(0) == pytest.approx(1 / 50)
    assert schedule.rate(49) == pytest.approx(1.0)
    assert schedule.rate(525) == pytest.approx(0.51, abs=1e-3)
    assert schedule.rate(999) == pytest.approx(0.02, abs=1e-3)


def test_pretraining_draws_from_its_own_split_only() -> None:
    seen = SeenProblems()
    pairs = teacher_pairs(numpy_generator(0), seen)
    for _ in range(300):
        next(pairs)
    assert seen.drawn == 300
    assert {split_of(problem) for problem in seen.hashes} == {"pretraining"}


def test_the_student_base_never_sees_a_client_domain() -> None:
    """Failure would mean that the gap to close is not real."""
    client = {
        word
        for problem in draw_problems("train", CLIENT_NAMES, 500, seed=0)
        for word in problem.question.split()
    }
    pairs = student_pairs(
        numpy_generator(0), SeenProblems(), num_plain=600, adaptations=list
    )
    prompts = [next(pairs)[0] for _ in range(600)]
    words = {word for prompt in prompts for word in prompt.split()}
    shared = {word for word in client & words if not word.isdigit()}
    assert not shared & {"piers", "toward", "dish", "hatch", "tray", "runner", "shelf"}
    assert {prompt.split()[0] for prompt in prompts} == {EXPLAIN, PREDICT}


def test_adaptations_come_later_and_take_their_share() -> None:
    pairs = student_pairs(
        numpy_generator(0),
        SeenProblems(),
        num_plain=500,
        adaptations=lambda: [(f"{ADAPT} x", "y")],
    )
    tasks = [next(pairs)[0].split()[0] for _ in range(1500)]
    assert ADAPT not in tasks[:500]
    assert 240 < tasks[500:].count(ADAPT) < 360
    assert 60 < tasks[500:].count(PREDICT) < 140


def test_disturbed_questions_keep_their_numbers_in_order() -> None:
    rng = numpy_generator(1)
    question = "tom has 12 marbles finds 3 loses 4 how many marbles now"
    changed = 0
    for _ in range(200):
        words = disturb(question, rng, 0.3).split()
        numbers = [word for word in words if word in ("12", "3", "4")]
        kept = iter(words)
        assert all(number in kept for number in ("12", "3", "4")), words
        assert len(numbers) >= 3
        changed += words != question.split()
    assert changed > 150
    assert disturb(question, rng, 0.0) == question


def test_uniform_perturbation_keeps_as_often_as_told() -> None:
    rng = numpy_generator(2)
    slots = ["north"] * PUBLIC_LENGTH
    kept = sum(
        perturb_uniformly(" ".join(slots), rng, 0.8).split().count("north")
        for _ in range(400)
    )
    share = kept / (400 * PUBLIC_LENGTH)
    assert share == pytest.approx(0.8 + 0.2 / 172, abs=0.02)


def test_the_shipped_pair_meets_its_targets() -> None:
    """The committed record is what the README quotes."""
    record = json.loads((builtin_folder() / pretraining.RECORD_NAME).read_text())
    scores = record["scores"]
    families = {
        k: v for k, v in scores["teacher"].items() if k not in ("mean", "valid")
    }
    assert len(families) == 9
    assert scores["teacher"]["mean"] >= 0.97
    assert min(families.values()) >= 0.93
    assert scores["student_general"]["mean"] >= 0.95
    assert scores["student_client"]["mean"] <= 0.15
    size = sum(p.stat().st_size for p in builtin_folder().rglob("*.safetensors"))
    assert size <= 12e6

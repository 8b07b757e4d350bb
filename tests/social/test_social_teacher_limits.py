"""What a teacher client does not do, whatever the server asks for."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcot import provenance
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.node_state import Owner
from fedcot.social import configured, step_store, teacher_silo
from fedcot.social.configured import configured_test, social_identity
from fedcot.social.demonstrations import Demonstration
from fedcot.social.messages import (
    INSTRUCTIONS,
    CandidateText,
    SentPrompt,
    StepRequest,
)
from fedcot.social.step_store import TEXTS, VOTES, num_sent
from fedcot.social.teacher_client import TeacherClient
from fedcot.social.teacher_silo import Explained
from tests.social_clients import (
    RUN,
    ballot_request,
    client,
    deployed,
    examples_request,
    forget,
    instruction_request,
    prompts_request,
    scripted_models,  # noqa: F401
    simulated,
    social_config,
)

VOTING = {"aggregators": "random,voting"}


def own_messages(tmp_path: Path, **more: Any) -> Owner:
    """Return the owner of ten messages, nine of them without a sign of spam."""
    folder = tmp_path / "own" / "sms_spam"
    folder.mkdir(parents=True)
    with (folder / "spam.csv").open("w", newline="", encoding="latin-1") as file:
        rows = csv.writer(file)
        rows.writerow(["v1", "v2", "", "", ""])
        for number in range(10):
            label = "spam" if number == 4 else "ham"
            rows.writerow([label, f"PRIVATE{number} meet me at {37 * number}"])
    given = {"data-dir": str(tmp_path / "own"), "task": "sms-spam", **more}
    return deployed(tmp_path, **given)


def answered(own: TeacherClient, request: StepRequest) -> Any:
    name = type(request).__name__
    if name == "ExamplesRequest":
        return own.teach(request)
    return own.instruct(request) if "Instruction" in name else own.vote(request)


# Scores -----------------------------------------------------------------------------


def test_a_deployed_node_scores_no_student(tmp_path, models):
    url = "http://server.example/v1"
    config = social_config(
        tmp_path, task="sms-spam", prompted_student=url, raw_to_endpoint=True
    )
    asked = prompts_request("", students=(SentPrompt(student="zero-shot"),))
    own = TeacherClient(config, own_messages(tmp_path))
    for request in (asked, replace(asked, students=(), original_counts=(1,))):
        with pytest.raises(ConfigError, match="`simulation` must be true") as caught:
            own.score(request)
        assert "\n" not in str(caught.value)
    assert url not in models.made


def test_a_deployed_node_takes_the_server_s_word(tmp_path, models, monkeypatch):
    """It loads no student, and its own files are no public test."""
    asked = social_identity(social_config(tmp_path), provenance.code_hash())
    asked = replace(asked, student_hash="12" * 32, dataset_hash="34" * 32)

    def refuse(*_: object) -> str:
        raise AssertionError("a deployed node must not read this")

    config = social_config(tmp_path, task="sms-spam", prompted_student="some/model")
    own = TeacherClient(config, own_messages(tmp_path))
    for name in ("model_hash", "configured_test"):
        monkeypatch.setattr(configured, name, refuse)
    for request in (asked, replace(asked, student_hash="", dataset_hash="")):
        reply = own.identify(request)
        assert reply.student_hash == request.student_hash
        assert (reply.dataset_hash, reply.num_records) == (request.dataset_hash, 10)
    with pytest.raises(CodeMismatchError):
        own.identify(replace(asked, code_hash="56" * 32))


def test_a_simulated_client_compares_student_and_test(tmp_path, models):
    own = client(tmp_path)
    asked = social_identity(own.config, provenance.code_hash())
    assert own.identify(asked).num_records == 12
    for name in ("student_hash", "dataset_hash"):
        with pytest.raises(CodeMismatchError):
            own.identify(replace(asked, **{name: "12" * 32}))
    assert len(configured_test(own.config)) == 7


def test_the_server_s_student_is_not_loaded_for_a_name(tmp_path, models):
    config = social_config(tmp_path, student="some/model")
    assert TeacherClient(config, deployed(tmp_path)).config.student == "builtin"
    assert TeacherClient(config, simulated()).config.student == "some/model"


# Steps and numbers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "flow"),
    [
        ({}, ["ExamplesRequest", "InstructionRequest"]),
        ({"teaching": "examples", **VOTING}, ["ExamplesRequest", "BallotRequest"]),
        (
            {"teaching": "instruction", "instruction_merging": "vote"},
            ["InstructionRequest", INSTRUCTIONS],
        ),
        (
            {**VOTING, "instruction_merging": "vote"},
            ["ExamplesRequest", "BallotRequest", "InstructionRequest", INSTRUCTIONS],
        ),
    ],
    ids=str,
)
def test_only_the_steps_of_the_flow_are_answered(tmp_path, models, settings, flow):
    on_texts = ballot_request(
        "",
        subject=INSTRUCTIONS,
        candidates=(),
        texts=("hint: a", "hint: b"),
        turns=("",),
    )
    requests = {
        "ExamplesRequest": examples_request(""),
        "InstructionRequest": instruction_request(""),
        "BallotRequest": ballot_request(""),
        INSTRUCTIONS: on_texts,
    }
    own = TeacherClient(social_config(tmp_path, **settings), deployed(tmp_path))
    for step in (*range(5), 10_000):
        provided = flow[step] if step < len(flow) else ""
        for name, request in requests.items():
            asked = replace(request, step=step)
            if name == provided:
                assert answered(own, asked)
            else:
                with pytest.raises(
                    ConfigError, match=r"`(step|subject)` must be"
                ) as no:
                    answered(own, asked)
                assert "\n" not in str(no.value)
    # What is refused leaves nothing behind.
    stored = {path.name for path in (tmp_path / "state").rglob("step-*")}
    assert stored == {f"step-{step}.json" for step in range(len(flow))}


@pytest.mark.parametrize(
    ("request_type", "name", "value"),
    [
        *(
            (examples_request, name, value)
            for name, value in (
                ("per_prompt", 4),
                ("per_prompt", 1),
                ("keep", 2),
                ("num_prompts", 3),
                ("samples_per_prompt", 20),
                ("temperature", 0.8),
                ("max_new_tokens", 9),
            )
        ),
        (instruction_request, "temperature", 0.8),
        (instruction_request, "max_new_tokens", 9),
        (instruction_request, "tries", 3),
    ],
)
def test_numbers_are_those_of_the_settings(tmp_path, models, request_type, name, value):
    for own, run_dir in (
        (client(tmp_path), str(tmp_path)),
        (TeacherClient(social_config(tmp_path), deployed(tmp_path)), ""),
    ):
        with pytest.raises(ConfigError, match=f"`{name}` of a request must be") as no:
            answered(own, request_type(run_dir, **{name: value}))
        assert f"found {value}" in str(no.value)
        assert answered(own, request_type(run_dir))
    assert set(models.made) == {"stub", "own-model"}


def some_candidates(count: int) -> tuple[CandidateText, ...]:
    return tuple(
        CandidateText(question=f"candidate {n}", answer="dax", reasoning="")
        for n in range(count)
    )


def test_a_ballot_has_no_more_places_than_the_settings(tmp_path, models):
    own = client(tmp_path, **VOTING, instruction_merging="vote")
    # The longest prompt has two examples; three clients make two each.
    longest = ballot_request(tmp_path, candidates=some_candidates(6))
    for name, changes in (
        ("turns", {"turns": ("", "", "")}),
        ("candidates", {"candidates": some_candidates(7)}),
    ):
        with pytest.raises(ConfigError, match=f"`{name}` of a ballot must be at most"):
            own.vote(replace(longest, **changes))
    assert len(own.vote(longest).ballot) == 2
    texts = tuple(f"hint: {letter}" for letter in "abcd")
    merged = replace(
        longest, step=3, subject=INSTRUCTIONS, candidates=(), texts=texts, turns=("",)
    )
    with pytest.raises(ConfigError, match="`texts` of a ballot must be at most 3"):
        own.vote(merged)
    assert len(own.vote(replace(merged, texts=texts[:3])).ballot) == 1


# What its owner lets out ------------------------------------------------------------


def fail_second_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a crash come between the log and the reply."""
    write_json, written = step_store.write_json, []

    def write(path, content):
        written.append(path)
        if len(written) == 2:
            raise OSError("no space left")
        write_json(path, content)

    monkeypatch.setattr(step_store, "write_json", write)


def test_texts_count_before_they_are_sent(tmp_path, models, monkeypatch):
    config = social_config(tmp_path)
    owner = deployed(tmp_path, **{"max-shared-texts": 3})
    with monkeypatch.context() as crash:
        fail_second_write(crash)
        with pytest.raises(OSError, match="no space"):
            TeacherClient(config, owner).teach(examples_request(""))
    forget()
    # The reply was never stored, and its texts count all the same.
    assert num_sent(tmp_path / "state", TEXTS) == 2
    other = examples_request("", run_key="b" * 16)
    with pytest.raises(
        ConfigError, match=r"`max-shared-texts` .* found 2 sent, 2 more"
    ):
        TeacherClient(config, owner).teach(other)
    # The same step says the same again, and that is not twice as much.
    reply = TeacherClient(config, owner).teach(examples_request(""))
    assert len(reply.demonstrations) == 2
    assert num_sent(tmp_path / "state", TEXTS) == 2
    with pytest.raises(ConfigError, match="found 2 sent, 2 more"):
        TeacherClient(config, owner).teach(other)


def test_an_owner_limits_ballots_over_all_runs(tmp_path, models, monkeypatch):
    config = social_config(tmp_path, **VOTING)
    owner = deployed(tmp_path, **{"max-ballots": 2, "max-shared-texts": 2})
    with monkeypatch.context() as crash:
        fail_second_write(crash)
        with pytest.raises(OSError, match="no space"):
            TeacherClient(config, owner).vote(ballot_request(""))
    first = TeacherClient(config, owner).vote(ballot_request(""))
    second = ballot_request("", run_key="b" * 16)
    TeacherClient(config, owner).vote(second)
    assert num_sent(tmp_path / "state", VOTES) == 2
    third = ballot_request("", run_key="c" * 16)
    with pytest.raises(ConfigError, match=r"`max-ballots` .* found 2 sent, 1 more"):
        TeacherClient(config, owner).vote(third)
    # What was said may be said again, and texts are counted apart.
    assert TeacherClient(config, owner).vote(ballot_request("")) == first
    assert TeacherClient(config, owner).teach(examples_request("")).demonstrations
    # On one machine nothing leaves.
    own = TeacherClient(config, simulated())
    for key in ("d", "e", "f"):
        assert own.vote(ballot_request(tmp_path, run_key=key * 16)).ballot


def test_two_runs_do_not_find_the_same_room(tmp_path, models):
    """The second waits for the first: the folder is locked while a text is made."""
    import fcntl
    import os

    seen: list[bool] = []
    (tmp_path / "state").mkdir()

    def write(prompt: str, seed: int) -> str:
        other = os.open(tmp_path / "state", os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(True)
        except BlockingIOError:
            seen.append(False)
        finally:
            os.close(other)
        return f" new{seed} answer: dax"

    models["own-model"].write = write
    own = TeacherClient(social_config(tmp_path), deployed(tmp_path))
    own.teach(examples_request(""))
    assert set(seen) == {False}
    write("", 1)
    assert seen[-1]


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "many"])
def test_a_limit_of_ballots_is_a_whole_number(tmp_path, value):
    with pytest.raises(ConfigError, match="`max-ballots` must be a whole number"):
        deployed(tmp_path, **{"max-ballots": value})


def test_limits_have_defaults(tmp_path):
    owner = deployed(tmp_path)
    assert (owner.max_shared_texts, owner.max_ballots, owner.task) == (1000, 100, "")


# What it reads ----------------------------------------------------------------------


def test_a_run_cannot_choose_another_task_of_the_owner_s(tmp_path, models):
    owner = own_messages(tmp_path)
    own = TeacherClient(social_config(tmp_path, task="sms-spam"), owner)
    # All of them, balanced or not, and none kept back for a test.
    assert len(own.silo.all) == 10
    for task in ("gsm8k", "sms-spam-classes", "labels", "world"):
        with pytest.raises(ConfigError, match="`task` of the run must be") as caught:
            TeacherClient(social_config(tmp_path, task=task), owner)
        assert "\n" not in str(caught.value)
    unnamed = replace(owner, task="")
    with pytest.raises(ConfigError, match="found `sms-spam` and ``"):
        TeacherClient(social_config(tmp_path, task="sms-spam"), unnamed)
    # Without files there is nothing to choose.
    assert TeacherClient(social_config(tmp_path), unnamed).silo.all
    named = deployed(tmp_path, task="labels")
    assert TeacherClient(social_config(tmp_path), named).silo.all


def test_all_steps_of_a_repeated_question_are_in_the_gate(
    tmp_path, models, monkeypatch
):
    texts = ("the first explanation of all that is private", "one that says else")
    held = tuple(
        Demonstration("a question asked twice", answer, steps)
        for answer, steps in zip(("1", "2"), texts, strict=True)
    )
    # What the own model explained differently is added, and replaces nothing.
    told = Demonstration(held[0].question, "1", "other words of its model")
    for known in (held, (*held, told), (told,)):
        with monkeypatch.context() as patched:
            patched.setattr(teacher_silo, "_held", lambda config, owner: held)
            patched.setattr(
                teacher_silo,
                "_explained",
                lambda config, owner, part, known=known: Explained(known, 0),
            )
            gate = client(tmp_path, teaching="examples").silo.gate()
        for steps in texts:
            assert not gate.judge(steps).allowed
        assert gate.judge(told.reasoning).allowed == (told not in known)
    # Behind all that the client holds.
    assert gate.judge(told.reasoning).nearest_index == 4


def test_a_run_s_key_is_no_limit(tmp_path, models):
    """Settings are part of a run's name: other ones are another run, and count."""
    owner = deployed(tmp_path, **{"max-shared-texts": 4})
    for seed in (1, 2):
        config = social_config(tmp_path, seed=seed)
        own = TeacherClient(config, owner)
        assert len(own.teach(examples_request("", run_key=RUN)).demonstrations) == 2
    with pytest.raises(ConfigError, match="found 4 sent"):
        TeacherClient(social_config(tmp_path, seed=3), owner).teach(
            examples_request("", run_key=RUN)
        )

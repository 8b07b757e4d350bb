"""A teacher client: what its model reads, what leaves, what its owner decides."""

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fedcot import node, provenance
from fedcot.config import RunConfig
from fedcot.data.prompts import HINT
from fedcot.data.schema import Partition, Record
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.evaluation.copying import plain
from fedcot.social import configured, step_store, teacher_silo
from fedcot.social.configured import configured_test, social_identity
from fedcot.social.demonstrations import Demonstration
from fedcot.social.flow import StepMessage
from fedcot.social.formats import WorldFormat
from fedcot.social.generation import DISCARDED
from fedcot.social.inspection import Considered, LoggedMessage, MessageLog
from fedcot.social.messages import (
    INSTRUCTIONS,
    BallotRequest,
    CandidateText,
    ExamplesReply,
    PromptScore,
    SentPrompt,
)
from fedcot.social.step_store import MESSAGE_LOG
from fedcot.social.teacher_client import TeacherClient
from fedcot.social.teacher_silo import explain, steps_hold
from tests.social_clients import (
    QUESTION,
    RUN,
    Models,
    StubModel,
    ballot_request,
    client,
    deployed,
    examples_request,
    instruction_request,
    prompts_request,
    scripted_models,  # noqa: F401
    simulated,
    social_config,
    write_new,
)

VOTING = {"aggregators": "random,voting"}


def log_of(folder: Path) -> list[LoggedMessage]:
    (path,) = folder.rglob(MESSAGE_LOG)
    return MessageLog(path).read()


def sent(reply: ExamplesReply) -> list[tuple[str, str, str]]:
    return [(d.question, d.answer, d.reasoning) for d in reply.demonstrations]


def asked_in(prompts: Sequence[str]) -> set[str]:
    """Return every question that stands in prompts as part of a demonstration."""
    return {question for text in prompts for question, _ in QUESTION.findall(text)}


# Teaching ---------------------------------------------------------------------------


def test_a_client_teaches_what_its_model_writes(tmp_path, models):
    own = client(tmp_path)
    reply = own.teach(examples_request(tmp_path))
    held = {one.question for one in own.silo.all}
    assert len(held) == 12
    assert len(reply.demonstrations) == 2
    assert not held & {question for question, _, _ in sent(reply)}
    assert (reply.partition_id, reply.withheld) == (0, False)
    assert (reply.num_sampled, reply.num_outranked) == (4, 2)
    assert reply.ranking == "perplexity"
    # No public rules say whether a label is right.
    assert reply.num_checked == reply.num_unexplained == 0
    prompts = models["stub"].prompts
    assert len(prompts) == 4
    assert asked_in(prompts) <= held
    assert reply.num_drawn == len(asked_in(prompts))
    assert all(len(QUESTION.findall(prompt)) == 2 for prompt in prompts)


def test_the_settings_numbers_count(tmp_path, models):
    own = client(
        tmp_path,
        examples_per_prompt=3,
        generation_prompts=1,
        samples_per_prompt=5,
        examples_kept=2,
    )
    asked = examples_request(
        tmp_path, per_prompt=3, num_prompts=1, samples_per_prompt=5, keep=2
    )
    reply = own.teach(asked)
    assert (reply.num_sampled, len(reply.demonstrations)) == (5, 2)
    assert all(len(QUESTION.findall(p)) == 3 for p in models["stub"].prompts)


def test_clients_steps_and_seeds_draw_apart(tmp_path, models):
    def prompts(
        folder: str, teaching: str = "examples,instruction", **settings: int
    ) -> list[str]:
        models["stub"].prompts.clear()
        run_dir = tmp_path / folder
        own = client(run_dir, teaching=teaching, **settings)
        own.instruct(instruction_request(run_dir, step="examples" in teaching))
        return list(models["stub"].prompts)

    first = prompts("a")
    assert prompts("b") == first
    assert prompts("c", teaching="instruction") != first
    assert prompts("d", partition_id=1) != first
    assert prompts("e", seed=1) != first


def test_asked_again_a_client_sends_what_it_sent(tmp_path, models):
    asked = examples_request(tmp_path)
    first = client(tmp_path).teach(asked)
    log, prompts = log_of(tmp_path), len(models["stub"].prompts)
    assert [line.kind for line in log] == ["candidate"] * 4
    assert {line.text for line in log if line.left} == {
        f"question: {q} answer: {a}" for q, a, _ in sent(first)
    }
    # The folder and the process are no part of what was asked.
    models["stub"].write = lambda prompt, seed: "something else"
    again = client(tmp_path).teach(replace(asked, run_dir=str(tmp_path)))
    assert sent(again) == sent(first)
    for name in (*(f"num_{reason}" for reason in DISCARDED), "num_drawn", "ranking"):
        assert getattr(again, name) == getattr(first, name)
    assert log_of(tmp_path) == log
    assert len(models["stub"].prompts) == prompts


def test_a_step_has_one_message(tmp_path, models):
    asked = ballot_request(tmp_path)
    client(tmp_path, **VOTING).vote(asked)
    log = log_of(tmp_path)
    for other in (
        replace(asked, turns=("",)),
        replace(asked, candidates=asked.candidates[:2]),
    ):
        with pytest.raises(ConfigError, match="`step` must have one message"):
            client(tmp_path, **VOTING).vote(other)
    assert log_of(tmp_path) == log
    # Another run is another matter.
    client(tmp_path, **VOTING).vote(replace(asked, turns=("",), run_key="f" * 16))


def test_files_are_for_their_owner_alone(tmp_path, models):
    client(tmp_path).teach(examples_request(tmp_path))
    found = [path for path in (tmp_path / "nodes").rglob("*") if path.is_file()]
    assert {path.name for path in found} == {MESSAGE_LOG, "step-0.json"}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kept_lines", [0, 1, 4])
def test_a_crash_behind_the_log_loses_and_doubles_nothing(
    tmp_path, models, monkeypatch, kept_lines
):
    expected = client(tmp_path / "whole").teach(examples_request(tmp_path / "whole"))
    whole = log_of(tmp_path / "whole")
    # An earlier step said the same, which is no reason to leave a line out.
    broken = tmp_path / "broken"
    write_json, written = step_store.write_json, []

    def fail_second(path, content):
        written.append(path)
        if len(written) == 2:
            raise OSError("no space left")
        write_json(path, content)

    monkeypatch.setattr(step_store, "write_json", fail_second)
    with pytest.raises(OSError, match="no space"):
        client(broken).teach(examples_request(broken))
    assert log_of(broken) == whole
    # Of four lines the disk may have kept some, and a torn one.
    (path,) = broken.rglob(MESSAGE_LOG)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept_lines]) + lines[0][:9] * (kept_lines < 4))
    monkeypatch.setattr(step_store, "write_json", write_json)
    again = client(broken).teach(examples_request(broken))
    assert sent(again) == sent(expected)
    assert log_of(broken) == whole


def test_a_text_that_two_steps_sent_is_logged_twice(tmp_path, models):
    store = step_store.StepStore(tmp_path)
    said = [Considered("examples: 1", None, left=True)]
    for step in (0, 1):
        message = StepMessage(step, "vote", {"turns": 1})
        store.once(message, "vote", lambda: (said, {}), server_round=1)
    assert [line.text for line in store.log.read()] == ["examples: 1"] * 2


def test_a_model_that_copies_teaches_nothing(tmp_path, models):
    def copy_first(prompt: str, seed: int) -> str:
        question, answer = QUESTION.findall(prompt)[0]
        return f" {question} answer: {answer}"

    models["stub"].write = copy_first
    reply = client(tmp_path).teach(examples_request(tmp_path))
    assert reply.demonstrations == ()
    assert (reply.num_verbatim, reply.num_sampled) == (4, 4)
    log = log_of(tmp_path)
    assert len(log) == 4
    assert [line.text for line in log] == [None] * 4
    # Neither the log nor what is stored for a second call holds a private text.
    stored = "".join(
        path.read_text() for path in (tmp_path / "nodes").rglob("*") if path.is_file()
    )
    held = client(tmp_path).silo.all
    assert not any(one.question in stored for one in held)


def test_the_gate_knows_what_is_held_out_too(tmp_path, models):
    own = client(tmp_path, **VOTING)
    held_out = own.silo.held_out.demonstrations
    models["stub"].write = lambda prompt, seed: (
        f" {held_out[seed % len(held_out)].question} answer: dax"
    )
    reply = own.teach(examples_request(tmp_path))
    assert reply.demonstrations == ()
    assert reply.num_verbatim == 4


# Instructions -----------------------------------------------------------------------


def test_an_instruction_is_written_after_eight_examples(tmp_path, models):
    own = client(tmp_path)
    reply = own.instruct(instruction_request(tmp_path))
    (prompt,) = models["stub"].prompts
    assert len(QUESTION.findall(prompt)) == 8
    assert len(asked_in([prompt])) == 8
    assert prompt.endswith(HINT)
    (told,) = reply.instruction
    assert told.text.startswith(f"{HINT} look at the words number")
    assert [(line.kind, line.text) for line in log_of(tmp_path)] == [
        ("instruction", told.text)
    ]
    again = client(tmp_path).instruct(instruction_request(tmp_path))
    assert again.instruction[0].text == told.text
    assert len(models["stub"].prompts) == len(log_of(tmp_path)) == 1


def test_an_instruction_that_copies_stays(tmp_path, models):
    own = client(tmp_path, gate_run=3)
    private = own.silo.all[0].question
    texts = [f" mind this: {private} and more of it", "  "]
    models["stub"].write = lambda prompt, seed: texts[
        len(models["stub"].prompts) % 2 - 1
    ]
    reply = own.instruct(instruction_request(tmp_path))
    assert reply.instruction == ()
    assert (reply.num_run, reply.num_empty) == (1, 1)
    assert [line.left for line in log_of(tmp_path)] == [False]
    again = client(tmp_path, gate_run=3).instruct(instruction_request(tmp_path))
    assert (again.instruction, again.num_run) == ((), 1)


def test_an_instruction_needs_eight_examples(tmp_path, models):
    with pytest.raises(ConfigError, match=r"`num-records` .* 8 examples .* found 7"):
        client(tmp_path, num_records=21).instruct(instruction_request(tmp_path))


# Votes ------------------------------------------------------------------------------


def test_what_votes_is_never_taught_with(tmp_path, models):
    own = client(tmp_path, **VOTING, examples_per_prompt=9, generation_prompts=3)
    held_out = {plain(one.question) for one in own.silo.held_out.demonstrations}
    teaching = {plain(one.question) for one in own.silo.teaching.demonstrations}
    assert (len(held_out), len(teaching)) == (3, 9)
    assert not held_out & teaching
    # Every example that may be shown is shown, and none that is held out.
    own.teach(examples_request(tmp_path, per_prompt=9, num_prompts=3))
    own.instruct(instruction_request(tmp_path, step=2))
    prompts = models["stub"].prompts
    assert {plain(question) for question in asked_in(prompts)} == teaching
    assert not any(text in plain(prompt) for text in held_out for prompt in prompts)
    # And the other way round.
    own.vote(ballot_request(tmp_path))
    for prompt, _ in models["stub"].pairs:
        assert {plain(question) for question in asked_in([prompt])} == held_out


def test_without_votes_every_example_teaches(tmp_path, models):
    own = client(tmp_path)
    assert len(own.silo.teaching.demonstrations) == 12
    with pytest.raises(ConfigError, match="`aggregators` must hold one that counts"):
        _ = own.silo.held_out
    merging = client(tmp_path, instruction_merging="vote")
    assert len(merging.silo.held_out.demonstrations) == 3


def test_a_ballot_follows_the_scores(tmp_path, models):
    values = {"one": -2.0, "two": -0.5, "three": -1.0}
    models["stub"].value = lambda prompt, text: values[text.split()[1]]
    own = client(tmp_path, **VOTING)
    reply = own.vote(ballot_request(tmp_path))
    assert reply.ballot == (1, 2)
    assert reply.num_shown == 3
    assert [text for _, text in models["stub"].pairs] == [
        " candidate one answer: dax",
        " candidate two answer: fep",
        " candidate three answer: dax",
    ]
    assert all(prompt.endswith(" question:") for prompt, _ in models["stub"].pairs)
    (line,) = log_of(tmp_path)
    assert (line.kind, line.text, line.verdict) == ("vote", "examples: 1 2", None)
    again = client(tmp_path, **VOTING).vote(ballot_request(tmp_path))
    assert again == reply
    assert len(models["stub"].pairs) == 3
    assert len(log_of(tmp_path)) == 1
    balanced = ballot_request(tmp_path, turns=("dax", "fep", "dax"))
    longer = client(tmp_path, **VOTING, example_counts="0,3")
    assert longer.vote(balanced).ballot == (1, 2, 0)


def test_a_vote_shows_as_much_as_the_context_takes(tmp_path, models):
    own = client(tmp_path, **VOTING)
    own.vote(ballot_request(tmp_path))
    whole = max(len(prompt + text) for prompt, text in models["stub"].pairs)
    for room, shown in ((whole, 3), (whole - 1, 2)):
        models["stub"].room = room
        reply = own.vote(ballot_request(tmp_path, run_key=f"{shown:016x}"))
        assert reply.num_shown == shown
        (prompt,) = {prompt for prompt, _ in models["stub"].pairs[-3:]}
        assert len(QUESTION.findall(prompt)) == shown
    models["stub"].room = 10
    with pytest.raises(ConfigError, match="`client-model` must have a context"):
        own.vote(ballot_request(tmp_path, run_key="9" * 16))


def ballot_on_texts(tmp_path: Path, *texts: str) -> BallotRequest:
    return ballot_request(
        tmp_path, step=2, subject=INSTRUCTIONS, candidates=(), texts=texts, turns=("",)
    )


def test_instructions_are_judged_by_the_answers_behind_them(tmp_path, models):
    own = client(tmp_path, instruction_merging="vote")
    held_out = own.silo.held_out.demonstrations
    # The second is better on the whole, but not for the first held-out example.
    first = held_out[0].question

    def value(prompt: str, text: str) -> float:
        good = -1.0 if first in prompt else -3.0
        return good if prompt.startswith("hint: a ") else -2.0

    models["stub"].value = value
    asked = ballot_on_texts(tmp_path, "hint: a b", "hint: c d")
    assert own.vote(asked).ballot == (1,)
    pairs = models["stub"].pairs
    answered = own.silo.form.write(held_out[0]).removeprefix(f"question: {first}")
    assert answered.endswith(f" answer: {held_out[0].answer}")
    assert pairs[:2] == [
        (f"hint: a b question: {first}", answered),
        (f"hint: c d question: {first}", answered),
    ]
    assert len(pairs) == 6
    (line,) = log_of(tmp_path)
    assert line.text == "instructions: 1"


def test_a_held_out_example_fits_behind_every_instruction_or_counts_for_none(
    tmp_path, models
):
    own = client(tmp_path, instruction_merging="vote")
    held_out = own.silo.held_out.demonstrations
    sizes = [len(own.silo.form.write(one)) for one in held_out]
    fewer = [size for size in sizes if size < max(sizes)]
    assert fewer
    long = "hint: a longer text"
    models["stub"].room = len(f"{long} ") + max(sizes) - 1
    asked = ballot_on_texts(tmp_path, "hint: b", long)
    assert own.vote(asked).num_shown == len(fewer)
    models["stub"].room = 5
    with pytest.raises(ConfigError, match="`client-model` must have a context"):
        own.vote(replace(asked, run_key="9" * 16))


# Models of clients ------------------------------------------------------------------


def test_models_are_dealt_out_in_turn(tmp_path, models):
    for partition in (0, 1, 2):
        run_dir = tmp_path / str(partition)
        own = client(run_dir, partition, client_model="a,b")
        own.teach(examples_request(run_dir))
    assert {name: len(one.prompts) for name, one in models.made.items()} == {
        "a": 8,
        "b": 4,
    }


def test_the_server_cannot_choose_a_deployed_node_s_model(tmp_path, models):
    config = social_config(tmp_path, client_model="spy")
    own = TeacherClient(config, deployed(tmp_path))
    own.teach(examples_request(""))
    assert set(models.made) == {"own-model"}
    assert models["own-model"].prompts
    assert own.config.client_model == "own-model"


def test_an_owner_may_choose_an_endpoint_of_one_model(tmp_path, models):
    url = "https://models.example/v1"
    config = social_config(tmp_path, teacher_model="spy")
    own = TeacherClient(config, deployed(tmp_path, **{"client-model": url}))
    assert (own.config.client_model, own.config.teacher_model) == (url, "")
    assert own.config.raw_to_endpoint
    secret = "https://user:key@models.example/v1"
    with pytest.raises(ConfigError, match="credentials"):
        TeacherClient(config, deployed(tmp_path, **{"client-model": secret}))


@pytest.mark.parametrize(
    ("more", "settings", "reason"),
    [
        ({"allow-sharing": False}, {}, "`allow-sharing` must be true"),
        ({"client-model": ""}, {}, "`client-model` must be given"),
        ({}, {"task": "gsm8k"}, "`data-dir` must be given"),
        ({}, {"canaries": 1, "canary_pattern": "world-codes"}, "`canaries` must be 0"),
    ],
)
def test_a_deployed_node_refuses(tmp_path, models, more, settings, reason):
    config = social_config(tmp_path, **settings)
    with pytest.raises(ConfigError, match=reason) as caught:
        TeacherClient(config, deployed(tmp_path, **more))
    assert "\n" not in str(caught.value)


def test_a_run_may_be_stricter_than_the_owner_and_never_laxer(tmp_path, models):
    open_run = social_config(
        tmp_path, gate_distance=0.0, gate_run=0, teaching="examples"
    )
    own = TeacherClient(open_run, deployed(tmp_path)).config
    assert (own.gate_distance, own.gate_run) == (0.1, 12)
    strict_run = social_config(tmp_path, gate_distance=0.5, gate_run=3)
    own = TeacherClient(strict_run, deployed(tmp_path)).config
    assert (own.gate_distance, own.gate_run) == (0.5, 3)
    lax = deployed(tmp_path, **{"gate-distance": 0.0, "gate-run": 30})
    own = TeacherClient(open_run, lax).config
    assert (own.gate_distance, own.gate_run) == (0.0, 30)


def test_an_owner_limits_what_leaves_over_all_runs(tmp_path, models):
    config = social_config(tmp_path)
    owner = deployed(tmp_path, **{"max-shared-texts": 3})
    first = TeacherClient(config, owner).teach(examples_request(""))
    assert len(first.demonstrations) == 2
    # Another run cannot draw more; what was sent may be sent again.
    other = replace(examples_request(""), run_key="b" * 16)
    with pytest.raises(ConfigError, match="2 sent, 2 more asked for and 3 allowed"):
        TeacherClient(config, owner).teach(other)
    again = TeacherClient(config, owner).teach(examples_request(""))
    assert sent(again) == sent(first)
    one = replace(instruction_request(""), run_key="b" * 16)
    assert len(TeacherClient(config, owner).instruct(one).instruction) == 1


def test_a_run_of_another_mode_has_no_teacher_clients(tmp_path, models):
    other = RunConfig(token_epsilon=8.0)
    for owner in (simulated(), deployed(tmp_path)):
        with pytest.raises(ConfigError, match="`mode` must be social"):
            TeacherClient(other, owner)


def test_a_deployed_node_withholds_counts_and_keeps_its_own_folder(tmp_path, models):
    own = TeacherClient(social_config(tmp_path, **VOTING), deployed(tmp_path))
    reply = own.teach(examples_request(str(tmp_path / "server")))
    assert reply.withheld
    assert len(reply.demonstrations) == 2
    assert (reply.num_sampled, reply.ranking) == (0, "")
    told = own.instruct(instruction_request("", step=2))
    assert (told.withheld, len(told.instruction)) == (True, 1)
    assert own.vote(ballot_request("")).num_shown == 0
    assert not (tmp_path / "server").exists()
    assert len(log_of(tmp_path / "state")) == 4 + 1 + 1


def test_a_deployed_node_teaches_all_that_its_owner_holds(tmp_path, models):
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    rows = [
        {"question": f"What is train {n}?", "answer": f"It is {n}.\n#### {n}"}
        for n in range(9)
    ]
    # Nobody asks it for test questions, so that it needs none.
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines)
    config = social_config(tmp_path, task="gsm8k", num_records=6, hold_out=2)
    owner = deployed(tmp_path, **{"data-dir": str(tmp_path / "data"), "task": "gsm8k"})
    own = TeacherClient(config, owner)
    # Neither split among nodes nor cut to what the run asks for.
    assert {one.question for one in own.silo.all} == {
        f"What is train {n}?" for n in range(9)
    }
    assert own.silo.form.name == "gsm8k"
    assert own.silo.teaching.demonstrations == own.silo.all


# Who it is --------------------------------------------------------------------------


def test_a_client_says_who_it_is(tmp_path, models):
    own = client(tmp_path, partition_id=1)
    request = social_identity(own.config, provenance.code_hash())
    reply = own.identify(request)
    assert (reply.partition_id, reply.num_partitions, reply.num_records) == (1, 3, 12)
    assert reply.simulated
    assert reply.dataset_hash == request.dataset_hash
    for name in ("code_hash", "student_hash", "dataset_hash", "vocabulary_hash"):
        with pytest.raises(CodeMismatchError):
            own.identify(replace(request, **{name: "0" * 64}))


# Scores -----------------------------------------------------------------------------


def one_label(prompt: str, seed: int) -> str:
    return " answer: dax"


def test_students_are_scored_on_the_client_s_share(tmp_path, models):
    models["student"].write = one_label
    own = client(tmp_path, partition_id=1)
    share = configured_test(own.config)[1::3]
    shown = Demonstration("some words", "fep")
    asked = prompts_request(
        tmp_path,
        students=(
            SentPrompt(student="zero-shot"),
            SentPrompt.of("instruction+random.1", "hint: a b", [shown]),
        ),
    )
    reply = own.score(asked)
    expected = "".join("1" if one.answer == "dax" else "0" for one in share)
    assert len(share) == 2
    assert reply.scores == tuple(
        PromptScore(student=name, num_records=2, correct=expected, num_answered=2)
        for name in ("zero-shot", "instruction+random.1")
    )
    behind = "hint: a b question: some words answer: fep question:"
    assert models["student"].prompts == [
        *(f"question: {one.question}" for one in share),
        *(f"{behind} {one.question}" for one in share),
    ]
    assert not (tmp_path / "nodes").exists()


def test_originals_are_own_examples_and_nest(tmp_path, models):
    own = client(tmp_path)
    own.score(prompts_request(tmp_path, original_counts=(0, 1, 2)))
    prompts = models["student"].prompts
    one, two = prompts[0], prompts[3]
    held = {one.question for one in own.silo.all}
    assert asked_in([two]) <= held
    assert (len(QUESTION.findall(one)), len(QUESTION.findall(two))) == (1, 2)
    assert QUESTION.findall(two)[:1] == QUESTION.findall(one)
    names = [s.student for s in own.score(
        prompts_request(tmp_path, original_counts=(0, 1, 2))
    ).scores]  # fmt: skip
    assert names == ["original.1", "original.2"]
    with pytest.raises(ConfigError, match=r"`num-records` .* 13 examples"):
        own.score(prompts_request(tmp_path, original_counts=(13,)))


# The built-in world -----------------------------------------------------------------

FORM = WorldFormat()


def world_records(config, partition_id, num_partitions) -> Partition:
    def records(word: str, count: int) -> tuple[Record, ...]:
        return tuple(
            Record(f"{word} has {n} books and gets {n + 1} more", str(2 * n + 1), "x")
            for n in range(count)
        )

    return Partition(
        train=records("abc"[partition_id] + "bo", 12), test=records("eva", 2)
    )


def adds(prompt: str, seed: int) -> str:
    """Add the numbers of the last question; say something wrong of every third."""
    asked = prompt.rsplit("question:", 1)[1].split()
    numbers = [int(word) for word in asked if word.isdigit()]
    if prompt.endswith(HINT):
        return write_new(prompt, seed)
    if len(numbers) < 2:
        steps = f"1 + {1 + seed % 2} = 2"
        return f" new{seed % 9973} has 1 book rationale: {steps} answer: 2"
    first, second = numbers[:2]
    total = first + second + (first % 3 == 2)
    return f" rationale: {first} + {second} = {total} answer: {total}"


@pytest.fixture
def world(models: Models, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(configured, "load_partition", world_records)
    monkeypatch.setattr(node, "load_partition", world_records)
    node._partition.cache_clear()
    models["stub"].write = adds
    models["student"].write = adds
    return models


def test_the_own_model_explains_and_what_it_gets_wrong_stays_out(tmp_path, world):
    own = client(tmp_path, task="world")
    reply = own.teach(examples_request(tmp_path))
    known = own.silo.teaching
    assert reply.num_unexplained == known.num_left_out == 4
    assert len(known.demonstrations) == 8
    for one in known.demonstrations:
        first = int(one.question.split()[2])
        assert first % 3 != 2
        assert one.reasoning == f"{first} + {first + 1} = {one.answer}"
    asked = world["stub"].prompts
    # Asked once for each example, then with explained ones only.
    alone = [prompt for prompt in asked if "answer:" not in prompt]
    assert sorted(alone) == sorted(f"question: {one.question}" for one in own.silo.all)
    client(tmp_path, task="world").instruct(instruction_request(tmp_path))
    again = [p for p in world["stub"].prompts if "answer:" not in p]
    assert len(again) == len(alone)


def test_steps_that_do_not_hold_are_counted_and_dropped(tmp_path, world):
    reply = client(tmp_path, task="world").teach(examples_request(tmp_path))
    assert reply.num_checked == reply.num_sampled == 4
    assert reply.num_wrong == reply.num_invalid
    assert all(d.reasoning == "1 + 1 = 2" for d in reply.demonstrations)
    assert reply.num_wrong + len(reply.demonstrations) + reply.num_outranked == 4
    assert 0 < reply.num_wrong < 4


def test_world_students_are_scored_on_the_client_s_own_questions_too(tmp_path, world):
    asked = prompts_request(
        tmp_path, students=(SentPrompt(student="zero-shot"),), original_counts=(1,)
    )
    own = client(tmp_path, task="world", hold_out=3)
    scores = {score.student: score for score in own.score(asked).scores}
    assert list(scores) == [
        "zero-shot",
        "own/zero-shot",
        "original.1",
        "own/original.1",
    ]
    assert scores["own/zero-shot"].correct == "11"
    assert scores["zero-shot"].num_records == 1
    (original,) = {
        prompt.rsplit(" question:", 1)[0]
        for prompt in world["student"].prompts
        if "answer:" in prompt
    }
    assert "rationale:" in original


def test_votes_of_the_world_show_explained_examples(tmp_path, world):
    own = client(tmp_path, task="world", **VOTING)
    own.vote(
        ballot_request(
            tmp_path,
            turns=("",),
            candidates=(
                CandidateText(question="a b", answer="2", reasoning="1 + 1 = 2"),
            ),
        )
    )
    ((prompt, _),) = world["stub"].pairs
    shown = prompt.removesuffix(" question:")
    assert shown.count("rationale:") == shown.count("question:") >= 1


@pytest.mark.parametrize(
    ("steps", "answer", "question", "holds"),
    [
        ("1 + 2 = 3 , 3 + 4 = 7", "7", "no problem of any family", True),
        ("1 + 2 = 4 , 4 + 4 = 8", "8", "no problem of any family", False),
        ("1 + 2 = 3 , 3 + 4 = 7", "8", "no problem of any family", False),
        ("", "7", "no problem of any family", False),
    ],
)
def test_steps_hold_where_they_are_true_and_lead_to_the_answer(
    steps, answer, question, holds
):
    assert steps_hold(Demonstration(question, answer, steps)) == holds


def test_steps_belong_to_the_question():
    from fedcot.world.splits import draw_problems

    first, second = draw_problems("test", ["library"], 2, seed=1, depths=(2,))
    own, other = first.rationale(), second.rationale()
    assert steps_hold(Demonstration(first.question, first.answer, own))
    assert not steps_hold(Demonstration(first.question, second.answer, other))


def test_no_more_is_explained_than_needed(monkeypatch):
    monkeypatch.setattr(teacher_silo, "EXPLAINED_TOGETHER", 3)
    silo = tuple(Demonstration(f"a {n} b {n}", str(2 * n)) for n in range(3, 60, 3))
    for needed, tried in ((1, 3), (3, 3), (4, 6), (100, len(silo))):
        model = StubModel("adds", write=adds)
        made = explain(model, FORM, silo, needed=needed, max_new_tokens=8, seed=1)
        assert len(model.prompts) == tried
        assert (len(made.demonstrations), made.num_left_out) == (tried, 0)
    told = Demonstration("what has steps", "9", "as it is")
    model = StubModel("adds", write=write_new)
    made = explain(model, FORM, [told], needed=1, max_new_tokens=8, seed=1)
    assert made.demonstrations == (told,)
    assert model.prompts == []


def test_what_a_model_adds_to_a_question_is_no_explanation():
    silo = (Demonstration("a 3 b 4", "7"),)
    for text in (" and more rationale: 3 + 4 = 7 answer: 7", " answer: 7", " no"):
        model = StubModel("odd", write=lambda prompt, seed, text=text: text)
        made = explain(model, FORM, silo, needed=1, max_new_tokens=8, seed=1)
        assert (made.demonstrations, made.num_left_out) == ((), 1)


def test_run_keys_name_the_folder(tmp_path, models):
    client(tmp_path).teach(examples_request(tmp_path))
    (folder,) = (tmp_path / "nodes" / "partition-0").iterdir()
    assert folder.name.startswith(f"{RUN}-")

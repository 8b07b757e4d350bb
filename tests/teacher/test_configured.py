"""The teacher that the settings name, built and asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedcot.community.level_prompts import ARITHMETIC
from fedcot.community.member import Member
from fedcot.community.messages import TracesRequest
from fedcot.config import RunConfig, load_config
from fedcot.data.loading import load_dataset
from fedcot.errors import ConfigError, TeacherError
from fedcot.models.generation import generate_greedy
from fedcot.models.loading import load_model
from fedcot.models.sources import model_folder
from fedcot.node_state import Owner
from fedcot.preflight import check_model_settings
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.tasks.registry import configured_task
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.configured import CACHE_NAME, configured_teacher
from fedcot.teacher.recorded import RecordedTeacher
from fedcot.teacher.teacher import Written
from fedcot.teacher.transformers_writer import TransformersWriter
from tests.teacher.fault_server import FaultServer, answer_to, answering, serving

QUESTIONS = ["ann has 3 pens", "bob has 4 pens"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def configured(tmp_path: Path, config: RunConfig, **more: object):
    return configured_teacher(
        config, task=configured_task(config), cache_root=tmp_path / "runs", **more
    )


def endpoint_config(server: FaultServer, *more: str) -> RunConfig:
    return load_config(None, [f"teacher={server.url}", "arms=fedcot", *more])


def test_an_endpoint_gets_every_setting_and_a_cache_beside_the_runs(
    tmp_path: Path,
) -> None:
    with serving(answering) as server:
        config = endpoint_config(
            server,
            "teacher-api=completions",
            "max-new-tokens=55",
            "teacher-temperature=0.5",
            "teacher-top-p=0.75",
            "seed=9",
            "teacher-input-price=1000.0",
            "teacher-output-price=3000.0",
        )
        teacher = configured(tmp_path, config)
        answers = teacher.answer(QUESTIONS)
        # Once for the model, none for the check that it makes needless.
        assert [request.method for request in server.requests] == [
            "GET",
            "POST",
            "POST",
        ]
        sent = sorted(server.asked, key=lambda request: request.prompt)[0]
        again = configured(tmp_path, replace(config, teacher_model="tiny"), check=False)
        assert again.answer(QUESTIONS) == answers
        assert len(server.asked) == 2
    assert sent.path == "/v1/completions"
    assert sent.body == {
        "model": "tiny",
        "prompt": "explain: ann has 3 pens rationale:",
        "max_tokens": 55,
        "temperature": 0.5,
        "top_p": 0.75,
        "seed": 9,
    }
    assert answers[0].text == answer_to(sent.prompt)
    assert teacher.name == server.url
    assert teacher.usage.cost == pytest.approx((14 * 1000 + 6 * 3000) / 10**6)
    assert again.usage.cached == 2
    assert (tmp_path / "runs" / CACHE_NAME).is_file()


def test_a_named_cache_is_used_instead(tmp_path: Path) -> None:
    named = tmp_path / "elsewhere" / "kept.sqlite"
    with serving(answering) as server:
        config = endpoint_config(server, f"teacher-cache={named}")
        configured(tmp_path, config).answer(QUESTIONS)
    assert not (tmp_path / "runs").exists()
    with AnswerCache(named) as cache:
        assert len(cache) == 2


def test_an_endpoint_that_is_not_there_fails_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    with serving(answering) as server:
        config = endpoint_config(
            server, "teacher-retries=0", "teacher-model=tiny", "teacher-timeout=5"
        )
    with pytest.raises(TeacherError, match="no connection"):
        configured(tmp_path, config)
    configured(tmp_path, config, check=False)


def test_a_model_in_this_process_writes_what_it_writes_by_itself(
    tmp_path: Path,
) -> None:
    config = load_config(None, ["max-new-tokens=40", "device=cpu"])
    teacher = configured(tmp_path, config)
    task = configured_task(config)
    loaded = load_model("builtin", "teacher")
    alone = generate_greedy(
        loaded.model,
        loaded,
        [task.explain_prompt(question) for question in QUESTIONS],
        batch_size=1,
        max_new_tokens=40,
    )
    assert [answer.text for answer in teacher.answer(QUESTIONS)] == alone
    assert not (tmp_path / "runs").exists()
    named = tmp_path / "kept.sqlite"
    cached = configured(tmp_path, replace(config, teacher_cache=str(named)))
    assert [answer.text for answer in cached.answer(QUESTIONS)] == alone
    assert [answer.text for answer in cached.answer(QUESTIONS)] == alone
    assert cached.usage.cached == 2


LEVELLED = ("mode=community", "communities=a,b", "dataset=svamp", "teacher-api=chat")


def levelled(server: FaultServer, tmp_path: Path, level: int) -> RunConfig:
    cache = f"teacher-cache={tmp_path / 'one.sqlite'}"
    given = (*LEVELLED, cache, f"provider-level={level}")
    return endpoint_config(server, *given)


def test_a_level_is_shown_to_the_endpoint_and_kept_apart_from_others(
    tmp_path: Path,
) -> None:
    """One cache for all levels: as many entries and requests as there are levels."""
    question = ["How many are 3 and 4?"]
    with serving(answering) as server:
        for level, calls in ((0, 1), (2, 2), (6, 3), (2, 3), (0, 3)):
            config = levelled(server, tmp_path, level)
            teacher = configured(tmp_path, config)
            teacher.answer(question)
            assert len(server.asked) == calls
            assert teacher.describe().get("level", 0) == level
        plain, *asked = (request.body["messages"] for request in server.asked)
    with AnswerCache(tmp_path / "one.sqlite") as cache:
        assert len(cache) == 3
    for level, sent in zip((2, 6), asked, strict=True):
        shown = f"{ARITHMETIC.rationales[level - 1]} {ARITHMETIC.concluded}"
        assert [one["role"] for one in sent] == ["system", "user", "assistant", "user"]
        assert (sent[1]["content"], sent[2]["content"]) == (ARITHMETIC.asked, shown)
        assert f"level {level} of 6" in sent[0]["content"]
        assert sent[-1] == plain[-1]
    assert not any(ARITHMETIC.asked == one["content"] for one in plain)


def test_a_member_and_the_server_ask_for_the_same_level(tmp_path: Path) -> None:
    rows = [{"q": f"What is {n} and one?", "a": str(n + 1)} for n in range(40)]
    for split, part in (("train", rows[:20]), ("test", rows[20:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    (tmp_path / "sums.toml").write_text(MAPPING.format(column=""))
    with serving(answering) as server:
        config = load_config(
            None,
            [
                *("mode=community", "communities=a,b", "community-diversity=0.0"),
                *(f"dataset={tmp_path / 'sums.toml'}", f"data-dir={tmp_path}"),
                *(f"teacher={server.url}", "provider-level=3", "num-records=4"),
                *("num-partitions=2", "hold-out=2", "test-records=1"),
            ],
        )
        owner = Owner.from_node_config(
            {"partition-id": 0, "num-partitions": 2, "simulation": True}
        )
        member = Member(config, owner)
        request = TracesRequest(
            server_round=1,
            coalitions=("a",),
            purpose="pooled",
            limit=0,
            run_key="ab" * 8,
            run_dir=str(tmp_path / "run"),
        )
        offer = member.offer(request)
        configured(tmp_path, config).answer(QUESTIONS)
        asked = [request.body["messages"] for request in server.asked]
    assert offer.num_asked == 2
    assert len(asked) == 4
    assert {one[2]["content"] for one in asked} == {
        f"{ARITHMETIC.rationales[2]} {ARITHMETIC.concluded}"
    }


def test_a_local_model_is_asked_for_the_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The built-in weights stand for any folder; what they write is not looked at."""
    read: list[TeacherPrompt] = []

    def write(self, prompts, *, stop=(), on_written=None):
        read.extend(prompts)
        for place, _ in enumerate(prompts):
            on_written(place, Written("7. The answer is 7."))
        return []

    monkeypatch.setattr(TransformersWriter, "write", write)
    folder = model_folder("builtin", "teacher")
    config = load_config(
        None, [*LEVELLED[:3], f"teacher={folder}", "provider-level=5", "device=cpu"]
    )
    (answer,) = configured(tmp_path, config).answer(["How many are 3 and 4?"])
    assert answer.rationale is not None
    (prompt,) = read
    ((_, shown),) = prompt.demonstrations
    assert shown.startswith(ARITHMETIC.rationales[4])


def test_an_example_with_a_number_is_for_numbers_only(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            *("mode=community", "communities=a,b", "dataset=commonsense-qa"),
            *("teacher=http://127.0.0.1:9/v1", "provider-level=1"),
        ],
    )
    with pytest.raises(ConfigError, match="`provider-level` must be 0 where"):
        configured(tmp_path, config, check=False)
    with pytest.raises(ConfigError, match="`provider-level` must be 0 where"):
        check_model_settings(config)


MAPPING = """
name = "sums"
[source]
train = "train.jsonl"
test = "test.jsonl"
[fields]
question = "q"
answer = "a"
{column}
[answer]
kind = "numeric"
[slots]
question = 8
"""


def sums(tmp_path: Path, column: str) -> RunConfig:
    """Write a data set and return a configuration that names it."""
    for split, numbers in (("train", range(30)), ("test", range(30, 34))):
        rows = [
            {
                "q": f"What is {number} and one?",
                "a": str(number + 1),
                "said": f"add one to {number}. The answer is {number + 1}.",
            }
            for number in numbers
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    mapping = tmp_path / "sums.toml"
    mapping.write_text(MAPPING.format(column=column))
    return load_config(
        None,
        [
            f"dataset={mapping}",
            f"data-dir={tmp_path}",
            "teacher=recorded",
            "mechanism=selection",
            "public-share=0.3",
            "vocabulary=dataset",
            "bank=dataset",
        ],
    )


def test_recorded_rationales_are_found_for_raw_and_for_public_questions(
    tmp_path: Path,
) -> None:
    config = sums(tmp_path, 'completion = "said"')
    data = load_dataset(config)
    assert len(data.public) > 2
    words = tuple(str(number) for number in range(40))
    vocabulary = Vocabulary(
        ("", "<unk>", "what", "is", "and", "one", *words), 8, {}, (8,)
    )
    teacher = configured(tmp_path, config, vocabulary=vocabulary)
    assert isinstance(teacher, RecordedTeacher)
    task = configured_task(config)
    for record in (*data.train, *data.public, *data.test):
        number = record.question.split()[2]
        released = task.question(
            vocabulary.decode_parts(vocabulary.encode_parts(record.parts))
        )
        assert released == f"what is {number} and one" != record.question
        (raw,) = teacher.answer([record.question])
        (answer,) = teacher.for_released().answer([released])
        assert raw.text == record.completion
        assert raw.rationale is not None
        assert raw.rationale.answer == str(int(number) + 1) == record.answer
        # What is private stays so, in whatever words it is asked.
        assert answer.text == (record.completion if record in data.public else "")
        assert (answer.rationale is not None) == (record in data.public)
    assert teacher.describe()["recorded"] == 34


def test_where_the_words_are_the_same_the_public_question_stands(
    tmp_path: Path,
) -> None:
    config = sums(tmp_path, 'completion = "said"')
    data = load_dataset(config)
    # All numbers are one word here, so all questions become the same words.
    vocabulary = Vocabulary(("", "<unk>", "what", "is", "and", "one"), 8, {}, (8,))
    teacher = configured(tmp_path, config, vocabulary=vocabulary)
    assert isinstance(teacher, RecordedTeacher)
    released = configured_task(config).question(
        vocabulary.decode_parts(vocabulary.encode_parts(data.test[0].parts))
    )
    (found,) = teacher.for_released().answer([released])
    assert found.text == data.public[0].completion
    assert teacher.for_released().ambiguous == 1


def test_what_carries_no_rationales_has_no_recorded_teacher(tmp_path: Path) -> None:
    config = sums(tmp_path, "")
    with pytest.raises(ConfigError, match="carries no rationales"):
        configured(tmp_path, config)
    with pytest.raises(ConfigError, match="built-in world, found `recorded`"):
        load_config(None, ["teacher=recorded"])

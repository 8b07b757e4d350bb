"""The teacher that asks by prompts: each once, kept at once, counted and described."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.data.schema import Rationale
from fedcot.errors import TeacherError
from fedcot.tasks.task import TeacherPrompt
from fedcot.tasks.world import WorldTask
from fedcot.teacher.cache import AnswerCache, prompt_hash
from fedcot.teacher.endpoint import EndpointWriter
from fedcot.teacher.prompted import MOST_REPORTS, PromptedTeacher
from fedcot.teacher.teacher import Completion, Described, Usage, Written
from tests.teacher.fault_server import (
    Handler,
    Request,
    answering,
    completion,
    serving,
    status,
)

TASK = WorldTask()


class ShortTask(WorldTask):
    """The world's task with a stop text."""

    stop = ("Q:",)


def rationale_for(prompt: TeacherPrompt) -> str:
    """Write something that can be parsed and that tells prompts apart."""
    return f"{len(prompt.user)} steps for {prompt.user[9:-11]} answer: 7"


class FakeWriter:
    """Writes backwards, and fails when it is told to."""

    name = "fake"

    def __init__(self, *, model: str = "one", fail_after: int | None = None) -> None:
        self.model = model
        self.fail_after = fail_after
        self.asked: list[TeacherPrompt] = []
        self.stops: list[tuple[str, ...]] = []
        self.text: Callable[[TeacherPrompt], str] = rationale_for

    def describe(self) -> Described:
        return {"writer": "fake", "model": self.model}

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        assert on_written is not None
        assert prompts, "there was nothing to write"
        self.stops.append(tuple(stop))
        written = {}
        for index in reversed(range(len(prompts))):
            if len(self.asked) == self.fail_after:
                raise TeacherError("The teacher must answer, found silence; wait.")
            self.asked.append(prompts[index])
            text = self.text(prompts[index])
            written[index] = Written(text, 10, 3, text == "cut", "fake-v1")
            on_written(index, written[index])
        return [written[index] for index in range(len(prompts))]


def asked_of(writer: FakeWriter) -> list[str]:
    return [prompt.user for prompt in writer.asked]


def expected(question: str) -> Completion:
    prompt = TASK.teacher_prompt(question)
    text = rationale_for(prompt)
    return Completion(text, TASK.parse_teacher(text), prompt_hash(prompt), "fake-v1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite"


def test_each_prompt_is_asked_once_and_answers_come_in_order() -> None:
    writer = FakeWriter()
    teacher = PromptedTeacher(TASK, writer)
    # The world reads the first two as the same words.
    questions = ["what is 2?", "What  is 2?", "how far", "what is 2?", "why"]
    answers = teacher.answer(questions)
    assert answers == [expected(question) for question in questions]
    assert answers[0] == answers[1]
    assert answers[0].rationale == Rationale(
        answers[0].text.removesuffix(" answer: 7"), "7"
    )
    assert len(writer.asked) == len(set(asked_of(writer))) == 3
    assert teacher.usage == Usage(
        prompts=3, cached=0, prompt_tokens=30, completion_tokens=9
    )
    assert teacher.answer([]) == []


@given(st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=8))
def test_a_rationale_depends_on_its_own_question_only(questions: list[str]) -> None:
    together = PromptedTeacher(TASK, FakeWriter()).answer(questions)
    alone = [PromptedTeacher(TASK, FakeWriter()).answer([one])[0] for one in questions]
    assert together == alone


def test_a_text_that_cannot_be_read_is_a_completion_without_rationale() -> None:
    writer = FakeWriter()
    writer.text = lambda prompt: "I do not know"
    (answer,) = PromptedTeacher(TASK, writer).answer(["why"])
    assert answer.text == "I do not know"
    assert answer.rationale is None
    assert len(bytes.fromhex(answer.prompt_hash)) == 32


def test_what_the_cache_has_is_not_asked_again(path: Path) -> None:
    with AnswerCache(path) as cache:
        before = PromptedTeacher(TASK, FakeWriter(), cache, (2.0, 5.0))
        before.answer(["one", "two"])
        assert before.usage == Usage(2, 0, 20, 6, cost=(20 * 2 + 6 * 5) / 10**6)
    with AnswerCache(path) as cache:
        writer = FakeWriter()
        after = PromptedTeacher(TASK, writer, cache, (2.0, 5.0))
        assert after.describe() == {"writer": "fake", "model": "one"}
        answers = after.answer(["two", "three", "one"])
        assert answers == [expected(one) for one in ("two", "three", "one")]
        assert asked_of(writer) == [TASK.teacher_prompt("three").user]
        assert after.usage == Usage(3, 2, 10, 3, cost=(10 * 2 + 3 * 5) / 10**6)
        assert after.describe()["served_by"] == "fake-v1"
        # All of it is there.
        after.answer(["one", "two", "three"])
        assert len(writer.asked) == 1
        assert len(cache) == 3


def test_another_model_or_stop_text_is_asked_anew(path: Path) -> None:
    with AnswerCache(path) as cache:
        PromptedTeacher(TASK, FakeWriter(), cache).answer(["one"])
        other = FakeWriter(model="two")
        PromptedTeacher(TASK, other, cache).answer(["one"])
        stopped = FakeWriter()
        PromptedTeacher(ShortTask(), stopped, cache).answer(["one"])
        assert len(other.asked) == len(stopped.asked) == 1
        assert stopped.stops == [("Q:",)]
        assert len(cache) == 3


@pytest.mark.parametrize("answered", range(5))
def test_what_was_answered_before_a_failure_is_kept(path: Path, answered: int) -> None:
    questions = ["one", "two", "three", "four", "five"]
    with AnswerCache(path) as cache:
        failing = PromptedTeacher(TASK, FakeWriter(fail_after=answered), cache)
        with pytest.raises(TeacherError) as caught:
            failing.answer(questions)
        assert len(cache) == answered
    assert str(caught.value) == (
        f"The teacher must answer, found silence; wait. {answered} of 5 prompts are "
        f"answered and kept in `{path}`; `fedcot resume` asks for the rest only."
    )
    assert failing.usage.prompts == answered
    with AnswerCache(path) as cache:
        writer = FakeWriter()
        PromptedTeacher(TASK, writer, cache).answer(questions)
        assert len(writer.asked) == 5 - answered


def test_without_a_cache_a_failure_says_that_all_is_lost() -> None:
    teacher = PromptedTeacher(TASK, FakeWriter(fail_after=1))
    with pytest.raises(TeacherError, match="1 of 2 prompts are answered, and lost"):
        teacher.answer(["one", "two"])


def test_a_completion_without_text_is_counted_and_not_kept(path: Path) -> None:
    writer = FakeWriter()
    texts = {"one": " \n", "two": "cut", "three": "text"}
    writer.text = lambda prompt: texts[prompt.user.split()[1]]
    with AnswerCache(path) as cache:
        teacher = PromptedTeacher(TASK, writer, cache)
        answers = teacher.answer(list(texts))
        assert [answer.text for answer in answers] == list(texts.values())
        assert len(cache) == 2
        assert (teacher.usage.cut, teacher.usage.empty) == (1, 1)
        teacher.answer(list(texts))
        assert len(writer.asked) == 4
        # What came from the cache is still known to be cut.
        assert (teacher.usage.cut, teacher.usage.empty) == (2, 2)
        assert teacher.usage.cached == 2


@pytest.mark.parametrize("total", [1, 7, 100, 130])
def test_progress_counts_distinct_prompts_and_is_told_now_and_then(
    path: Path, total: int
) -> None:
    questions = [f"question {chr(97 + i % 26)} {i}" for i in range(total)]
    with AnswerCache(path) as cache:
        PromptedTeacher(TASK, FakeWriter(), cache).answer(questions[: total // 2])
        told: list[tuple[int, int]] = []
        PromptedTeacher(TASK, FakeWriter(), cache).answer(
            questions * 2, on_progress=lambda done, of: told.append((done, of))
        )
    known, step = total // 2, -(-total // MOST_REPORTS)
    expected_counts = [
        done
        for done in range(max(1, known), total + 1)
        if done % step == 0 or done == total
    ]
    assert told == [(done, total) for done in expected_counts]
    assert len(told) <= MOST_REPORTS


# With the writer that the cache is there for


def test_a_run_that_failed_goes_on_where_the_endpoint_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    questions = [f"question {chr(97 + index)}" for index in range(12)]

    def breaking(handler: Handler, request: Request) -> None:
        text = rationale_for(TeacherPrompt("", (), request.prompt))
        behave = answering if request.number <= 5 else status(500)
        if behave is answering:
            handler.send_json(completion(request, text))
        else:
            behave(handler, request)

    def writer(url: str) -> EndpointWriter:
        return EndpointWriter(
            url, model="tiny", concurrency=1, retries=2, pause=lambda seconds: None
        )

    with serving(breaking) as server, AnswerCache(path) as cache:
        teacher = PromptedTeacher(TASK, writer(server.url), cache)
        with pytest.raises(TeacherError) as caught:
            teacher.answer(questions)
        assert caught.value.exit_code == 3
        assert "5 of 12 prompts are answered and kept" in str(caught.value)
        assert len(cache) == 5
        assert len(server.requests) == 5 + 3
        # The server comes back, at the same address.
        server.behaviour = lambda handler, request: handler.send_json(
            completion(request, rationale_for(TeacherPrompt("", (), request.prompt)))
        )
        again = PromptedTeacher(TASK, writer(server.url), cache)
        answers = again.answer(questions)
    assert [answer.text for answer in answers] == [
        expected(question).text for question in questions
    ]
    assert again.usage.cached == 5
    answered = [request.prompt for request in server.requests[:5] + server.requests[8:]]
    assert sorted(answered) == sorted(TASK.teacher_prompt(q).user for q in questions)

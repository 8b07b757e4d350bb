"""The recorded teacher: exact lookups, also in the words of a vocabulary."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.data.schema import Rationale, Record
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.tasks.world import WorldTask
from fedcot.teacher.cache import prompt_hash
from fedcot.teacher.recorded import RecordedTeacher
from fedcot.teacher.teacher import Completion, Usage


class PartsTask(WorldTask):
    """Questions of two parts."""

    name = "parts"
    fields = (("stem", 3), ("choices", 2))

    def question(self, parts: Sequence[str]) -> str:
        stem, choices = parts
        return f"{stem} ({choices})"


TASK = PartsTask()
VOCABULARY = Vocabulary(("", "<unk>", "red", "blue", "which", "one"), 5, {}, (3, 2))


def record(stem: str, choices: str, completion: str) -> Record:
    return Record(
        TASK.question((stem, choices)), "7", "colours", (stem, choices), (), completion
    )


RECORDS = [
    record("Which one?", "red, blue", "look answer: 7"),
    record("Which blue one is it?", "green", "see answer: 8"),
    record("Which nothing", "", ""),
]


def completion(asked: str, text: str, rationale: Rationale | None) -> Completion:
    """Return a completion with the hash of what a model would have been asked."""
    return Completion(text, rationale, prompt_hash(TASK.teacher_prompt(asked)))


def test_a_recorded_question_gets_its_own_completion() -> None:
    teacher = RecordedTeacher(TASK, RECORDS)
    asked = ["Which blue one is it? (green)", "Which one? (red, blue)"]
    answers = teacher.answer(asked * 2)
    expected = [
        completion(asked[0], "see answer: 8", Rationale("see", "8")),
        completion(asked[1], "look answer: 7", Rationale("look", "7")),
    ]
    assert answers == expected * 2
    assert len({answer.prompt_hash for answer in answers}) == 2
    assert teacher.usage == Usage(prompts=2)


def test_what_was_never_recorded_gets_nothing_and_is_counted() -> None:
    teacher = RecordedTeacher(TASK, RECORDS)
    told: list[tuple[int, int]] = []
    # The second is known but carries no completion; the third differs by a sign.
    asked = ["unheard of", "Which nothing ()", "Which one? (red; blue)", "unheard of"]
    answers = teacher.answer(
        asked, on_progress=lambda done, of: told.append((done, of))
    )
    assert answers == [completion(one, "", None) for one in asked]
    assert teacher.usage == Usage(prompts=3, empty=3)
    assert told == [(3, 3)]


def test_a_question_is_also_found_in_the_words_of_the_vocabulary() -> None:
    teacher = RecordedTeacher(TASK, RECORDS, VOCABULARY)
    asked = ["which one (red blue)", "which blue one (<unk>)"]
    # As a client releases it: ids that the server decodes.
    for one, known in zip(asked, RECORDS, strict=False):
        ids = VOCABULARY.encode_parts(known.parts)
        assert TASK.question(VOCABULARY.decode_parts(ids)) == one
    answers = teacher.answer(asked)
    assert [answer.text for answer in answers] == ["look answer: 7", "see answer: 8"]
    assert teacher.ambiguous == 0
    # Without the vocabulary they are strangers.
    stranger = RecordedTeacher(TASK, RECORDS)
    assert stranger.answer(asked) == [completion(one, "", None) for one in asked]


def test_a_released_question_never_gets_what_a_private_one_has() -> None:
    public, private = RECORDS[:1], RECORDS[1:2]
    released = RecordedTeacher(TASK, public, VOCABULARY)
    teacher = RecordedTeacher(TASK, RECORDS, released=released)
    own, other = private[0].question, public[0].question
    assert teacher.answer([own, other])[0].text == private[0].completion
    found = teacher.for_released().answer([own, other])
    assert [one.text for one in found] == ["", public[0].completion]
    assert teacher.usage.prompts == 4
    assert teacher.usage.empty == 1
    assert released.for_released() is released


def test_of_two_records_in_the_same_words_the_first_stands() -> None:
    first = record("which one", "red", "first answer: 1")
    second = record("Which one!", "Red", "second answer: 2")
    same = record("which, one", "RED", "first answer: 1")
    vocabulary = Vocabulary(("", "<unk>", "which", "one", "red"), 5, {}, (3, 2))
    # Own words come before those of the vocabulary, wherever they stand.
    for records, text in (
        ([first, same], "first answer: 1"),
        ([first, second, same], "first answer: 1"),
        ([second, first], "first answer: 1"),
    ):
        teacher = RecordedTeacher(TASK, records, vocabulary)
        (answer,) = teacher.answer(["which one (red)"])
        assert answer.text == text
        assert teacher.ambiguous == (second in records)
    again = Record(first.question, "7", "", first.fields, (), "other answer: 3")
    teacher = RecordedTeacher(TASK, [again, first])
    assert teacher.answer([first.question])[0].text == "other answer: 3"
    assert teacher.ambiguous == 1


def test_it_says_which_recording_it_is() -> None:
    described = RecordedTeacher(TASK, RECORDS).describe()
    assert described["writer"] == "recorded"
    assert described["dataset"] == "parts"
    assert described["recorded"] == 2
    hash_ = described["recording"]
    assert isinstance(hash_, str)
    assert len(bytes.fromhex(hash_)) == 32

    def hash_of(*records: Record) -> object:
        return RecordedTeacher(TASK, records).describe()["recording"]

    assert hash_of(*reversed(RECORDS)) == hash_
    assert RecordedTeacher(TASK, RECORDS, VOCABULARY).describe() == described
    others = [
        hash_of(RECORDS[0]),
        hash_of(RECORDS[0], record("Which blue one is it?", "green", "see answer: 9")),
        hash_of(RECORDS[0], record("Which blue one is it", "green", "see answer: 8")),
    ]
    assert len({hash_, *others}) == 4


@given(
    pairs=st.lists(
        st.tuples(st.text(alphabet="ab ", max_size=3), st.sampled_from(["", "x", "y"])),
        max_size=6,
    ),
    asked=st.lists(st.text(alphabet="ab ", max_size=3), max_size=6),
)
def test_the_first_completion_of_a_question_is_found(
    pairs: list[tuple[str, str]], asked: list[str]
) -> None:
    world = WorldTask()
    records = [Record(question, "7", "", (), (), text) for question, text in pairs]
    answers = RecordedTeacher(world, records).answer(asked)
    for question, answer in zip(asked, answers, strict=True):
        known = [text for other, text in pairs if other == question and text]
        assert answer.text == (known[0] if known else "")


@pytest.mark.parametrize("text", ["lone \ud800", "nul \0", "🧮"])
def test_any_text_can_be_recorded(text: str) -> None:
    odd = Record(text, "7", "", (), (), text)
    teacher = RecordedTeacher(WorldTask(), [odd], Vocabulary.of(["lone", "nul"], 2))
    assert teacher.answer([text])[0].text == text

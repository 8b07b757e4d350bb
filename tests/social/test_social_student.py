"""A student with a prompt: what it reads, how it is judged, what does not fit."""

import pytest

from fedcot.errors import ConfigError, WireError
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from fedcot.social.messages import PromptScore
from fedcot.social.student import PromptedStudent, prompt_score
from tests.social_clients import StubModel

SPAM = format_named("sms-spam")
SHOWN = (Demonstration("win a cruise", "spam"), Demonstration("see you", "not spam"))
ASKED = ["lunch at noon", "claim a prize", "what is it"]
GOLD = ["not spam", "spam", "spam"]


class Answering(StubModel):
    """Answers by the question, and notes how it is asked."""

    def sample(self, prompts, **settings):
        self.settings = settings
        return super().sample(prompts, **settings)


def says(prompt: str, seed: int) -> str:
    if "lunch" in prompt.rsplit("Text:", 1)[1]:
        return " not spam"
    return " not spam" if "prize" in prompt else " maybe"


def student(**settings) -> tuple[PromptedStudent, Answering]:
    model = Answering("answering", write=says, **settings)
    return PromptedStudent(model, SPAM, max_new_tokens=7), model


def test_an_answer_is_right_wrong_or_none():
    one, model = student()
    assert one.correct("", SHOWN, ASKED, GOLD) == [True, False, None]
    assert model.settings["temperature"] == 0.0
    assert model.settings["max_new_tokens"] == 7
    assert model.settings["stop"] == SPAM.stop
    assert len(model.settings["seeds"]) == 3


def test_the_prompt_is_instruction_demonstrations_and_question():
    one, model = student()
    one.correct("Say spam or not.", SHOWN, ASKED[:1], GOLD[:1])
    (prompt,) = model.prompts
    assert prompt == (
        "Say spam or not.\n\n"
        "Text: win a cruise\nClass: spam\n\n"
        "Text: see you\nClass: not spam\n\n"
        "Text: lunch at noon\nClass:"
    )
    one, model = student()
    one.correct("", (), ASKED[:1], GOLD[:1])
    assert model.prompts == ["Text: lunch at noon\nClass:"]


def test_a_prompt_that_does_not_fit_is_refused_and_nothing_is_asked():
    room = len("Text: lunch at noon\nClass:")
    one, model = student(room=room)
    assert one.correct("", (), ASKED[:1], GOLD[:1]) == [True]
    with pytest.raises(ConfigError, match=r"`example-counts` .* 1 of 2 .* 0 examples"):
        one.correct("", (), [ASKED[0], f"{ASKED[0]}s"], GOLD[:2])
    with pytest.raises(ConfigError, match="with 2 examples") as caught:
        one.correct("", SHOWN, ASKED[:1], GOLD[:1])
    assert "cruise" not in str(caught.value)
    assert len(model.prompts) == 1


def test_without_questions_nothing_is_asked():
    one, model = student()
    assert one.correct("", (), [], []) == []
    assert model.prompts == []
    with pytest.raises(ValueError, match="zip"):
        one.correct("", (), ASKED, GOLD[:1])


def test_a_score_counts_what_could_not_be_read_as_wrong():
    assert prompt_score("own/random.2", [True, None, False, True]) == PromptScore(
        student="own/random.2", num_records=4, correct="1001", num_answered=3
    )
    with pytest.raises(WireError):
        prompt_score("no such name", [True])

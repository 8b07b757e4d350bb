"""What a teacher is asked for an instruction, and what reaches the student."""

import math
from dataclasses import dataclass, field

import pytest

from fedcot.errors import ConfigError, FedcotError
from fedcot.models.in_context_data import rule_sequence
from fedcot.seeding import numpy_generator
from fedcot.social.client_model import Sampled
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from fedcot.social.inspection import Gate, gate_texts
from fedcot.social.instructions import (
    ENGLISH,
    NUM_EXAMPLES,
    REFUSED,
    instruction_prompt,
    instruction_style,
    merge_instructions,
    merge_prompt,
    student_prompt,
    write_instruction,
)
from fedcot.world.hidden_rules import draw_rule

SPAM, WORLD = format_named("sms-spam"), format_named("world")
OWN = tuple(
    Demonstration(f"private message {word} about the garden gate", "not spam")
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")
)
GATE = Gate(gate_texts(OWN), 0.1, refused_run=4)
NOTE = "Say spam where a stranger sells something."
SETTINGS = {"temperature": 0.7, "max_new_tokens": 99, "seed": 3}


@dataclass
class Stub:
    """Says one text after the other, and writes down what it was asked."""

    says: list[str]
    calls: list[dict] = field(default_factory=list)

    def sample(self, prompts, **settings):
        self.calls.append({"prompts": prompts, **settings})
        text = self.says[len(self.calls) - 1]
        return [Sampled(text, -1.0, 1) for _ in prompts]


def test_the_prompt_holds_the_eight_examples_between_words_and_the_cue():
    prompt = instruction_prompt(SPAM, OWN)
    shown = "\n\n".join(SPAM.write(one) for one in OWN)
    assert prompt == f"{ENGLISH.before}\n\n{shown}\n\n{ENGLISH.behind}\n\n{ENGLISH.cue}"
    assert prompt.count("Class:") == 8
    # What figure 2 of the paper asks for.
    for asked in ("private", "never see", "special mark", "general patterns", "only"):
        assert asked in prompt
    assert prompt.endswith("Task format with detailed instructions:")


def test_the_worlds_models_are_asked_as_they_were_trained():
    rng = numpy_generator(0, "rule")
    pieces = rule_sequence(
        draw_rule("held-out", "conversion", rng), NUM_EXAMPLES, rng, hint="after"
    )
    sequence = " ".join(piece.text for piece in pieces)
    texts = [f"question:{text}" for text in sequence.split("question:")[1:]]
    texts[-1] = texts[-1].partition("hint:")[0]
    shown = [WORLD.read(text) for text in texts]
    assert sequence.startswith(instruction_prompt(WORLD, shown))
    assert instruction_prompt(WORLD, shown).endswith(" hint:")


@pytest.mark.parametrize("count", [0, 7, 9])
def test_an_instruction_takes_exactly_eight(count):
    model = Stub([])
    own = (OWN * 2)[:count]
    with pytest.raises(ConfigError, match=f"8 for an instruction, found {count}"):
        instruction_prompt(SPAM, own)
    with pytest.raises(ConfigError, match="8 for an instruction"):
        write_instruction(model, SPAM, own, gate=GATE, **SETTINGS)
    assert model.calls == []


def test_what_the_model_writes_is_the_students_prompt():
    model = Stub([f"  {NOTE}\n"])
    written = write_instruction(model, SPAM, OWN, gate=GATE, **SETTINGS)
    (call,) = model.calls
    assert call["prompts"] == [instruction_prompt(SPAM, OWN)]
    assert (call["temperature"], call["max_new_tokens"]) == (0.7, 99)
    assert call["stop"] == ENGLISH.stop == ()
    assert written.text == NOTE
    assert dict(written.counts) == dict.fromkeys(REFUSED, 0)
    assert [(one.text, one.left) for one in written.considered] == [(NOTE, True)]
    assert student_prompt(SPAM, written.text) == NOTE
    assert NOTE not in repr(written)


def test_a_hint_of_the_world_carries_its_marker():
    model = Stub([" gold to salt times 3 "])
    shown = [Demonstration(f"ann trades {n} gold", str(3 * n)) for n in range(1, 9)]
    gate = Gate(gate_texts(shown), 0.1, refused_run=4)
    written = write_instruction(model, WORLD, shown, gate=gate, **SETTINGS)
    assert written.text == "hint: gold to salt times 3"
    assert model.calls[0]["stop"] == WORLD.stop
    assert written.considered[0].text == written.text


def test_an_instruction_that_embeds_a_private_message_stays():
    leaking = f"{'Read the tone of it. ' * 12}An example: {OWN[2].question}."
    assert Gate(gate_texts(OWN), 0.1).judge(leaking).allowed
    model = Stub([leaking, "", OWN[4].question, NOTE])
    written = write_instruction(model, SPAM, OWN, gate=GATE, tries=4, **SETTINGS)
    assert written.text == NOTE
    assert {name: n for name, n in written.counts.items() if n} == {
        "empty": 1,
        "verbatim": 1,
        "run": 1,
    }
    assert [one.left for one in written.considered] == [False, False, True]
    assert len({call["seeds"][0] for call in model.calls}) == 4
    one = write_instruction(Stub([leaking]), SPAM, OWN, gate=GATE, **SETTINGS)
    assert one.text is None
    assert one.counts["run"] == 1


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"gate": Gate(gate_texts(OWN), 0.1)}, "refused_run"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": 0.0, "tries": 2}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"tries": 0}, "tries"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_asked(changed, name):
    model = Stub([])
    with pytest.raises(ConfigError, match=f"^`{name}`"):
        write_instruction(model, SPAM, OWN, **{"gate": GATE, **SETTINGS, **changed})
    assert model.calls == []


TEXTS = {10: "ten", 2: "two", 3: "three"}


def test_concat_joins_in_the_order_of_partitions():
    merged = merge_instructions(TEXTS, "concat", style=ENGLISH)
    assert merged.text == "two\n\nthree\n\nten"
    assert (merged.how, merged.partitions) == ("concat", (2, 3, 10))
    assert merged.is_extension
    world = merge_instructions(
        {1: "hint: b", 0: "hint: a"}, "concat", style=instruction_style(WORLD)
    )
    assert world.text == "hint: a hint: b"


def test_the_vote_takes_the_most_and_of_several_the_lowest_partition():
    def winner(votes):
        return merge_instructions(TEXTS, "vote", style=ENGLISH, votes=votes).partitions

    assert winner({10: 2, 2: 0, 3: 1}) == (10,)
    assert winner({10: 2, 2: 0, 3: 2}) == (3,)
    assert winner({10: 0, 2: 0, 3: 0}) == (2,)
    assert winner({10: -1.5, 2: -3, 3: -2}) == (10,)
    for votes in (None, {2: 1}, {10: 1, 2: 1, 3: math.nan}):
        with pytest.raises(ConfigError, match=r"^`votes`"):
            winner(votes)


def test_a_model_is_asked_to_merge_in_the_order_of_partitions():
    model = Stub([" all of it \n"])
    merged = merge_instructions(
        TEXTS, "model", style=ENGLISH, model=model, max_new_tokens=77, seed=1
    )
    assert (merged.text, merged.is_extension) == ("all of it", True)
    (call,) = model.calls
    (prompt,) = call["prompts"]
    assert prompt == merge_prompt(["two", "three", "ten"], ENGLISH)
    assert prompt == (
        f"{ENGLISH.merge_before}\n\nInstructions 1:\ntwo\n\nInstructions 2:\nthree\n\n"
        "Instructions 3:\nten\n\nMerged instructions:"
    )
    assert (call["temperature"], call["max_new_tokens"]) == (0.0, 77)
    with pytest.raises(FedcotError, match="empty"):
        merge_instructions(TEXTS, "model", style=ENGLISH, model=Stub(["  "]))
    with pytest.raises(ConfigError, match=r"^`model`"):
        merge_instructions(TEXTS, "model", style=ENGLISH)
    with pytest.raises(ConfigError, match="built-in world"):
        merge_instructions(
            TEXTS, "model", style=instruction_style(WORLD), model=Stub([])
        )


@pytest.mark.parametrize("how", ["concat", "vote", "model"])
def test_a_single_instruction_is_forwarded_as_it_is(how):
    merged = merge_instructions({4: "four"}, how, style=ENGLISH)
    assert (merged.text, merged.partitions) == ("four", (4,))
    assert not merged.is_extension
    assert "four" not in repr(merged)


def test_what_cannot_be_merged_is_refused():
    for texts in ({}, {0: "a", 1: "  "}):
        with pytest.raises(ConfigError, match=r"^`texts`"):
            merge_instructions(texts, "concat", style=ENGLISH)
    with pytest.raises(ConfigError, match=r"^`how`"):
        merge_instructions(TEXTS, "mean", style=ENGLISH)


def test_a_students_prompt_is_the_instruction_the_examples_and_the_question():
    shown = (Demonstration("Win now", "spam"),)
    state = f"{NOTE}\n\nText: Win now\nClass: spam"
    assert student_prompt(SPAM, NOTE, shown) == state
    asked = student_prompt(SPAM, NOTE, shown, "Call me")
    assert asked == f"{state}\n\nText: Call me\nClass:"
    assert student_prompt(SPAM, "", (), "Call me") == "Text: Call me\nClass:"
    assert student_prompt(SPAM, "") == ""
    world = student_prompt(WORLD, "hint: a", [Demonstration("b", "1")], "c")
    assert world == "hint: a question: b answer: 1 question: c"

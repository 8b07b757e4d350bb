"""A conversation in one process: who is asked what, what leaves, what is chosen."""

import pytest

from fedcot.errors import ConfigError
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.social.conversation import converse
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from tests.conversations import Writer, settings, silo

WORLD = format_named("world")
SPAM = format_named("sms-spam")


SILOS = {1: silo("sue"), 0: silo("tom")}


def test_each_client_writes_after_its_own_examples_and_some_are_chosen() -> None:
    models = {0: Writer(), 1: Writer()}
    told = converse(SILOS, WORLD, models, settings(), seed=3)
    assert all("tom" in prompt for prompt in models[0].asked)
    assert not any("sue" in prompt for prompt in models[0].asked)
    # Three prompts with two samples each, of which one stays.
    assert len(models[0].asked) == 6
    assert {p: len(texts) for p, texts in told.shared.items()} == {0: 3, 1: 3}
    (chosen,) = told.chosen.values()
    written = [WORLD.write(one) for one in chosen]
    assert len(set(written)) == 4
    assert set(written) <= {*told.shared[0], *told.shared[1]}
    assert told.instruction is None
    prompts = told.prompts(WORLD)
    assert set(prompts) == {"random"}
    assert prompts["random"] == " ".join(written)
    assert converse(SILOS, WORLD, models, settings(), seed=3) == told
    assert converse(SILOS, WORLD, models, settings(), seed=4) != told


def test_what_was_drawn_is_what_models_were_shown() -> None:
    models = {0: Writer(), 1: Writer()}
    told = converse(SILOS, WORLD, models, settings(teaches_instruction=True), seed=3)
    for partition, model in models.items():
        hints = [prompt for prompt in model.asked if prompt.endswith("hint:")]
        others = [prompt for prompt in model.asked if not prompt.endswith("hint:")]
        assert hints
        assert others
        for prompts, drawn in (
            (others, told.drawn[partition]),
            (hints, told.drawn_for_instruction[partition]),
        ):
            shown = {
                one
                for one in SILOS[partition]
                if any(WORLD.write(one) in prompt for prompt in prompts)
            }
            assert drawn == shown
        assert len(told.drawn_for_instruction[partition]) == 8


def test_with_votes_held_out_examples_are_never_shown() -> None:
    models = {0: Writer(), 1: Writer()}
    asked = settings(aggregators=("random", "voting"), held_out_share=0.5)
    told = converse(SILOS, WORLD, models, asked, seed=3)
    assert set(told.chosen) == {"random", "voting"}
    for partition, model in models.items():
        (prompt,) = {prompt for prompt, _ in model.scored}
        held_out = {one for one in SILOS[partition] if WORLD.write(one) in prompt}
        assert len(held_out) == 6
        assert not held_out & told.drawn[partition]
        # Every candidate of both clients is voted on.
        assert len({text for _, text in model.scored}) == 6


def test_private_votes_take_their_randomness_from_outside() -> None:
    models = {0: Writer(), 1: Writer()}
    asked = settings(aggregators=("private-voting",), vote_epsilon=1.0, num_chosen=2)
    drawn = {
        converse(
            SILOS, WORLD, models, asked, seed=3, source=TapeRandomSource(tape)
        ).chosen["private-voting"]
        for tape in range(12)
    }
    assert len(drawn) > 1


def test_fewer_candidates_than_asked_for_are_all_chosen() -> None:
    models = {0: Writer(), 1: Writer()}
    told = converse(SILOS, WORLD, models, settings(num_chosen=50), seed=3)
    assert len(told.chosen["random"]) == 6
    balanced = settings(num_chosen=4, is_balanced=True)
    spam = {0: tuple(Demonstration(f"{n} plums here", "spam") for n in range(9))}
    labelled = Writer()
    labelled.text = lambda prompt, seed: f" win {seed} now\nClass: spam"  # type: ignore[method-assign]
    told = converse(spam, SPAM, {0: labelled}, balanced, seed=3)
    # Two of the four turns are for a label that nobody wrote.
    assert [one.answer for one in told.chosen["random"]] == ["spam"] * 2


def test_a_copy_never_leaves() -> None:
    class Copier(Writer):
        def text(self, prompt: str, seed: int) -> str:
            return " tom has 3 boxes of plums answer: 3"

    told = converse(
        {0: silo("tom")}, WORLD, {0: Copier()}, settings(gate_distance=0.0), seed=3
    )
    assert told.shared[0] == ()
    assert told.chosen == {"random": ()}
    assert told.prompts(WORLD) == {"random": ""}


@pytest.mark.parametrize("how", ["single", "concat", "vote"])
def test_instructions_are_merged_as_asked(how: str) -> None:
    models = {0: Writer(), 1: Writer()}
    told = converse(
        SILOS,
        WORLD,
        models,
        settings(aggregators=(), teaches_instruction=True, instruction_merging=how),
        seed=3,
    )
    texts = [text for own in told.shared.values() for text in own]
    assert len(texts) == 2
    assert told.chosen == {}
    assert told.instruction is not None
    if how == "concat":
        assert told.instruction == " ".join(texts)
    else:
        assert told.instruction in texts
    if how == "vote":
        # The held-out answers of each client, behind each instruction.
        asked = [prompt for prompt, _ in models[0].scored]
        assert all(prompt.startswith("hint:") for prompt in asked)
        assert len(asked) == 2 * 3
        assert {text.split(":")[0].strip() for _, text in models[0].scored} == {
            "answer"
        }
    assert told.prompts(WORLD) == {"instruction": told.instruction}


def test_a_client_without_enough_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match="8 examples for an instruction, found 5"):
        converse(
            {0: silo("tom", 5)},
            WORLD,
            {0: Writer()},
            settings(aggregators=(), teaches_instruction=True),
            seed=3,
        )
    with pytest.raises(ConfigError, match="`aggregators` must be out of"):
        converse(SILOS, WORLD, {0: Writer(), 1: Writer()},
                 settings(aggregators=("mean",)), seed=3)  # fmt: skip

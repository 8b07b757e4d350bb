"""What a generator learns and writes, and what the gate lets through."""

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedcot.community import synthetic
from fedcot.community.messages import SyntheticTrace
from fedcot.community.synthetic import (
    NEAR,
    TRIES,
    Writing,
    Written,
    generator_examples,
    split_template,
    write_traces,
)
from fedcot.errors import WireError
from fedcot.evaluation.copying import nearest
from fedcot.models.generation import Generated
from fedcot.node_training import first_adapter, training_settings
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.registry import configured_task, task_of
from tests.fakes import tiny_config
from tests.tiny import tiny_base

SHIPPED = sorted(
    path.stem
    for path in (Path(synthetic.__file__).parents[1] / "tasks" / "mappings").iterdir()
    if path.suffix == ".toml"
)


@dataclass(frozen=True)
class Shown:
    question: str
    reasoning: str
    answer: str


OWN = (
    Shown("the library lends 3 books then 2 more", "3 + 2 = 5", "5"),
    Shown("a shelf holds 4 rare maps and 4 globes", "4 + 4 = 8", "8"),
)
NEW = "the bakery sells 6 loaves"


def said(question: str, steps: str = "6 + 1 = 7", answer: str = "7") -> str:
    return f"{question} rationale: {steps} answer: {answer}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("world"))
    base = tiny_base()
    return config, configured_task(config), base, first_adapter(base, config)


class Script:
    """Stands in for `generate`: says what it was given, call by call."""

    def __init__(self, *calls: Sequence[str]) -> None:
        self.calls = calls
        self.seeds: list[tuple[int, ...]] = []
        self.prompts: list[list[int]] = []
        self.named: dict[str, object] = {}

    def __call__(self, model, base, prompts, *, seeds, **named):
        said = self.calls[min(len(self.seeds), len(self.calls) - 1)]
        self.seeds.append(tuple(seeds))
        self.prompts += [list(ids) for ids in prompts]
        self.named = named
        assert not model.training
        texts = [said[row % len(said)] for row in range(len(prompts))]
        return [Generated(text, 1, 1) for text in texts]


@pytest.fixture(name="write")
def writing(world, monkeypatch):
    """Return a function that lets a script write."""
    config, task, base, adapter = world

    def run(script: Script, *, own=OWN, count=4, seed=3) -> Writing:
        monkeypatch.setattr(synthetic, "generate", script)
        return write_traces(
            base, adapter, own, count=count, task=task,
            settings=training_settings(config), temperature=0.6, seed=seed,
            max_new_tokens=16,
        )  # fmt: skip

    return run


# Templates --------------------------------------------------------------------------


def read_back(task, text: str) -> tuple[str, str, str]:
    """Read what a generator wrote as `write_traces` does, from the pieces alone."""
    _, between = split_template(task)
    question, found, rest = text.partition(between.strip())
    assert found
    rationale = task.parse_completion(rest)
    assert rationale is not None
    return question.strip(), rationale.text, rationale.answer


def test_the_world_s_examples_are_read_back(world):
    _, task, _, _ = world
    assert split_template(task) == ("explain:", " rationale: ")
    examples = generator_examples(OWN, task)
    assert [one.task for one in examples] == ["explain", "explain"]
    for one, trace in zip(examples, OWN, strict=True):
        assert one.prompt == "explain:"
        assert read_back(task, one.target) == (
            trace.question,
            trace.reasoning,
            trace.answer,
        )
        # Put together it is what a student is trained on.
        whole = f"{task.explain_prompt(trace.question)} "
        assert f"{one.prompt} {one.target}".startswith(whole)


ANSWERS = {"multiple-choice": "b", "yes-no": "yes"}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_examples_of_every_shipped_mapping_are_read_back(name):
    mapping = load_mapping(name)
    task = task_of(name)
    before, between = split_template(task)
    # Without a mark in between, nobody could tell the question from the reasoning.
    assert between.strip()
    assert before
    answer = ANSWERS.get(mapping.kind) or (*mapping.labels, "12")[0]
    question = "Which one is it, of these?\n(a) ice\n(b) steam"
    trace = Shown(question, "Steam is a gas. 5 + 7 = 12", answer)
    (one,) = generator_examples([trace], task)
    assert one.prompt == before
    assert question in one.target
    assert read_back(task, one.target) == (question, trace.reasoning, answer)
    # The student's own prompt has the same pieces, in the same order.
    asked = task.explain_prompt(question)
    assert asked.startswith(before)
    assert asked.index(question) >= len(before)
    assert asked.endswith(between.strip())


def test_a_trace_without_reasoning_is_not_learnt(world):
    _, task, _, _ = world
    bare = Shown("a question without reasoning", "", "5")
    assert generator_examples([bare], task) == ()
    assert len(generator_examples([bare, OWN[0]], task)) == 1


# Nothing else can be sent -----------------------------------------------------------


def test_written_traces_are_made_by_writing_only(write):
    with pytest.raises(TypeError, match="write_traces"):
        Written("question", "reasoning", "answer")
    with pytest.raises(TypeError):
        Written()
    made = write(Script([said(NEW)])).written[0]
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            make(made)
    with pytest.raises(AttributeError):
        made.question = OWN[0].question  # type: ignore[misc]
    sent = SyntheticTrace(made)
    assert (sent.question, sent.reasoning, sent.answer) == (NEW, "6 + 1 = 7", "7")


@pytest.mark.parametrize("other", [OWN[0], ("q", "r", "a"), None])
def test_a_synthetic_trace_is_built_from_what_was_written_only(other):
    with pytest.raises(WireError, match="from what a generator wrote"):
        SyntheticTrace(other)  # type: ignore[arg-type]


def test_what_only_looks_like_a_written_trace_is_none(write):
    class Disguised(Written):
        """Adds a way to be built."""

        def __init__(self, question: str) -> None:
            for name, value in zip(
                Written.__slots__, (question, "r", "a"), strict=True
            ):
                object.__setattr__(self, name, value)

    with pytest.raises(WireError, match="found Disguised"):
        SyntheticTrace(Disguised(OWN[0].question))


# The gate ---------------------------------------------------------------------------


def near(text: str, share: float) -> str:
    """Return a text with so large a share of other characters at its end."""
    kept = text[: round(len(text) * (1 - share))]
    return kept + "z" * (len(text) - len(kept))


def test_the_gate_counts_each_reason_and_sends_none_of_them(write):
    question = OWN[0].question
    lines = [
        said(NEW),
        said(question),  # as it is
        said(question.upper().replace(" ", "  ")),  # to the eye
        said(question[4:-1]),  # a piece of it
        said(question.replace("3", "7")),  # one character apart
        said(NEW),  # again
        "no mark at all",
        "rationale: 6 + 1 = 7 answer: 7",  # no question
        f"{NEW} and 2 rationale: 6 + 1 = 7",  # no answer
        said(f"{NEW} and 3", steps="6 + 1 = 9", answer="9"),  # false
    ]
    made = write(Script(lines), count=len(lines))
    assert made.counts == {
        "num_malformed": 3 * TRIES,
        "num_invalid": TRIES,
        "num_copied": 4 * TRIES,
        "num_repeated": 2 * TRIES - 1,
    }
    assert [one.question for one in made.written] == [NEW]
    total = sum(made.counts.values()) + len(made.written)
    assert total == TRIES * len(lines)


def test_how_near_is_too_near(write):
    """Distances as `fedcot.evaluation.copying` measures them, around the threshold."""
    question, kept, sent = OWN[1].question, set(), set()
    for percent in range(2, 40, 2):
        text = near(question, percent / 100)
        distance = nearest(text, [one.question for one in OWN]).distance
        made = write(Script([said(text)]), count=1)
        (kept if made.num_copied else sent).add(distance)
        assert bool(made.written) == (made.num_copied == 0)
    assert kept
    assert sent
    assert max(kept) < NEAR <= min(sent)
    assert NEAR == 0.1


def test_without_own_traces_there_is_no_gate(write):
    """Under DP-SGD what is sent may depend on the generator alone."""
    made = write(Script([said(OWN[0].question), said(NEW)]), own=(), count=2)
    assert {one.question for one in made.written} == {OWN[0].question, NEW}
    assert made.num_copied == 0


# How many ---------------------------------------------------------------------------


def numbered(start: int, count: int) -> list[str]:
    return [said(f"{NEW} on day {start + n}") for n in range(count)]


def test_it_stops_at_the_count_and_never_asks_for_more_than_its_tries(write):
    enough = Script(numbered(0, 5))
    made = write(enough, count=5)
    assert len(made.written) == 5
    assert len(enough.seeds) == 1
    # Half of each call is none: the rest comes from a second one.
    half = Script(["none", *numbered(0, 1)], ["none", *numbered(1, 1)])
    assert len(write(half, count=2).written) == 2
    assert len(half.seeds) == 2
    never = Script(["none"])
    made = write(never, count=5)
    assert made.written == ()
    assert len(never.seeds) == TRIES
    assert made.num_malformed == TRIES * 5
    over = Script(["none", *numbered(0, 3)], numbered(3, 4))
    assert len(write(over, count=4).written) == 4


@pytest.mark.parametrize("learnt", [1, 2])
def test_how_many_are_written_does_not_tell_how_many_were_learnt(write, learnt):
    script = Script(["none"])
    write(script, own=OWN[:learnt], count=3)
    assert [len(seeds) for seeds in script.seeds] == [3] * TRIES


def test_every_completion_has_a_seed_of_its_own_that_the_run_decides(write):
    first, again, other = Script(["none"]), Script(["none"]), Script(["none"])
    write(first, count=3)
    write(again, count=3)
    write(other, count=3, seed=4)
    seeds = [seed for call in first.seeds for seed in call]
    assert len(set(seeds)) == len(seeds) == 3 * TRIES
    assert again.seeds == first.seeds
    assert not set(seeds) & {seed for call in other.seeds for seed in call}
    assert first.named["temperature"] == 0.6
    # All begin with the template and nothing of a question.
    assert len({tuple(ids) for ids in first.prompts}) == 1

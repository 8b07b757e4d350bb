"""Messages of mode social: what cannot be put into one, and what is refused."""

import copy
import dataclasses
import pickle
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import RecordDict

from fedcot.community.messages import LONGEST_TEXT
from fedcot.errors import WireError
from fedcot.records import CONFIG, Wire, serialise
from fedcot.social.demonstrations import Demonstration
from fedcot.social.flow import (
    CANDIDATES,
    TEACH_EXAMPLES,
    TEACH_INSTRUCTION,
    VOTE,
    Flow,
    FlowGuard,
)
from fedcot.social.generation import Candidate
from fedcot.social.inspection import Considered, Gate, Verdict
from fedcot.social.instructions import Instruction
from fedcot.social.messages import (
    EVALUATE_PROMPTS,
    INSTRUCTIONS,
    MOST,
    BallotReply,
    CandidateText,
    ExamplesReply,
    InstructionReply,
    PromptScore,
    PromptsReply,
    SentPrompt,
    step_message,
)
from fedcot.social.shared_texts import (
    ReceivedDemonstration,
    SharedDemonstration,
    SharedInstruction,
)
from tests.grid import as_deployed
from tests.social_clients import (
    ballot_request,
    examples_request,
    instruction_request,
    prompts_request,
)

SECRET = "meet me behind the zircon mill at noon"
GATE = Gate([SECRET], 0.1, refused_run=4)


def candidate(text: str = "a text of its own", answer: str = "spam") -> Candidate:
    # Judging a text takes time that grows with its length.
    verdict = GATE.judge(text[:100])
    return Candidate(Demonstration(text, answer, "so it is"), 1.5, verdict, None, 0)


def instruction(text: str = "say spam or not spam") -> Instruction:
    verdict = GATE.judge(text)
    considered = (Considered(text, verdict, verdict.allowed),)
    return Instruction(text if verdict.allowed else None, {}, considered)


def examples_reply(**changes: Any) -> ExamplesReply:
    given: dict[str, Any] = {
        "partition_id": 1,
        "withheld": False,
        "num_malformed": 1,
        "num_verbatim": 2,
        "num_sampled": 4,
        "num_checked": 3,
        "num_wrong": 1,
        "num_drawn": 5,
        "num_unexplained": 6,
        "ranking": "perplexity",
        "demonstrations": (SharedDemonstration(candidate()),),
    }
    return ExamplesReply(**{**given, **changes})


def instruction_reply(**changes: Any) -> InstructionReply:
    given: dict[str, Any] = {
        "partition_id": 1,
        "withheld": False,
        "num_run": 2,
        "num_empty": 1,
        "instruction": (SharedInstruction(instruction()),),
    }
    return InstructionReply(**{**given, **changes})


SCORE = PromptScore(student="random.2", num_records=3, correct="101", num_answered=2)
SENT = SentPrompt.of("voting.2", "", [Demonstration("q ü", "a", "s")] * 2)
PROMPTS = prompts_request(
    "/run",
    students=(SENT, SentPrompt(student="instruction+random.1", instruction="hint")),
    original_counts=(0, 2),
)


# What cannot be sent ----------------------------------------------------------------


def test_a_refused_text_cannot_be_put_into_a_message():
    refused = candidate(SECRET)
    assert not refused.verdict.allowed
    with pytest.raises(WireError, match="must be built from a Candidate") as caught:
        SharedDemonstration(refused)
    assert "zircon" not in str(caught.value)
    kept = instruction(f"mind: {SECRET}")
    with pytest.raises(WireError, match="must be built from an Instruction") as caught:
        SharedInstruction(kept)
    assert "zircon" not in str(caught.value)
    # Nor where somebody writes the refused text in behind the gate's back.
    with pytest.raises(WireError):
        SharedInstruction(replace(kept, text=kept.considered[0].text))
    with pytest.raises(WireError):
        SharedInstruction(replace(instruction(), text=SECRET))


def test_a_vote_is_no_permission_for_an_instruction():
    considered = (Considered(SECRET, None, left=True),)
    with pytest.raises(WireError):
        SharedInstruction(Instruction(SECRET, {}, considered))


@pytest.mark.parametrize(
    "forged",
    [
        Demonstration("question", "answer"),
        None,
        Candidate,
        ("question", "answer", ""),
        dataclasses.make_dataclass("Lookalike", ["demonstration", "verdict"])(
            Demonstration("question", "answer"), GATE.judge("question")
        ),
    ],
)
def test_nothing_but_a_candidate_is_taken(forged):
    with pytest.raises(WireError):
        SharedDemonstration(forged)
    with pytest.raises(WireError):
        SharedInstruction(forged)


def test_a_verdict_has_to_say_that_it_allows():
    one = candidate()
    for said in (False, None, 1, "yes"):
        verdict = replace(one.verdict, allowed=said)
        with pytest.raises(WireError):
            SharedDemonstration(replace(one, verdict=verdict))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "shared", [SharedDemonstration(candidate()), SharedInstruction(instruction())]
)
def test_a_text_on_its_way_is_not_copied(shared, copied):
    with pytest.raises(TypeError, match="built anew"):
        copied(shared)
    with pytest.raises(TypeError):
        shared.__setstate__([SECRET])
    with pytest.raises(TypeError):
        replace(shared)


def test_what_was_received_is_not_sent_on():
    for reply in (examples_reply(), instruction_reply()):
        received = type(reply).decode(as_deployed(reply.encode()))
        assert received != reply or not isinstance(received, type(reply))
        with pytest.raises(WireError, match="only, found Received"):
            received.encode()
    (one,) = ExamplesReply.decode(examples_reply().encode()).demonstrations
    assert isinstance(one, ReceivedDemonstration)


def test_texts_have_a_length_that_a_message_takes():
    with pytest.raises(WireError, match="at most"):
        SharedDemonstration(candidate("ab " * LONGEST_TEXT))
    with pytest.raises(WireError):
        SharedDemonstration(candidate(answer=""))
    verdict = GATE.judge("x")
    long = "x" * (LONGEST_TEXT + 1)
    with pytest.raises(WireError, match="from 1 to"):
        SharedInstruction(Instruction(long, {}, (Considered(long, verdict, True),)))


def test_half_characters_travel_as_question_marks():
    shared = SharedDemonstration(candidate("half \ud800 a sign"))
    assert shared.question == "half ? a sign"


# The trip ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        examples_request("/run"),
        instruction_request("/run"),
        ballot_request("/run"),
        ballot_request(
            "/run", subject=INSTRUCTIONS, turns=("",), candidates=(), texts=("a", "b")
        ),
        BallotReply(partition_id=2, ballot=(3, 0), num_shown=4),
        PROMPTS,
        PromptsReply(partition_id=2, withheld=False, scores=(SCORE,)),
    ],
)
def test_every_message_survives_the_trip(message: Wire):
    received = type(message).decode(as_deployed(message.encode()))
    assert received == message


def test_replies_with_texts_survive_the_trip():
    sent = examples_reply()
    received = ExamplesReply.decode(as_deployed(sent.encode()))
    for item in dataclasses.fields(ExamplesReply)[:-1]:
        assert getattr(received, item.name) == getattr(sent, item.name)
    (one,) = received.demonstrations
    assert (one.question, one.answer, one.reasoning) == (
        "a text of its own",
        "spam",
        "so it is",
    )
    (told,) = InstructionReply.decode(instruction_reply().encode()).instruction
    assert told.text == "say spam or not spam"


def test_a_message_costs_its_texts_and_little_more():
    def size(text: str) -> int:
        shared = SharedDemonstration(candidate(text))
        return len(serialise(examples_reply(demonstrations=(shared,)).encode()))

    # Lengths are written in front of a text, of its field and of its record.
    assert 5000 <= size("x" * 10_000) - size("x" * 5_000) <= 5010
    assert size("x" * 50) < 1500
    demonstrations = [Demonstration("y" * 1000, "z", "")]
    bare = prompts_request("/run", students=(SentPrompt(student="random.1"),))
    full = replace(bare, students=(SentPrompt.of("random.1", "", demonstrations),))
    grown = len(serialise(full.encode())) - len(serialise(bare.encode()))
    assert 1001 <= grown <= 1050


def test_a_student_comes_with_its_demonstrations():
    assert SENT.demonstrations == (Demonstration("q ü", "a", "s"),) * 2


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (examples_request("/run"), {"step": -1}),
        (examples_request("/run"), {"step": MOST + 1}),
        (examples_request("/run"), {"server_round": 0}),
        (examples_request("/run"), {"run_key": "../../etc"}),
        (instruction_request("/run"), {"run_key": "0" * 15}),
        (ballot_request("/run"), {"run_key": "x" * 16}),
        (PROMPTS, {"run_key": "0" * 17}),
        (PROMPTS, {"step": -1}),
        *(
            (examples_request("/run"), {name: value})
            for name in (
                "per_prompt",
                "keep",
                "num_prompts",
                "samples_per_prompt",
                "max_new_tokens",
            )
            for value in (0, MOST + 1)
        ),
        (examples_request("/run"), {"temperature": -0.1}),
        (examples_request("/run"), {"temperature": float("nan")}),
        (instruction_request("/run"), {"tries": 0}),
        (instruction_request("/run"), {"temperature": float("inf")}),
        (ballot_request("/run"), {"subject": "teachers"}),
        (ballot_request("/run"), {"subject": INSTRUCTIONS}),
        (ballot_request("/run"), {"candidates": ()}),
        (ballot_request("/run"), {"texts": ("both",)}),
        (ballot_request("/run"), {"turns": ()}),
        (
            ballot_request("/run"),
            {"subject": INSTRUCTIONS, "candidates": (), "texts": ("a", "b")},
        ),
        (BallotReply(partition_id=0, ballot=(1,)), {"ballot": ()}),
        (BallotReply(partition_id=0, ballot=(1,)), {"ballot": (1, 1)}),
        (BallotReply(partition_id=0, ballot=(1,)), {"ballot": (1, -1)}),
        (BallotReply(partition_id=0, ballot=(1,)), {"num_shown": -1}),
        (PROMPTS, {"students": (SENT, SENT)}),
        (PROMPTS, {"original_counts": (2, 2)}),
        (PROMPTS, {"original_counts": (-1,)}),
        (PROMPTS, {"original_counts": (65,)}),
        (SENT, {"answers": ("a",)}),
        (SENT, {"student": "original.2"}),
        (SENT, {"student": "own/random.2"}),
        (SENT, {"student": "random.0"}),
        (SENT, {"student": "Random.2"}),
        (SENT, {"student": "../random"}),
        (SCORE, {"student": "own/own/random.2"}),
        (SCORE, {"correct": "10"}),
        (SCORE, {"correct": "1x1"}),
        (SCORE, {"num_answered": 1}),
        (SCORE, {"num_answered": 4}),
        (
            PromptsReply(partition_id=0, withheld=False, scores=(SCORE,)),
            {"withheld": True},
        ),
    ],
)
def test_what_makes_no_sense_is_refused(message, changes):
    with pytest.raises(WireError):
        replace(message, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_sampled": 5},
        {"num_malformed": -1, "num_sampled": 2},
        {"num_wrong": 4},
        {"num_checked": 5, "num_wrong": 0},
        {"ranking": ""},
        {"ranking": "alphabet"},
        {"demonstrations": (candidate(),), "num_sampled": 4},
    ],
)
def test_counts_have_to_add_up(changes):
    examples_reply()
    with pytest.raises(WireError):
        examples_reply(**changes)


NOTHING = {
    name: 0
    for item in dataclasses.fields(ExamplesReply)
    if (name := item.name).startswith("num_")
}


@pytest.mark.parametrize("name", [*NOTHING, "ranking"])
def test_a_deployed_node_cannot_send_counts(name):
    withheld = {"withheld": True, **NOTHING, "ranking": ""}
    examples_reply(**withheld)
    with pytest.raises(WireError):
        examples_reply(**{**withheld, name: "order" if name == "ranking" else 1})


def test_a_deployed_node_cannot_send_counts_of_instructions():
    instruction_reply(withheld=True, num_run=0, num_empty=0)
    with pytest.raises(WireError):
        instruction_reply(withheld=True, num_empty=0)
    with pytest.raises(WireError, match="one at most"):
        instruction_reply(instruction=(SharedInstruction(instruction()),) * 2)
    with pytest.raises(WireError, match="SharedInstruction only"):
        instruction_reply(instruction=(instruction(),))


def test_a_surplus_key_is_refused():
    content: RecordDict = examples_reply().encode()
    content[CONFIG]["demonstrations.perplexity"] = [1.5]
    with pytest.raises(WireError, match="must not have"):
        ExamplesReply.decode(content)


# Steps ------------------------------------------------------------------------------


def test_a_step_s_content_is_all_but_the_run_directory():
    asked = examples_request("/run")
    message = step_message(asked)
    assert (message.step, message.kind) == (0, TEACH_EXAMPLES)
    assert step_message(examples_request("/elsewhere")).hash == message.hash
    for item in dataclasses.fields(asked):
        if item.name in ("run_dir", "step"):
            continue
        value = getattr(asked, item.name)
        other = "f" * 16 if isinstance(value, str) else value + 1
        changed = step_message(replace(asked, **{item.name: other}))
        assert changed.hash != message.hash, item.name
    assert step_message(instruction_request("/run")).kind == TEACH_INSTRUCTION
    assert step_message(PROMPTS).kind == EVALUATE_PROMPTS


@pytest.mark.parametrize("text", ["a long text that partition zero wrote itself"])
def test_candidates_may_be_quoted_by_a_vote(text):
    by_subject = {
        TEACH_EXAMPLES: ballot_request(
            "/run",
            candidates=(CandidateText(question=text, answer="x", reasoning=""),),
            turns=("",),
        ),
        TEACH_INSTRUCTION: ballot_request(
            "/run", subject=INSTRUCTIONS, candidates=(), texts=(text,), turns=("",)
        ),
    }
    for kind, asked in by_subject.items():
        guard = FlowGuard(Flow((kind, VOTE)), [0, 1])
        first = (
            examples_request("/run")
            if kind == TEACH_EXAMPLES
            else instruction_request("/run", step=0)
        )
        for teacher in (0, 1):
            guard.before_send(step_message(first), teacher)
        guard.on_reply(0, 0, [text])
        message = step_message(asked)
        assert text in str(message.content[CANDIDATES])
        assert "texts" not in message.content
        for teacher in (0, 1):
            guard.before_send(message, teacher)


def test_no_message_shows_a_private_text():
    assert isinstance(candidate(SECRET).verdict, Verdict)
    assert "zircon" not in repr(candidate(SECRET))

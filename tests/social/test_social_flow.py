"""The conversation: what is refused, what is recorded, what the log proves."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.social.flow import (
    CANDIDATES,
    EXTENDED_PROTOCOL,
    PROTOCOL,
    TEACH_EXAMPLES,
    TEACH_INSTRUCTION,
    VOTE,
    Flow,
    FlowError,
    FlowGuard,
    StepMessage,
    check_log,
)
from fedcot.social.quotations import RUN, quotable_runs, texts_in

TEACHERS = (0, 1, 2)
SPAM = "Text: Win a free cruise to Jamaica today, call us now"
MAIL = "Text: See you at the station at half past nine tomorrow"


def examples(step: int = 0, **content: object) -> StepMessage:
    return StepMessage(
        step, TEACH_EXAMPLES, {"n-gen": 4, "temperature": 0.7, **content}
    )


def vote(step: int = 1, **content: object) -> StepMessage:
    return StepMessage(step, VOTE, content)


def guard(*kinds: str, extended: bool = False) -> FlowGuard:
    flow = Flow(kinds or (TEACH_EXAMPLES, VOTE))
    return FlowGuard(flow, TEACHERS, extended=extended)


def send_to_all(one: FlowGuard, message: StepMessage) -> None:
    for teacher in TEACHERS:
        one.before_send(message, teacher)


def taught(*, extended: bool = False) -> FlowGuard:
    """Return a guard after a step in which teachers 0 and 1 sent a text each."""
    one = guard(extended=extended)
    send_to_all(one, examples())
    one.on_reply(0, 0, [SPAM])
    one.on_reply(0, 1, [MAIL])
    one.on_reply(0, 2)
    return one


def whole_log() -> dict[str, Any]:
    one = taught()
    send_to_all(one, vote(candidates=[SPAM, MAIL]))
    for teacher in TEACHERS:
        one.on_reply(1, teacher)
    one.finish()
    found: dict[str, Any] = json.loads(json.dumps(one.describe()))
    return found


def test_the_log_proves_that_all_got_the_same_message() -> None:
    log = whole_log()
    assert log["protocol"] == PROTOCOL
    assert log["departures"] == []
    assert log["flow"] == [TEACH_EXAMPLES, VOTE]
    assert log["flow_hash"] == Flow((TEACH_EXAMPLES, VOTE)).hash
    first, second = log["steps"]
    assert first["sent"] == {examples().hash: [0, 1, 2]}
    assert second["sent"] == {vote(candidates=[SPAM, MAIL]).hash: [0, 1, 2]}
    assert first["replied"] == second["replied"] == [0, 1, 2]
    check_log(log)
    assert "Jamaica" not in json.dumps(log)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda log: log["steps"][0]["sent"].update(other=[1]),
        lambda log: log["steps"][0]["sent"].clear(),
        lambda log: next(iter(log["steps"][1]["sent"].values())).remove(2),
        lambda log: next(iter(log["steps"][1]["sent"].values())).append(7),
        lambda log: log["steps"].pop(),
        lambda log: log["steps"][1].update(kind=TEACH_EXAMPLES),
        lambda log: log.update(flow_hash="0" * 64),
        lambda log: log.update(protocol=EXTENDED_PROTOCOL),
        lambda log: log["departures"].append("step 1 quotes partition 0"),
        lambda log: log.update(steps=None),
    ],
)
def test_a_log_that_proves_less_is_refused(break_it) -> None:  # type: ignore[no-untyped-def]
    log = copy.deepcopy(whole_log())
    check_log(log)
    break_it(log)
    with pytest.raises(FlowError):
        check_log(log)


@pytest.mark.parametrize("name", ["protocol", "steps", "flow_hash", "lost"])
def test_a_log_without_a_part_is_refused(name: str) -> None:
    log = whole_log()
    del log[name]
    with pytest.raises(FlowError):
        check_log(log)


def test_a_teacher_gets_what_the_others_got() -> None:
    one = guard()
    one.before_send(examples(), 0)
    with pytest.raises(FlowError, match="another message"):
        one.before_send(examples(temperature=0.8), 1)
    with pytest.raises(FlowError, match="another message"):
        one.before_send(examples(hint="more spam, please"), 1)
    # A refusal changes nothing: the right message still goes out.
    one.before_send(examples(), 1)
    one.before_send(examples(), 2)
    assert one.describe()["steps"] == [
        {
            "kind": TEACH_EXAMPLES,
            "skipped": False,
            "sent": {examples().hash: [0, 1, 2]},
            "replied": [],
        }
    ]


def test_the_kind_belongs_to_the_message() -> None:
    one = guard()
    one.before_send(examples(), 0)
    other = StepMessage(0, TEACH_INSTRUCTION, examples().content)
    with pytest.raises(FlowError, match="another message"):
        one.before_send(other, 1)


@pytest.mark.parametrize(
    ("content", "is_same"),
    [
        ({"b": 1, "a": [1, 2]}, True),
        ({"a": (1, 2), "b": 1}, True),
        ({"a": [2, 1], "b": 1}, False),
        ({"a": [1, 2], "b": 1.0}, False),
        ({"a": [1, 2], "b": "1"}, False),
        ({"a": [1, 2], "b": True}, False),
        ({"a": [1, 2], "b": 1, "c": None}, False),
    ],
)
def test_the_hash_is_of_the_content(content: dict[str, object], is_same: bool) -> None:
    first = StepMessage(0, VOTE, {"a": [1, 2], "b": 1})
    assert (StepMessage(0, VOTE, content).hash == first.hash) == is_same


@pytest.mark.parametrize("value", [b"x", {1, 2}, float("nan"), object()])
def test_content_that_cannot_be_compared_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="`content`"):
        StepMessage(0, VOTE, {"a": value})


@pytest.mark.parametrize(
    "message",
    [
        vote(0),
        StepMessage(0, TEACH_INSTRUCTION, {}),
        StepMessage(0, "chat", {}),
        examples(1),
        examples(-1),
    ],
)
def test_a_step_out_of_the_flow_is_refused(message: StepMessage) -> None:
    one = guard()
    with pytest.raises(FlowError):
        one.before_send(message, 0)
    assert one.describe()["steps"] == []


def test_no_step_follows_the_last_one_and_none_comes_back() -> None:
    one = taught()
    send_to_all(one, vote(candidates=[SPAM]))
    with pytest.raises(FlowError, match="no further step"):
        one.before_send(vote(2), 0)
    with pytest.raises(FlowError, match="out of order"):
        one.before_send(examples(), 0)
    with pytest.raises(FlowError, match="before"):
        one.before_send(vote(candidates=[SPAM]), 0)


def test_a_step_begins_when_the_one_before_has_reached_everybody() -> None:
    one = guard()
    one.before_send(examples(), 0)
    one.before_send(examples(), 2)
    with pytest.raises(FlowError, match="step 0 was not sent to partition 1"):
        one.before_send(vote(), 0)
    one.before_send(examples(), 1)
    one.before_send(vote(), 0)


def test_a_flow_has_to_be_finished() -> None:
    one = taught()
    with pytest.raises(FlowError, match="ends after 1"):
        one.finish()
    one.before_send(vote(candidates=[SPAM]), 0)
    with pytest.raises(FlowError, match="not sent to partition 1"):
        one.finish()


def test_a_lost_teacher_holds_nobody_up_and_is_sent_nothing() -> None:
    one = guard()
    one.before_send(examples(), 0)
    one.before_send(examples(), 1)
    one.lose(2)
    for teacher in (0, 1):
        one.before_send(vote(), teacher)
    one.finish()
    with pytest.raises(FlowError, match="has gone"):
        one.before_send(vote(), 2)
    with pytest.raises(FlowError, match="has gone"):
        one.lose(2)
    log = json.loads(json.dumps(one.describe()))
    assert log["lost"] == {"2": 1}
    check_log(log)
    # It was still there in the first step, so it cannot be the one that was left out.
    log["lost"] = {"1": 1}
    with pytest.raises(FlowError):
        check_log(log)


@pytest.mark.parametrize(
    "content",
    [
        {"note": f"Somebody wrote: {SPAM}"},
        {"note": SPAM.upper().replace(" ", "\n")},
        {"notes": [SPAM[:20], SPAM[20:]]},
        {"deep": {"er": [MAIL[5:45]]}},
        {MAIL: 1},
    ],
)
def test_what_another_teacher_said_is_not_carried_on(
    content: dict[str, object],
) -> None:
    one = taught()
    for teacher in TEACHERS:
        with pytest.raises(FlowError, match="quotes partition"):
            one.before_send(vote(**content), teacher)
    assert len(one.describe()["steps"]) == 1  # type: ignore[arg-type]


def test_candidates_are_carried_by_a_vote_and_by_nothing_else() -> None:
    one = taught()
    one.before_send(vote(candidates=[SPAM, MAIL]), 0)
    other = guard(TEACH_EXAMPLES, TEACH_EXAMPLES)
    send_to_all(other, examples())
    other.on_reply(0, 0, [SPAM])
    with pytest.raises(FlowError, match="quotes partition 0"):
        other.before_send(examples(1, **{CANDIDATES: [SPAM]}), 1)
    # That a vote carried a candidate does not make it the student's own text.
    again = guard(TEACH_EXAMPLES, VOTE, VOTE)
    send_to_all(again, examples())
    again.on_reply(0, 0, [SPAM])
    send_to_all(again, vote(candidates=[SPAM]))
    with pytest.raises(FlowError, match="quotes partition 0"):
        again.before_send(vote(2, note=SPAM), 1)


def test_what_the_student_had_said_itself_is_no_quotation() -> None:
    cue = "Write the task format with detailed instructions"
    one = guard(TEACH_EXAMPLES, TEACH_EXAMPLES)
    send_to_all(one, examples(cue=cue))
    one.on_reply(0, 0, [f"{cue}: be brief", "spam"])
    send_to_all(one, examples(1, cue=cue))
    # Short texts count as a whole.
    short = guard(TEACH_EXAMPLES, TEACH_EXAMPLES)
    send_to_all(short, examples())
    short.on_reply(0, 0, ["my code is 4711"])
    with pytest.raises(FlowError, match="quotes partition 0"):
        short.before_send(examples(1, hint="My  code is 4711"), 0)
    short.before_send(examples(1, hint="code"), 0)


def test_one_teacher_may_hear_its_own_words() -> None:
    one = FlowGuard(Flow((TEACH_INSTRUCTION, TEACH_INSTRUCTION)), [5])
    one.before_send(StepMessage(0, TEACH_INSTRUCTION, {}), 5)
    one.on_reply(0, 5, [SPAM])
    one.before_send(StepMessage(1, TEACH_INSTRUCTION, {"draft": SPAM}), 5)
    one.finish()


def test_the_extended_protocol_lets_through_and_says_so() -> None:
    one = taught(extended=True)
    one.before_send(vote(note=SPAM), 0)
    one.before_send(vote(note=MAIL), 1)
    one.before_send(StepMessage(2, "chat", {}), 0)
    one.finish()
    assert one.departures == (
        "step 1 quotes partition 0",
        "step 1: partition 1 gets another message than the others",
        "step 1 quotes partition 1",
        "step 1 was not sent to partition 2",
        "step 2 is 'chat' where the flow has 'no further step'",
        "step 2 was not sent to partition 1",
        "step 2 was not sent to partition 2",
    )
    log = json.loads(json.dumps(one.describe()))
    assert log["protocol"] == EXTENDED_PROTOCOL
    assert sorted(log["steps"][1]["sent"].values()) == [[0], [1]]
    with pytest.raises(FlowError, match="extended"):
        check_log(log)
    # Not even there does anybody get two messages in a step.
    with pytest.raises(FlowError, match="before"):
        one.before_send(StepMessage(2, "chat", {}), 0)


def test_replies_come_from_whom_was_asked_and_once() -> None:
    one = guard()
    with pytest.raises(FlowError, match="not asked"):
        one.on_reply(0, 0, [SPAM])
    one.before_send(examples(), 0)
    with pytest.raises(FlowError, match="not asked"):
        one.on_reply(0, 1, [SPAM])
    one.on_reply(0, 0, [SPAM])
    with pytest.raises(FlowError, match="again"):
        one.on_reply(0, 0, [SPAM])
    one.before_send(examples(), 1)
    one.before_send(examples(), 2)
    one.before_send(vote(), 1)
    with pytest.raises(FlowError, match="over"):
        one.on_reply(0, 1, [SPAM])


@pytest.mark.parametrize(
    "kinds",
    [(), ("chat",), (VOTE,), (VOTE, TEACH_EXAMPLES), (VOTE, TEACH_INSTRUCTION)],
)
def test_an_impossible_flow_is_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="`flow`"):
        Flow(kinds)


@pytest.mark.parametrize("taught", [TEACH_EXAMPLES, TEACH_INSTRUCTION])
def test_a_vote_stands_behind_either_teaching(taught: str) -> None:
    one = guard(taught, VOTE)
    send_to_all(one, StepMessage(0, taught, {}))
    one.on_reply(0, 0, [SPAM])
    send_to_all(one, vote(candidates=[SPAM]))
    one.finish()


def test_flows_differ_by_their_hash() -> None:
    once, twice = Flow((TEACH_EXAMPLES,)), Flow((TEACH_EXAMPLES, TEACH_EXAMPLES))
    assert once.hash != twice.hash
    assert once.hash == Flow((TEACH_EXAMPLES,)).hash


@pytest.mark.parametrize("teachers", [[], [1, 1]])
def test_teachers_are_distinct_and_there_is_one(teachers: list[int]) -> None:
    with pytest.raises(ConfigError, match="`teachers`"):
        FlowGuard(Flow((TEACH_EXAMPLES,)), teachers)


def test_messages_do_not_show_their_texts() -> None:
    assert "Jamaica" not in repr(vote(candidates=[SPAM]))
    one = taught()
    with pytest.raises(FlowError) as caught:
        one.before_send(vote(note=SPAM), 0)
    assert "amaica" not in str(caught.value)


@given(st.text("ab", max_size=60), st.text("ab", max_size=60))
def test_long_texts_quote_each_other_where_they_share_a_run(
    one: str, other: str
) -> None:
    one, other = "c" * RUN + one, "d" * RUN + other
    shared = any(
        one[start : start + RUN] in other for start in range(len(one) - RUN + 1)
    )
    assert bool(quotable_runs([one]) & quotable_runs([other])) == shared


def test_texts_are_found_wherever_they_stand() -> None:
    content = {"a": ["x", ("y", {"b": "z"})], "n": 3, "t": True, "none": None}
    assert list(texts_in(content)) == ["a", "x", "y", "b", "z", "n", "t", "none"]


def test_a_step_with_nothing_to_ask_is_skipped_and_shows_in_the_log() -> None:
    one = guard()
    one.before_send(examples(), 0)
    with pytest.raises(FlowError, match="was not sent"):
        one.skip()
    for teacher in (1, 2):
        one.before_send(examples(), teacher)
    one.skip()
    one.finish()
    log = one.describe()
    assert [step["skipped"] for step in log["steps"]] == [False, True]  # type: ignore[attr-defined]
    check_log(log)
    with pytest.raises(FlowError, match="No step is left"):
        one.skip()
    # What was sent after all was no skipped step.
    log["steps"][1]["sent"] = {"a": [0]}  # type: ignore[index]
    with pytest.raises(FlowError):
        check_log(log)


def test_words_of_the_protocol_are_nobody_s() -> None:
    flow = Flow((TEACH_EXAMPLES, TEACH_EXAMPLES))
    for known, is_refused in (((), True), (("subject",), False)):
        one = FlowGuard(flow, [0, 1], known=known)
        for teacher in (0, 1):
            one.before_send(StepMessage(0, TEACH_EXAMPLES, {"k": 1}), teacher)
        one.on_reply(0, 0, ["subject"])
        said = StepMessage(1, TEACH_EXAMPLES, {"subject": 2})
        if is_refused:
            with pytest.raises(FlowError, match="quotes"):
                one.before_send(said, 0)
        else:
            one.before_send(said, 0)

"""The line at the end of a run that says what the teacher was asked."""

import pytest

from fedcot.report.measures import teacher_line

USAGE = {
    "prompts": 20,
    "cached": 5,
    "prompt_tokens": 700,
    "completion_tokens": 300,
    "cost": 1.25,
}
NOTHING = dict.fromkeys(USAGE, 0)
MEMBERS = {
    "traces": {"north": {"asked": 64}, "south": {"asked": 128}},
    "provider": {"own": {"north": {"n": 10}, "south": {"n": 20}}, "hold_out": {"n": 7}},
}
TOKENS = "700 tokens read and 300 written, cost 1.2500"
THEIRS = (
    "members asked 192 questions for their traces and 30 test questions, whose tokens "
    "and cost are not in this line"
)


@pytest.mark.parametrize(
    ("usage", "community", "line"),
    [
        (NOTHING, {}, ""),
        (
            USAGE,
            {},
            "Teacher: 20 prompts, 5 from the cache, " + TOKENS,
        ),
        (
            USAGE,
            MEMBERS,
            f"Teacher: 20 prompts of the server, 5 from the cache, {TOKENS}; {THEIRS}",
        ),
        # Without a hold-out the server itself asks nothing.
        (
            NOTHING,
            MEMBERS,
            f"Teacher: 0 prompts of the server, 0 from the cache; {THEIRS}",
        ),
        # Deployed members ask nothing and send no score.
        (
            {**NOTHING, "prompts": 3},
            {"traces": {"north": {"asked": 0}}, "provider": {"own": {}}},
            "Teacher: 3 prompts, 0 from the cache",
        ),
    ],
)
def test_what_members_asked_is_said_beside_the_server_s(usage, community, line):
    summary = {"teacher": {"usage": usage}, "community": community}
    assert teacher_line(summary) == line

"""Which tokens of a reply count, and what is no number."""

import math
from typing import Any

import pytest

from fedcot.social.client_model import Sampled
from fedcot.social.endpoint_tokens import (
    Replied,
    as_replied,
    echoed_tokens,
    replied_tokens,
    sampled_text,
)
from fedcot.teacher.failures import PassingFailure
from fedcot.teacher.teacher import Written

SECRET = "what-only-one-patient-asks"


def chat_reply(text: str, rows: Any, reason: str = "stop") -> dict[str, Any]:
    choice = {"message": {"content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    return {"choices": [{**choice, "logprobs": {"content": rows}}], "usage": usage}


def rows_of(*tokens: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": value} for token, value in tokens]


def read(reply: object, stop: tuple[str, ...] = ()) -> Sampled:
    return sampled_text(replied_tokens(reply, "chat", stop))


def test_tokens_behind_the_text_do_not_count() -> None:
    tokens = rows_of(("a", -1.0), (" b", -3.0), ("\nQ", -5.0), (":", -7.0))
    found = read(chat_reply("a b", tokens))
    assert (found.text, found.mean_log_probability, found.num_tokens) == ("a b", -2, 2)
    # One that holds the beginning of a stop holds the end of the text as well.
    merged = rows_of(("a", -1.0), (" b\nQ", -3.0), (":", -5.0))
    found = read(chat_reply("a b\nQ: c", merged + rows_of((" c", -9.0))), ("\nQ:",))
    assert (found.text, found.mean_log_probability, found.num_tokens) == ("a b", -2, 2)
    # Blanks that a server took away belong to the first tokens.
    spaced = rows_of((" ", -1.0), (" a", -2.0), ("<end>", -8.0))
    assert read(chat_reply("a", spaced)).mean_log_probability == -1.5
    empty = read(chat_reply("", tokens))
    assert (empty.mean_log_probability, empty.num_tokens) == (None, 0)


def test_half_a_character_is_read_from_its_bytes() -> None:
    first, second = "é".encode()
    rows = [
        {"token": "\ufffd", "bytes": [first], "logprob": -1.0},
        {"token": "\ufffd", "bytes": [second], "logprob": -2.0},
        {"token": "!", "bytes": [33], "logprob": -6.0},
    ]
    assert read(chat_reply("é!", rows)).mean_log_probability == -3.0
    assert read(chat_reply("é", rows)).mean_log_probability == -1.5


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "text",
        ["a"],
        [],
        rows_of((1, -1.0)),
        rows_of(("a", None)),
        rows_of(("a", True)),
        rows_of(("a", "-1")),
        rows_of(("a", math.nan)),
        rows_of(("a", -math.inf)),
        rows_of(("a", 0.5)),
        rows_of(("other", -1.0)),
    ],
)
def test_what_cannot_be_read_is_no_number(rows: Any) -> None:
    assert read(chat_reply("a", rows)).mean_log_probability is None


def echo_reply(tokens: Any, values: Any, prompt_tokens: Any) -> dict[str, Any]:
    listed = {"tokens": tokens, "token_logprobs": values}
    usage = {"prompt_tokens": prompt_tokens}
    return {"choices": [{"text": "ab", "logprobs": listed}], "usage": usage}


def test_an_echo_is_read_without_what_was_written() -> None:
    for tokens, values in (
        (["a", "b"], [None, -2.0]),
        (["a", "b", "new"], [None, -2.0, -9.0]),
    ):
        found = echoed_tokens(echo_reply(tokens, values, 2))
        assert found.tokens == ("a", "b")
        assert found.log_probabilities == (None, -2.0)
        assert "new" not in repr(found)


@pytest.mark.parametrize(
    ("tokens", "values", "count"),
    [
        (["new"], [-1.0], 9),  # as llama.cpp's server, which leaves the echo out
        (["a", "b", "c", "d"], [None, -1.0, -1.0, -1.0], 2),
        (["a", "b"], [None, None], 2),
        (["a", "b"], [None], 2),
        (["a", "b"], [None, -1.0], 0),
        (["a", "b"], [None, -1.0], None),
        (None, None, 2),
    ],
)
def test_what_is_no_echo_is_refused(tokens: Any, values: Any, count: Any) -> None:
    with pytest.raises(PassingFailure):
        echoed_tokens(echo_reply(tokens, values, count))


def test_only_replies_of_these_requests_are_read() -> None:
    replied = Replied(SECRET, tokens=(SECRET,))
    assert as_replied(replied) is replied
    assert SECRET not in repr(replied)
    with pytest.raises(TypeError):
        as_replied(Written("text"))

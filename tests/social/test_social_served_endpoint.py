"""A served model answers like the same model in this process, and quotes nothing."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fedcot.errors import ConfigError
from fedcot.social.client_model import EndpointSettings
from fedcot.social.endpoint_model import EndpointModel
from fedcot.social.local_model import LocalModel
from tests.tiny_architectures import save_architecture

ROOT = Path(__file__).resolve().parents[2]
# `benchmarks` is no package; its scripts import each other by name.
sys.path.append(str(ROOT / "benchmarks"))
completion_server = import_module("completion_server")

SECRET = "what-only-one-patient-asks"
PROMPTS = ["tom has 3 marbles answer:", "how many books?", "tom has 3 marbles answer:"]
SEEDS = [5, 6, 7]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("served") / "tiny"
    return save_architecture("gpt2", path, initializer_range=0.2)


@pytest.fixture(scope="module")
def url(folder: str) -> Iterator[str]:
    with completion_server.serving(folder) as found:
        yield found


def ask(url: str, path: str, body: Any, *, headers: Any = None) -> tuple[int, Any]:
    """Return status and reply; a body of bytes is sent as it is."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sampling(**changes: Any) -> dict[str, Any]:
    given = {"temperature": 0.8, "max_new_tokens": 8, "stop": [], "seeds": SEEDS}
    return {**given, **changes}


def test_the_model_is_listed(url: str) -> None:
    status, reply = ask(url, "/models", None)
    assert status == 200
    assert [row["id"] for row in reply["data"]] == ["tiny"]
    assert url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_samples_are_those_of_the_model_itself(
    folder: str, url: str, api: str, temperature: float
) -> None:
    own = LocalModel(folder).sample(PROMPTS, **sampling(temperature=temperature))
    served = EndpointModel(url, EndpointSettings(api=api, retries=0))
    found = served.sample(PROMPTS, **sampling(temperature=temperature))
    assert [one.text for one in found] == [one.text for one in own]
    for one, other in zip(found, own, strict=True):
        assert one.mean_log_probability == pytest.approx(other.mean_log_probability)
        assert one.num_tokens == other.num_tokens
    # A seed decides a text, and a greedy text hangs on none.
    assert found == served.sample(PROMPTS, **sampling(temperature=temperature))
    assert (found[0].text == found[2].text) == (temperature == 0)


def test_a_text_ends_before_the_first_stop_string(folder: str, url: str) -> None:
    asked = {"prompt": PROMPTS[0], "temperature": 0, "max_tokens": 8}
    _, reply = ask(url, "/completions", asked)
    whole = reply["choices"][0]["text"]
    assert reply["choices"][0]["finish_reason"] == "length"
    word = whole[len(whole) // 2 :][:2]
    for stop in (word, ["never there", word]):
        status, reply = ask(url, "/completions", {**asked, "stop": stop})
        choice = reply["choices"][0]
        assert status == 200
        assert choice["text"] == whole[: whole.index(word)]
        assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None


def test_scores_are_those_of_the_model_itself(folder: str, url: str) -> None:
    pairs = [
        ("tom has 3 marbles answer:", " 7"),
        ("how many books are left?", " 9 - 2 = 7 answer: 7"),
        ("tom has 3 marbles answer:", " £ and é, which have two bytes"),
    ]
    served = EndpointModel(url, EndpointSettings(retries=0))
    expected = LocalModel(folder).score(pairs)
    assert served.score(pairs) == pytest.approx(expected, rel=1e-5)


def test_an_echo_lists_every_token_and_its_bytes(folder: str, url: str) -> None:
    text = "tom has £3"
    asked = {"prompt": text, "echo": True, "logprobs": 0, "temperature": 0}
    _, alone = ask(url, "/completions", {**asked, "max_tokens": 0})
    _, longer = ask(url, "/completions", {**asked, "max_tokens": 1})
    listed = alone["choices"][0]["logprobs"]
    assert alone["choices"][0]["text"] == text
    assert b"".join(bytes(row["bytes"]) for row in listed["content"]) == text.encode()
    assert len(listed["tokens"]) == alone["usage"]["prompt_tokens"]
    assert listed["token_logprobs"][0] is None
    assert max(listed["token_logprobs"][1:]) < 0
    one_more = longer["choices"][0]["logprobs"]["token_logprobs"]
    assert one_more[:-1] == listed["token_logprobs"]
    # The token behind it is the one that the model writes greedily.
    written = {"prompt": text, "logprobs": 1, "temperature": 0, "max_tokens": 1}
    _, reply = ask(url, "/completions", written)
    (value,) = reply["choices"][0]["logprobs"]["token_logprobs"]
    assert one_more[-1] == pytest.approx(value, rel=1e-5)
    assert longer["choices"][0]["text"] == text + reply["choices"][0]["text"]


def test_an_unknown_path_is_404(url: str) -> None:
    for path, body in (("/secrets", None), ("/embeddings", {"input": SECRET})):
        status, reply = ask(url, path, body)
        assert status == 404
        assert "/v1/completions" in reply["error"]["message"]
        assert SECRET not in json.dumps(reply)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        {},
        {"prompt": 7},
        {"prompt": ""},
        {"prompt": [SECRET]},
        {"prompt": SECRET, "max_tokens": "many"},
        {"prompt": SECRET, "max_tokens": True},
        {"prompt": SECRET, "max_tokens": 0},
        {"prompt": SECRET, "max_tokens": 2, "echo": True},
        {"prompt": SECRET, "temperature": float("nan")},
        {"prompt": SECRET, "temperature": -1},
        {"prompt": SECRET, "seed": -1},
        {"prompt": SECRET, "stop": [7]},
        {"prompt": SECRET, "stop": 7},
        {"prompt": SECRET, "echo": "yes"},
        {"prompt": SECRET, "n": 2},
        {"prompt": SECRET, "top_p": 0.5},
        {"prompt": SECRET, "stream": True},
        {"prompt": SECRET, SECRET: 1},
        {"messages": [{"role": "user", "content": SECRET}]},
        {"prompt": SECRET * 100},
    ],
    ids=lambda body: str(body)[:40],
)
def test_what_cannot_be_answered_is_400_and_quoted_nowhere(
    url: str, body: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    status, reply = ask(url, "/completions", body)
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"
    assert SECRET not in json.dumps(reply)
    assert capfd.readouterr() == ("", "")


def test_a_chat_holds_one_turn(url: str) -> None:
    turn = {"role": "user", "content": SECRET}
    for turns in ([], [turn, turn], [SECRET], [{"role": "user"}], None):
        status, reply = ask(url, "/chat/completions", {"messages": turns})
        assert status == 400
        assert SECRET not in json.dumps(reply)


def test_refusals_say_what_a_client_can_act_on(url: str) -> None:
    status, reply = ask(url, "/completions", {"prompt": "a", "model": "other"})
    assert (status, reply["error"]["code"]) == (404, "model_not_found")
    _, reply = ask(url, "/completions", {"prompt": "a " * 500})
    assert reply["error"]["code"] == "context_length_exceeded"
    _, reply = ask(url, "/completions", {"prompt": "a", "n": 3})
    assert (reply["error"]["code"], reply["error"]["param"]) == (
        "unsupported_value",
        "n",
    )


def test_a_body_without_an_end_is_not_read(url: str) -> None:
    # The server closes the connection: the rest would look like another request.
    status, _ = ask(
        url, "/completions", b"", headers={"Content-Length": str(2**20 + 1)}
    )
    assert status == 413


def test_a_tokenizer_without_bytes_is_refused(tmp_path: Path) -> None:
    source = save_architecture("llama", tmp_path / "words")
    with (
        pytest.raises(ConfigError, match="BPE over bytes"),
        completion_server.serving(source),
    ):
        pass

"""An endpoint that serves a tiny model, with log-probabilities and without."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fedcot.errors import ConfigError, TeacherError
from fedcot.models.loading import load_model
from fedcot.social.client_model import EndpointSettings, Sampled
from fedcot.social.endpoint_model import PROBE, EndpointModel
from fedcot.social.local_model import LocalModel
from tests.teacher.fault_server import completion, serving
from tests.teacher.fault_server import status as refusing
from tests.tiny_architectures import save_architecture

KEY = "sk-secret-key"
SECRET = "what-only-one-patient-asks"
PROMPTS = ["tom has 3 marbles answer:", "how many books?", "tom has 3 marbles answer:"]
SEEDS = [5, 6, 2**62]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("served")
    return save_architecture("gpt2", path, initializer_range=0.2)


class Served:
    """The tiny model behind the two interfaces; all in plain loops.

    It writes ASCII only, so that a token is a text of its own.
    """

    def __init__(self, folder: str, *, chat: str, echo: str) -> None:
        self.loaded = load_model(folder, "teacher")
        self.chat, self.echo = chat, echo
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        tokens = [self.spelled([token]) for token in range(len(self.loaded.tokenizer))]
        self.odd = torch.tensor([not token.isascii() for token in tokens])

    def spelled(self, ids: list[int]) -> str:
        return self.loaded.tokenizer.decode(ids)

    def log_shares(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = self.loaded.model(input_ids=torch.tensor([ids])).logits[0]
        return torch.log_softmax(logits.double(), dim=-1)

    def write(self, body: dict[str, Any], prompt: str) -> dict[str, Any]:
        """Return text, tokens (that of the end too) and their log-probabilities."""
        ids = list(self.loaded.tokenizer(prompt)["input_ids"])
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        new: list[int] = []
        values: list[float] = []
        reason = "length"
        while len(new) < body["max_tokens"]:
            shares = self.log_shares(ids + new)[-1]
            allowed = shares.masked_fill(self.odd, -math.inf)
            token = int(allowed.argmax())
            if body["temperature"] > 0:
                weights = torch.softmax(allowed / body["temperature"], dim=-1)
                token = int(torch.multinomial(weights, 1, generator=generator))
            new.append(token)
            values.append(shares[token].item())
            if any(word in self.spelled(new) for word in body.get("stop", ())):
                reason = "stop"
                break
        text = self.spelled(new)
        ends = [text.find(word) for word in body.get("stop", ()) if word in text]
        return {
            "text": text[: min(ends, default=len(text))],
            "tokens": [self.spelled([token]) for token in new],
            "values": values,
            "reason": reason,
            "read": len(ids),
        }

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "tiny"}]}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Any:
            body = await request.json()
            key = request.headers["authorization"]
            self.requests.append(("chat", body, key))
            if self.chat == "refuses" and "logprobs" in body:
                return JSONResponse({"error": {"message": f"no {body}"}}, 400)
            written = self.write(body, body["messages"][-1]["content"])
            logprobs = None
            if self.chat == "states" and body.get("logprobs"):
                rows = zip(written["tokens"], written["values"], strict=True)
                logprobs = {
                    "content": [
                        {"token": token, "logprob": value, "bytes": [*token.encode()]}
                        for token, value in rows
                    ]
                }
            message = {"role": "assistant", "content": written["text"]}
            return self.reply({"message": message, "logprobs": logprobs}, written)

        @app.post("/v1/completions")
        async def completions(request: Request) -> Any:
            body = await request.json()
            self.requests.append(("completions", body, ""))
            if body.get("echo") and self.echo == "refuses":
                return JSONResponse({"error": {"message": f"no {body}"}}, 500)
            written = self.write(body, body["prompt"])
            tokens, values = written["tokens"], written["values"]
            if body.get("echo") and self.echo == "echoes":
                ids = list(self.loaded.tokenizer(body["prompt"])["input_ids"])
                shares = self.log_shares(ids)
                own = [
                    shares[place, token].item() for place, token in enumerate(ids[1:])
                ]
                tokens = [self.spelled([token]) for token in ids] + tokens
                values = [None, *own, *values]
            listed = {"tokens": tokens, "token_logprobs": values}
            choice = {"text": written["text"], "logprobs": listed}
            return self.reply(choice, written)

        return app

    def reply(self, choice: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": "tiny",
            "choices": [{"index": 0, "finish_reason": written["reason"], **choice}],
            "usage": {
                "prompt_tokens": written["read"],
                "completion_tokens": len(written["tokens"]),
            },
        }


@contextmanager
def running(served: Served) -> Iterator[str]:
    """Serve for the time of a test; yield the base URL."""
    config = uvicorn.Config(
        served.app(), port=0, log_level="error", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join(30)


def asking(url: str, **settings: Any) -> EndpointModel:
    settings = {"model": "tiny", "retries": 1, "concurrency": 2, **settings}
    given = EndpointSettings(**settings)
    return EndpointModel(url, given, pause=lambda seconds: None)


def sample(model: EndpointModel, **changes: Any) -> list[Sampled]:
    given = {"temperature": 0.8, "max_new_tokens": 8, "stop": [], "seeds": SEEDS}
    return model.sample(changes.pop("prompts", PROMPTS), **{**given, **changes})


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_samples_have_the_mean_over_the_tokens_of_the_text(
    folder: str, api: str
) -> None:
    served = Served(folder, chat="states", echo="echoes")
    with running(served) as url:
        model = asking(url, api=api)
        free = sample(model)
        middle = len(free[0].text) // 2
        stop = ["", free[0].text[middle : middle + 2], *"1234", " to"]
        stopped = sample(model, stop=stop)
        greedy = sample(model, temperature=0.0)
    sent = [body for _, body, _ in served.requests]
    for found, stops, warmth in ((free, [], 0.8), (stopped, stop[1:5], 0.8)):
        for one, prompt, seed in zip(found, PROMPTS, SEEDS, strict=True):
            asked = {"max_tokens": 8, "temperature": warmth, "stop": stops}
            alone = served.write({**asked, "seed": seed % 2**31}, prompt)
            text = alone["text"]
            for word in filter(None, stop if stops else []):
                text = text.partition(word)[0]
            assert one.text == text
            spelled = ["".join(alone["tokens"][:n]) for n in range(9)]
            count = next(n for n in range(9) if spelled[n].startswith(text))
            assert one.num_tokens == count
            if count:
                mean = sum(alone["values"][:count]) / count
                assert one.mean_log_probability == pytest.approx(mean)
            else:
                assert one.mean_log_probability is None
    assert 0 < len(stopped[0].text) < len(free[0].text)
    # What a seed decides, and what it does not.
    assert free[0].text != free[2].text
    assert greedy[0] == greedy[2]
    assert all(len(body.get("stop", [])) <= 4 for body in sent)
    assert all("seed" not in body for body in sent[-3:])


def test_a_chat_request_holds_what_it_should_and_the_key(folder: str) -> None:
    served = Served(folder, chat="states", echo="echoes")
    with running(served) as url:
        sample(asking(url), prompts=["tom has"], seeds=[3], stop=["x"])
    ((_, body, key),) = served.requests
    assert body == {
        "model": "tiny",
        "temperature": 0.8,
        "messages": [{"role": "user", "content": "tom has"}],
        "max_tokens": 8,
        "top_p": 1.0,
        "seed": 3,
        "stop": ["x"],
        "logprobs": True,
    }
    assert key == f"Bearer {KEY}"


@pytest.mark.parametrize("chat", ["ignores", "refuses"])
def test_without_log_probabilities_there_is_no_mean(folder: str, chat: str) -> None:
    served = Served(folder, chat=chat, echo="refuses")
    with running(served) as url:
        model = asking(url, concurrency=1)
        found = sample(model)
        again = sample(model)
    assert found == again
    assert [one.mean_log_probability for one in found] == [None] * 3
    assert [one.num_tokens for one in found] == [8] * 3
    assert (
        found[0].text
        == served.write({"max_tokens": 8, "temperature": 0.8, "seed": 5}, PROMPTS[0])[
            "text"
        ]
    )
    # A server that refuses them is asked once.
    asked = sum("logprobs" in body for _, body, _ in served.requests)
    assert asked == (1 if chat == "refuses" else 6)


def test_scores_are_those_of_the_model(folder: str) -> None:
    pairs = [
        ("tom has 3 marbles answer:", " 7"),
        ("how many books are left?", " 9 - 2 = 7 answer: 7"),
        ("tom has 3 marbles answer:", " é, which has two bytes"),
    ]
    served = Served(folder, chat="states", echo="echoes")
    with running(served) as url:
        model = asking(url)
        found = model.score(pairs)
        assert model.score([]) == []
        asked = [body["prompt"] for _, body, _ in served.requests]
        # A public text comes first, and each prompt is read once.
        assert asked[0] == PROBE
        assert sorted(asked[1:]) == sorted(
            {prompt for prompt, _ in pairs} | {"".join(pair) for pair in pairs}
        )
        model.score(pairs[:1])
        assert [body["prompt"] for _, body, _ in served.requests].count(PROBE) == 1
    assert found == pytest.approx(LocalModel(folder).score(pairs), rel=1e-5)


@pytest.mark.parametrize("echo", ["refuses", "leaves it out"])
def test_a_server_that_does_not_score_gets_no_private_text(
    folder: str, echo: str
) -> None:
    served = Served(folder, chat="states", echo=echo)
    with running(served) as url:
        model = asking(url)
        for _ in range(2):
            with pytest.raises(ConfigError, match="aggregators=random") as caught:
                model.score([(SECRET, SECRET)])
            assert SECRET not in str(caught.value)
    assert [body["prompt"] for _, body, _ in served.requests] == [PROBE]


def test_a_refused_key_is_no_missing_feature() -> None:
    with serving(refusing(401)) as server:
        with pytest.raises(TeacherError, match="OPENAI_API_KEY") as caught:
            asking(server.url).score([("a", "b")])
        assert KEY not in str(caught.value)


def test_errors_quote_no_text() -> None:
    with serving(refusing(400)) as server:
        model = asking(server.url)
        with pytest.raises(TeacherError, match="status 400") as caught:
            sample(model, prompts=[SECRET], seeds=[1])
        assert SECRET not in str(caught.value)
        assert KEY not in str(caught.value)
        # With log-probabilities and without; the next sample asks for them again.
        assert ["logprobs" in one.body for one in server.asked] == [True, False]
        with pytest.raises(TeacherError):
            sample(model, prompts=[SECRET], seeds=[1])
        assert "logprobs" in server.asked[2].body


def test_another_name_of_the_length_limit_is_used() -> None:
    error = {"code": "unsupported_parameter", "param": "max_tokens"}

    def behave(handler: Any, request: Any) -> None:
        if "max_tokens" in request.body:
            refusing(400, error)(handler, request)
        else:
            handler.send_json(completion(request, "seven"))

    with serving(behave) as server:
        found = sample(asking(server.url), prompts=["a"], seeds=[1])
        assert [one.text for one in found] == ["seven"]
        assert server.asked[-1].body["max_completion_tokens"] == 8
        assert server.asked[-1].body["logprobs"] is True


def test_the_only_model_is_found_and_described(folder: str) -> None:
    served = Served(folder, chat="states", echo="echoes")
    with running(served) as url:
        described = asking(url, model="").describe()
    assert described["model"] == "tiny"
    assert asking("http://h/v1").fits("word " * 10**6, max_new_tokens=1)

"""The built-in teacher behind `transformers serve`, a real OpenAI-compatible server.

Between it and the writer stands a counter, so that it is known what was answered and
when; the server is killed and started again on the same port.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedcot.config import load_config
from fedcot.data.partition import load_public_bank
from fedcot.errors import TeacherError
from fedcot.models.sources import model_folder
from fedcot.tasks.world import WorldTask
from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.endpoint import EndpointWriter
from fedcot.teacher.prompted import PromptedTeacher
from fedcot.teacher.teacher import Written
from fedcot.teacher.transformers_writer import TransformersWriter
from tests.teacher.fault_server import Handler, Request, serving

QUESTIONS = 24
TOKENS = 80
START_SECONDS = 240.0  # on a busy machine, where torch takes long to import
FOLDER = str(model_folder("builtin", "teacher"))
TASK = WorldTask()


class Server:
    """A process of `transformers serve` on a port that it keeps over restarts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, without waiting for it."""
        command = [str(Path(sys.executable).with_name("transformers")), "serve", FOLDER]
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--device": "cpu",
            # As in this process, so that rounding cannot decide between two tokens.
            "--dtype": "float32",
            "--attn-implementation": "eager",
        }
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *(part for pair in options.items() for part in pair)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "HF_HOME": str(self.folder), "OMP_NUM_THREADS": "1"},
            )

    def wait(self) -> None:
        """Wait until it answers; it does once the model is loaded."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "serve.log").read_text()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            connection.close()
            time.sleep(0.1)
        pytest.fail(f"no server after {START_SECONDS} s")

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(60)
            self.process = None


class Counter:
    """Hands requests on to a server, and notes which prompts were answered.

    Parameters
    ----------
    server : Server
        What stands behind.
    kill_after : int
        So many answers that were handed back end the server; 0: it lives on.
    on_killed : callable
        Called right after that.
    """

    def __init__(
        self, server: Server, kill_after: int, on_killed: Callable[[], None]
    ) -> None:
        self.answered: list[str] = []
        self.failed: list[str] = []
        self._server = server
        self._kill_after = kill_after
        self._on_killed = on_killed
        self._lock = threading.Lock()

    def __call__(self, handler: Handler, request: Request) -> None:
        """Hand one request on; where there is no reply, hang up."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._server.port, timeout=START_SECONDS
        )
        try:
            connection.request(
                request.method,
                request.path,
                json.dumps(request.body),
                {"Content-Type": "application/json"},
            )
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            self.failed.append(request.prompt)
            handler.close_connection = True
            return
        finally:
            connection.close()
        handler.send(reply.status, content)
        if reply.status != 200:
            self.failed.append(request.prompt)
            return
        with self._lock:
            self.answered.append(request.prompt)
            if len(self.answered) == self._kill_after:
                self._server.kill()
                self._on_killed()


def prompt_of(question: str) -> str:
    return TASK.teacher_prompt(question).user


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("serve"))
    served.start()
    try:
        served.wait()
        yield served
    finally:
        served.kill()


@pytest.fixture(scope="module")
def questions() -> list[str]:
    config = load_config(None)
    return [record.question for record in load_public_bank(config, 3 * QUESTIONS)]


@pytest.fixture(scope="module")
def in_process(questions: list[str]) -> dict[str, Written]:
    """What the same model writes in this process, one prompt at a time."""
    writer = TransformersWriter("builtin", batch_size=1, max_new_tokens=TOKENS)
    prompts = [TASK.teacher_prompt(question) for question in questions]
    written = writer.write(prompts)
    return dict(zip(questions, written, strict=True))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", "any")


def writer_for(url: str, *, retries: int) -> EndpointWriter:
    return EndpointWriter(
        url,
        model=FOLDER,
        api="completions",
        max_new_tokens=TOKENS,
        concurrency=4,
        retries=retries,
        timeout=START_SECONDS,
        pause=lambda seconds: time.sleep(min(seconds, 0.25)),
    )


def test_a_server_writes_the_same_as_this_process(
    server: Server, questions: list[str], in_process: dict[str, Written]
) -> None:
    asked = questions[:QUESTIONS]
    writer = writer_for(f"http://127.0.0.1:{server.port}/v1", retries=3)
    written = writer.write([TASK.teacher_prompt(question) for question in asked])
    for question, one in zip(asked, written, strict=True):
        expected = in_process[question]
        assert one.text == expected.text
        assert one.prompt_tokens == expected.prompt_tokens
        assert one.completion_tokens == expected.completion_tokens
        assert one.served_by.startswith(FOLDER)
    # They are rationales, and not all the same.
    read = [TASK.parse_teacher(one.text) for one in written]
    assert sum(rationale is not None for rationale in read) > QUESTIONS // 2
    assert len({one.text for one in written}) > QUESTIONS // 2
    short = EndpointWriter(
        f"http://127.0.0.1:{server.port}/v1",
        model=FOLDER,
        api="completions",
        max_new_tokens=5,
    )
    (cut,) = short.write([TASK.teacher_prompt(asked[0])])
    assert cut.is_cut
    assert cut.completion_tokens == 5
    assert written[0].text.startswith(cut.text)


def test_a_server_that_is_killed_and_started_again_is_asked_for_the_rest(
    server: Server,
    questions: list[str],
    in_process: dict[str, Written],
    tmp_path: Path,
) -> None:
    asked = questions[QUESTIONS : 2 * QUESTIONS]
    counter = Counter(server, QUESTIONS // 3, on_killed=server.start)
    with serving(counter) as counting, AnswerCache(tmp_path / "cache.sqlite") as cache:
        writer = writer_for(counting.url, retries=int(START_SECONDS / 0.25))
        teacher = PromptedTeacher(TASK, writer, cache)
        answers = teacher.answer(asked)
        assert len(cache) == QUESTIONS
    assert [answer.text for answer in answers] == [in_process[q].text for q in asked]
    # It was down, some requests went unanswered, and each prompt was answered once.
    assert counter.failed
    assert sorted(counter.answered) == sorted(
        TASK.teacher_prompt(q).user for q in asked
    )
    assert teacher.usage.prompts == QUESTIONS
    assert teacher.usage.cached == 0


def test_a_run_that_gave_up_goes_on_with_what_is_not_answered(
    server: Server,
    questions: list[str],
    in_process: dict[str, Written],
    tmp_path: Path,
) -> None:
    asked = questions[2 * QUESTIONS :]
    path = tmp_path / "cache.sqlite"
    counter = Counter(server, QUESTIONS // 3, on_killed=lambda: None)
    with serving(counter) as counting:
        with AnswerCache(path) as cache:
            writer = writer_for(counting.url, retries=1)
            with pytest.raises(TeacherError) as caught:
                PromptedTeacher(TASK, writer, cache).answer(asked)
            kept = len(cache)
        assert caught.value.exit_code == 3
        assert f"{kept} of {QUESTIONS} prompts are answered" in str(caught.value)
        assert QUESTIONS // 3 <= kept == len(counter.answered) < QUESTIONS
        # Requests that fail are bounded: four at a time, each sent twice.
        assert 1 <= len(counter.failed) <= 4 * 2
        server.start()
        server.wait()
        with AnswerCache(path) as cache:
            teacher = PromptedTeacher(TASK, writer_for(counting.url, retries=1), cache)
            answers = teacher.answer(asked)
    assert [answer.text for answer in answers] == [in_process[q].text for q in asked]
    assert teacher.usage.cached == kept
    assert sorted(counter.answered) == sorted(
        TASK.teacher_prompt(q).user for q in asked
    )

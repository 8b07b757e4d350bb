"""A model in this process as a writer: what it is given, what it says about itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

from fedcot.errors import ConfigError, TeacherError
from fedcot.models.generation import generate_greedy
from fedcot.models.loading import load_model
from fedcot.models.sources import artefact_hash
from fedcot.models.tokenizer import build_tokenizer
from fedcot.tasks.task import TeacherPrompt
from fedcot.tasks.world import WorldTask
from fedcot.teacher.teacher import Writer, Written
from fedcot.teacher.transformers_writer import TransformersWriter
from fedcot.world import FAMILIES, draw_problems

TASK = WorldTask()
PROBLEMS = draw_problems("test", tuple(FAMILIES), 18, seed=2)
PROMPTS = [TASK.teacher_prompt(problem.question) for problem in PROBLEMS]
SHORT = 64  # Positions of the small model below.


def _save_small(folder: Path, template: str = "") -> str:
    """Write a random model with learned positions, as a user would have one."""
    tokenizer = build_tokenizer()
    if template:
        tokenizer.chat_template = template
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=SHORT,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _words(text: str) -> int:
    """Count as the world's tokenizer does: every digit is a token, and every word."""
    return sum(len(word) if word.isdigit() else 1 for word in text.split())


def test_it_writes_what_the_built_in_teacher_writes() -> None:
    loaded = load_model("builtin", "teacher")
    writer: Writer = TransformersWriter("builtin", batch_size=7)
    expected = generate_greedy(
        loaded.model,
        loaded,
        [prompt.text for prompt in PROMPTS],
        batch_size=18,
        max_new_tokens=80,
    )
    reported: dict[int, Written] = {}
    found = writer.write(PROMPTS, on_written=reported.__setitem__)
    assert [written.text for written in found] == expected
    assert found == [reported[index] for index in range(len(PROMPTS))]
    for prompt, written in zip(PROMPTS, found, strict=True):
        assert written.prompt_tokens == _words(prompt.text)
        assert written.completion_tokens == _words(written.text) + 1  # The end token.
        assert not written.is_cut
    solved = sum(
        (rationale := TASK.parse_teacher(written.text)) is not None
        and rationale.answer == problem.answer
        for problem, written in zip(PROBLEMS, found, strict=True)
    )
    assert solved >= 16


def test_a_completion_ends_before_a_stop_text() -> None:
    writer = TransformersWriter("builtin")
    whole = writer.write(PROMPTS[:4])
    cut = writer.write(PROMPTS[:4], stop=["answer:"])
    for before, after in zip(whole, cut, strict=True):
        assert after.text == before.text.split("answer:")[0]
        # The stop text was written, the answer and the end token behind it were not.
        assert after.completion_tokens == _words(after.text) + 1
        assert not after.is_cut
    cut = writer.write(PROMPTS[:4], stop=["nowhere"])
    assert cut == whole


def test_a_completion_at_the_length_limit_is_marked() -> None:
    (written,) = TransformersWriter("builtin", max_new_tokens=3).write(PROMPTS[:1])
    assert written.completion_tokens == 3
    assert written.is_cut


def test_samples_depend_on_prompt_and_seed_only() -> None:
    def texts(seed: int, batch_size: int, prompts: list[TeacherPrompt]) -> list[str]:
        writer = TransformersWriter(
            "builtin",
            batch_size=batch_size,
            max_new_tokens=20,
            temperature=1.5,
            top_p=0.95,
            seed=seed,
        )
        return [written.text for written in writer.write(prompts)]

    first = texts(1, 18, PROMPTS)
    assert texts(1, 4, PROMPTS[::-1]) == first[::-1]
    assert texts(2, 18, PROMPTS) != first
    greedy = TransformersWriter("builtin", max_new_tokens=20).write(PROMPTS)
    assert [written.text for written in greedy] != first


def test_it_describes_what_decides_the_completions(tmp_path: Path) -> None:
    plain = TransformersWriter("builtin", batch_size=3, seed=1).describe()
    assert plain == TransformersWriter("builtin", batch_size=9, seed=2).describe()
    assert plain == {
        "writer": "transformers",
        "model": "builtin",
        "artefact": artefact_hash("builtin", "teacher"),
        "revision": "",
        "dtype": "float32",
        "device": "cpu",
        "quantization": "none",
        "chat": False,
        "max_new_tokens": 80,
        "temperature": 0.0,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    variants: list[Callable[[], TransformersWriter]] = [
        lambda: TransformersWriter("builtin"),
        lambda: TransformersWriter("builtin", max_new_tokens=81),
        lambda: TransformersWriter("builtin", temperature=0.5),
        lambda: TransformersWriter("builtin", temperature=0.5, seed=1),
        lambda: TransformersWriter("builtin", temperature=0.5, top_p=0.9),
        lambda: TransformersWriter(_save_small(tmp_path), max_new_tokens=8),
    ]
    described = [frozenset(variant().describe().items()) for variant in variants]
    assert len(set(described)) == len(variants)


def test_the_revision_is_the_commit_of_a_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    writer = TransformersWriter(_save_small(folder), max_new_tokens=8)
    assert writer.describe()["revision"] == "0123abcd"


def test_a_chat_template_shapes_the_prompt(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}rationale:{% endif %}"
    )
    writer = TransformersWriter(_save_small(tmp_path, template), max_new_tokens=4)
    chat = TeacherPrompt("a", (("tom", "has"),), "marbles")
    (written,) = writer.write([chat])
    assert writer.describe()["chat"] is True
    assert written.prompt_tokens == len(["a", "tom", "has", "marbles", "rationale:"])


def test_a_prompt_that_does_not_fit_is_empty_and_ends_no_run(tmp_path: Path) -> None:
    writer = TransformersWriter(_save_small(tmp_path), max_new_tokens=8)
    long = TeacherPrompt("", (), " ".join(["tom"] * (SHORT - 8 + 1)))
    short = TeacherPrompt("", (), " ".join(["tom"] * (SHORT - 8)))
    found = writer.write([long, short, long])
    assert found[0] == found[2] == Written("", SHORT - 8 + 1, 0)
    assert found[1].completion_tokens > 0


def test_a_context_without_room_for_any_prompt_is_a_setting_to_change(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"`max-new-tokens`.*found 64 for"):
        TransformersWriter(_save_small(tmp_path), max_new_tokens=SHORT)


def _fail(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_too_little_memory_for_one_prompt_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        GPT2LMHeadModel, "generate", _fail(torch.OutOfMemoryError("CUDA out of memory"))
    )
    writer = TransformersWriter(_save_small(tmp_path), batch_size=4, max_new_tokens=8)
    with pytest.raises(TeacherError, match="`teacher-batch-size` 4") as caught:
        writer.write(PROMPTS)
    assert "\n" not in str(caught.value)
    assert PROMPTS[0].user not in str(caught.value)


def test_other_errors_of_the_model_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(GPT2LMHeadModel, "generate", _fail(RuntimeError("shapes")))
    writer = TransformersWriter(_save_small(tmp_path), max_new_tokens=8)
    with pytest.raises(RuntimeError, match="shapes"):
        writer.write(PROMPTS)

"""Batched generation equals generation one prompt at a time."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from fedcot.models.generation import (
    Generated,
    generate,
    generate_greedy,
    longest_prompt,
)
from fedcot.models.loading import LoadedModel
from fedcot.models.sequences import token_ids
from tests.models.kinds import CONFIGS, one_by_one, tiny_kind
from tests.tiny import tiny_base

BASE = tiny_base()
LLAMA = tiny_kind("llama", seed=1)
PROMPTS = [
    "explain: tom has 12 marbles rationale:",
    "explain: a rationale:",
    "explain: tom has 12 marbles finds 3 loses 4 how many marbles now rationale:",
    "predict: 7 answer:",
    "explain: a rationale:",
]
IDS = [token_ids(BASE.tokenizer, prompt) for prompt in PROMPTS]


def _decoded(loaded: LoadedModel, ids: Sequence[int]) -> str:
    return str(loaded.tokenizer.decode(ids, skip_special_tokens=True))


def test_batches_change_nothing() -> None:
    expected = [_decoded(BASE, one_by_one(BASE, ids, 6)[0]) for ids in IDS]
    for batch_size in (1, 2, 5):
        found = generate_greedy(
            BASE.model, BASE, PROMPTS, batch_size=batch_size, max_new_tokens=6
        )
        assert found == expected


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_every_kind_of_model_writes_what_it_would_write_alone(kind: str) -> None:
    loaded = tiny_kind(kind, seed=1)
    alone = [one_by_one(loaded, ids, 8) for ids in IDS]
    assert min(gap for _, gap in alone) > 2e-5  # Else rounding could decide.
    found = generate(loaded.model, loaded, IDS, batch_size=3, max_new_tokens=8)
    assert found == [
        Generated(
            _decoded(loaded, written),
            len(ids),
            len(written),
            is_cut=written[-1] != loaded.tokenizer.eos_token_id,
        )
        for ids, (written, _) in zip(IDS, alone, strict=True)
    ]


def test_progress_counts_every_prompt() -> None:
    seen: list[tuple[int, int]] = []
    generate_greedy(
        BASE.model,
        BASE,
        PROMPTS,
        batch_size=2,
        max_new_tokens=1,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_completions_are_reported_once_each_batch_by_batch() -> None:
    reported: list[tuple[int, Generated]] = []
    counts: list[int] = []
    found = generate(
        BASE.model,
        BASE,
        IDS,
        batch_size=2,
        max_new_tokens=3,
        on_progress=lambda *_: counts.append(len(reported)),
        on_written=lambda *one: reported.append(one),
    )
    assert counts == [2, 4, 5]
    assert sorted(index for index, _ in reported) == [0, 1, 2, 3, 4]
    assert all(found[index] is completion for index, completion in reported)
    lengths = [len(IDS[index]) for index, _ in reported]
    assert lengths == sorted(lengths)


def test_no_prompts_give_no_completions() -> None:
    assert generate_greedy(BASE.model, BASE, [], batch_size=2, max_new_tokens=1) == []


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_an_empty_prompt_starts_from_a_special_token(kind: str) -> None:
    loaded = tiny_kind(kind)
    end = loaded.tokenizer.eos_token_id
    alone, _ = one_by_one(loaded, [end], 3)
    found = generate(loaded.model, loaded, [[], [5, 6]], batch_size=2, max_new_tokens=3)
    assert found[0].text == _decoded(loaded, alone)
    assert found[0].prompt_tokens == 1


def _stopping_word(written: list[int]) -> tuple[str, int]:
    """Return a word of a completion that was not in it before, and its place."""
    place = max(written.index(token) for token in set(written))
    return _decoded(LLAMA, [written[place]]), place


def test_a_stop_text_ends_its_row_only() -> None:
    alone = [one_by_one(LLAMA, ids, 8)[0] for ids in IDS[:4]]
    word, place = _stopping_word(alone[0])
    found = generate(
        LLAMA.model, LLAMA, IDS[:4], batch_size=4, max_new_tokens=8, stop=[word]
    )
    for written, completion in zip(alone, found, strict=True):
        text = _decoded(LLAMA, written)
        assert completion.text == text.split(word)[0]
        assert (completion.new_tokens < len(written)) == (word in text[: -len(word)])
        assert completion.is_cut == (word not in text)
    assert found[0].new_tokens == place + 1


def test_a_batch_ends_when_all_its_rows_have_stopped() -> None:
    written = one_by_one(LLAMA, IDS[0], 30)[0]
    word = _decoded(LLAMA, [written[0]])
    passes = []
    hook = LLAMA.model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = generate(
        LLAMA.model, LLAMA, [IDS[0]] * 3, batch_size=3, max_new_tokens=30, stop=[word]
    )
    hook.remove()
    assert [completion.text for completion in found] == [""] * 3
    assert len(passes) == 1


def test_the_end_tokens_of_model_and_tokenizer_both_end_a_completion() -> None:
    loaded = tiny_kind("llama", seed=1)
    written = one_by_one(loaded, IDS[0], 6)[0]
    loaded.model.generation_config.eos_token_id = [written[2], 1]
    (found,) = generate(loaded.model, loaded, IDS[:1], batch_size=1, max_new_tokens=6)
    place = written.index(written[2])
    assert found.new_tokens == place + 1
    assert found.text == _decoded(loaded, written[:place])


def test_padding_with_the_end_token_adds_nothing_to_a_completion() -> None:
    """Many tokenizers have no padding token of their own."""
    alone = [one_by_one(LLAMA, ids, 8)[0] for ids in IDS]
    end = alone[0][1]
    expected = [
        written[: written.index(end) + 1] if end in written else written
        for written in alone
    ]
    assert len(set(map(len, expected))) > 1
    loaded = tiny_kind("llama", seed=1)
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.eos_token_id = tokenizer.pad_token_id = end
    loaded.model.generation_config.eos_token_id = end
    found = generate(
        loaded.model,
        dataclasses.replace(loaded, tokenizer=tokenizer),
        IDS,
        batch_size=5,
        max_new_tokens=8,
    )
    assert [one.new_tokens for one in found] == [len(ids) for ids in expected]
    assert [one.text for one in found] == [
        _decoded(loaded, [token for token in ids if token != end]) for ids in expected
    ]


def test_a_models_own_sampling_defaults_are_not_used() -> None:
    """Chat models come with some: greedy has to mean greedy."""
    loaded = tiny_kind("llama", seed=1)
    expected = generate(loaded.model, loaded, IDS, batch_size=5, max_new_tokens=6)
    loaded.model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=3,
        top_p=0.5,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        num_beams=2,
        min_length=30,
        eos_token_id=1,
        pad_token_id=0,
    )
    found = generate(loaded.model, loaded, IDS, batch_size=5, max_new_tokens=6)
    assert found == expected


def test_a_prompt_without_room_gets_an_empty_completion_and_the_rest_goes_on() -> None:
    loaded = tiny_kind("gpt2")  # 256 learned positions.
    long = [5] * 250
    prompts = [long[:246], IDS[0], long[:247], IDS[1]]
    reported: dict[int, Generated] = {}
    found = generate(
        loaded.model,
        loaded,
        prompts,
        batch_size=4,
        max_new_tokens=10,
        on_written=lambda index, one: reported.__setitem__(index, one),
    )
    assert found[2] == Generated("", 247, 0)
    assert [completion.new_tokens > 0 for completion in found] == [
        True,
        True,
        False,
        True,
    ]
    assert found == [reported[index] for index in range(4)]


@pytest.mark.parametrize(
    ("kind", "room"), [("llama", 246), ("bart", 256), ("t5", None), ("bloom", None)]
)
def test_the_room_for_a_prompt_is_what_the_context_leaves(
    kind: str, room: int | None
) -> None:
    assert longest_prompt(tiny_kind(kind).model, 10) == room


def test_greedy_texts_that_are_too_long_lose_their_beginning() -> None:
    """The student's limit is the model's 256 positions here."""
    words = ["tom"] * 300 + PROMPTS[2].split()
    kept = token_ids(BASE.tokenizer, " ".join(words))[-(256 - 6) :]
    (found,) = generate_greedy(
        BASE.model, BASE, [" ".join(words)], batch_size=1, max_new_tokens=6
    )
    assert found == _decoded(BASE, one_by_one(BASE, kept, 6)[0])


def _scarce(monkeypatch: pytest.MonkeyPatch, error: Exception, rows: int) -> list[int]:
    """Let batches of more than so many rows fail; return the sizes that were tried."""
    sizes: list[int] = []
    real = BASE.model.generate

    def scarce(**given: Any) -> Any:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > rows:
            raise error
        return real(**given)

    monkeypatch.setattr(BASE.model, "generate", scarce)
    return sizes


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"
        " memory: you tried to allocate 1 bytes."
    ),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_batches_are_halved_where_memory_does_not_suffice(
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = generate(BASE.model, BASE, IDS, batch_size=5, max_new_tokens=4)
    sizes = _scarce(monkeypatch, error, rows=2)
    progress: list[int] = []
    found = generate(
        BASE.model,
        BASE,
        IDS,
        batch_size=5,
        max_new_tokens=4,
        on_progress=lambda done, _: progress.append(done),
    )
    assert found == expected
    assert sizes == [5, 2, 2, 1]
    assert progress == [2, 4, 5]
    assert len(caplog.messages) == 1
    assert "5 prompts" in caplog.messages[0]


def test_a_single_prompt_without_memory_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = _scarce(monkeypatch, OUT_OF_MEMORY[0], rows=0)
    with pytest.raises(torch.OutOfMemoryError):
        generate(BASE.model, BASE, IDS, batch_size=4, max_new_tokens=4)
    assert sizes == [4, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = _scarce(monkeypatch, RuntimeError("shapes do not match"), rows=0)
    with pytest.raises(RuntimeError, match="shapes"):
        generate(BASE.model, BASE, IDS, batch_size=4, max_new_tokens=4)
    assert sizes == [4]

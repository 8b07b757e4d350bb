"""Batched greedy generation equals generation one prompt at a time."""

import torch

from fedcot.models.generation import generate_greedy
from fedcot.models.sequences import IGNORE_INDEX, token_ids, training_batch
from tests.tiny import tiny_base

BASE = tiny_base()
PROMPTS = [
    "explain: tom has 12 marbles rationale:",
    "explain: a rationale:",
    "explain: tom has 12 marbles finds 3 loses 4 how many marbles now rationale:",
    "predict: 7 answer:",
    "explain: a rationale:",
]


def _one_by_one(prompt: str, steps: int) -> str:
    """Greedy decoding without cache, padding or batching."""
    ids = token_ids(BASE.tokenizer, prompt)
    start = len(ids)
    for _ in range(steps):
        logits = BASE.model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == BASE.tokenizer.eos_token_id:
            break
    return BASE.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_batches_change_nothing() -> None:
    expected = [_one_by_one(prompt, 6) for prompt in PROMPTS]
    for batch_size in (1, 2, 5):
        found = generate_greedy(
            BASE.model,
            BASE.tokenizer,
            PROMPTS,
            batch_size=batch_size,
            max_new_tokens=6,
        )
        assert found == expected


def test_progress_counts_every_prompt() -> None:
    seen: list[tuple[int, int]] = []
    generate_greedy(
        BASE.model,
        BASE.tokenizer,
        PROMPTS,
        batch_size=2,
        max_new_tokens=1,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_no_prompts_give_no_completions() -> None:
    assert (
        generate_greedy(BASE.model, BASE.tokenizer, [], batch_size=2, max_new_tokens=1)
        == []
    )


def test_only_targets_are_supervised_and_their_end_too() -> None:
    batch = training_batch([([5, 6, 7], [8, 1]), ([5], [9, 9, 9, 1])], pad=1)
    assert batch.labels.tolist() == [
        [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 8, 1],
        [IGNORE_INDEX, 9, 9, 9, 1],
    ]
    shorter = training_batch([([5], [8, 1]), ([5, 6], [9, 9, 1])], pad=1)
    assert shorter.input_ids.tolist() == [[5, 8, 1, 1, 1], [5, 6, 9, 9, 1]]
    assert shorter.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert shorter.labels[0].tolist()[3:] == [IGNORE_INDEX, IGNORE_INDEX]

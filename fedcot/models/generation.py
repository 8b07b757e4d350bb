"""Greedy generation in length-bucketed batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedcot.models.sequences import token_ids

Progress = Callable[[int, int], None]


def generate_greedy(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Progress | None = None,
) -> list[str]:
    """Return one completion for each prompt, in the order of the prompts.

    Prompts are sorted by length first, so that a batch carries little padding. They
    are padded on the left: a decoder goes on from the last position.

    Parameters
    ----------
    batch_size : int
        Prompts for each forward pass.
    max_new_tokens : int
        A completion is cut there if no end token comes before.
    on_progress : callable, optional
        Called with (prompts done, prompts in all) after every batch.
    """
    encoded = [token_ids(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    completions = [""] * len(prompts)
    pad = tokenizer.pad_token_id
    generate: Any = model.generate
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = max(len(encoded[row]) for row in rows)
        input_ids = torch.full((len(rows), length), pad)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.long)
        for position, row in enumerate(rows):
            input_ids[position, length - len(encoded[row]) :] = torch.tensor(
                encoded[row]
            )
            attention_mask[position, length - len(encoded[row]) :] = 1
        with torch.inference_mode():
            output = generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
            )
        texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            completions[row] = text
        if on_progress is not None:
            on_progress(min(start + batch_size, len(order)), len(order))
    return completions

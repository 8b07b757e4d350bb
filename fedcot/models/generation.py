"""Completions in length-bucketed batches, greedy or sampled with a seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from fedcot.models.loading import LoadedModel
from fedcot.models.prefix import SharedPrefix
from fedcot.models.sampling import Sampling
from fedcot.models.sequences import (
    cut_prompt,
    position_limit,
    prompt_ids,
    sequence_limit,
)
from fedcot.models.stopping import StopTexts
from fedcot.out_of_memory import is_out_of_memory
from fedcot.plain_text import cut

Model = PreTrainedModel | PeftModel
Progress = Callable[[int, int], None]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generated:
    """One completion.

    Attributes
    ----------
    text : str
        Without special tokens, and without the stop text that ended it.
    prompt_tokens : int
    new_tokens : int
        Written tokens, the end token included; 0 for a prompt that does not fit.
    is_cut : bool
        Whether only the length limit ended it.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    is_cut: bool = False


def generate(
    model: Model,
    loaded: LoadedModel,
    prompt_ids: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    seeds: Sequence[int] = (),
    on_progress: Progress | None = None,
    on_written: Callable[[int, Generated], None] | None = None,
) -> list[Generated]:
    """Return one completion for each prompt, in the order of the prompts.

    Prompts are sorted by length, so that a batch carries little padding. What all of
    them begin with is computed once (`fedcot.models.prefix`). A completion is a
    function of its own prompt: of the seed too where it is sampled, never of the
    prompts beside it, up to rounding. Where memory does not suffice for a batch, it and
    those after it are halved.

    A prompt that leaves no room for `max_new_tokens` in the model's context gets an
    empty completion.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Decoder or encoder-decoder; `loaded.model` or one with adapters on it.
    loaded : LoadedModel
        Gives the tokenizer.
    prompt_ids : sequence of sequence of int
        Special tokens included where the model wants them.
    batch_size : int
        Prompts for each forward pass at most.
    max_new_tokens : int
        A completion is cut there if nothing ends it before.
    stop : sequence of str
        A completion ends before the first of these.
    temperature, top_p, seed
        See `Sampling`; 0 is greedy.
    seeds : sequence of int
        One for each prompt instead of `seed`, so that one prompt can have several
        completions.
    on_progress : callable, optional
        Called with (prompts done, prompts in all) after every batch.
    on_written : callable, optional
        Called with the index of a prompt and its completion, after its batch.

    Raises
    ------
    RuntimeError, MemoryError
        If memory does not suffice for a single prompt.
    """
    writing = _Writing(
        model=model,
        tokenizer=loaded.tokenizer,
        max_new_tokens=max_new_tokens,
        stop=tuple(word for word in stop if word),
        sampling=Sampling(temperature, top_p),
        seeds=tuple(seeds) or (seed,) * len(prompt_ids),
    )
    prompts = [list(ids) or [_first_id(loaded.tokenizer)] for ids in prompt_ids]
    written: dict[int, Generated] = {}

    def keep(index: int, completion: Generated) -> None:
        written[index] = completion
        if on_written is not None:
            on_written(index, completion)

    queue = _fitting(model, prompts, max_new_tokens)
    for index in sorted(set(range(len(prompts))) - set(queue)):
        keep(index, Generated("", len(prompts[index]), 0))
    for rows, completions in writing.batches(prompts, queue, batch_size):
        for index, completion in zip(rows, completions, strict=True):
            keep(index, completion)
        if on_progress is not None:
            on_progress(len(written), len(prompts))
    return [written[index] for index in range(len(prompts))]


def generate_greedy(
    model: Model,
    loaded: LoadedModel,
    prompts: Sequence[str],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Progress | None = None,
) -> list[str]:
    """Return the most likely completion of each text, token by token; see `generate`.

    Special tokens and chat template are the tokenizer's own. A prompt that is too long
    loses its beginning, as in training (`fedcot.models.sequences.fitted`).
    """
    room = max(1, sequence_limit(loaded) - max_new_tokens)
    completions = generate(
        model,
        loaded,
        [cut_prompt(loaded, prompt_ids(loaded, prompt), room) for prompt in prompts],
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
    )
    return [completion.text for completion in completions]


def longest_prompt(model: Model, max_new_tokens: int) -> int | None:
    """Return how many tokens a prompt may have; None where nothing limits it.

    A decoder holds prompt and completion in one context, an encoder-decoder in two.
    """
    context = position_limit(model)
    if context is None or model.config.is_encoder_decoder:
        return context
    return max(0, context - max_new_tokens)


def _fitting(
    model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[int]:
    """Return the indices of the prompts that fit into the context, by length."""
    room = longest_prompt(model, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    fitting = [index for index in order if room is None or len(prompts[index]) <= room]
    if len(fitting) < len(order):
        _logger.warning(
            "%d of %d prompts are longer than the model's context allows (%s tokens "
            "beside %d new ones): their completions stay empty",
            len(order) - len(fitting),
            len(order),
            room,
            max_new_tokens,
        )
    return fitting


def _first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return what stands for an empty prompt: a model has to start from something."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return int(tokenizer.pad_token_id)


@dataclass(frozen=True, slots=True)
class _Writing:
    """What stays the same from batch to batch."""

    model: Model
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    stop: tuple[str, ...]
    sampling: Sampling
    seeds: tuple[int, ...]  # of each prompt

    def batches(
        self, prompts: list[list[int]], queue: list[int], batch_size: int
    ) -> Iterator[tuple[list[int], list[Generated]]]:
        """Yield (indices, completions) until the queue is empty."""
        prefix = SharedPrefix.of(self.model, [prompts[index] for index in queue])
        while queue:
            rows = queue[:batch_size]
            completions = self._attempt(
                [prompts[row] for row in rows],
                prefix,
                [self.seeds[row] for row in rows],
            )
            if completions is None:
                batch_size = len(rows) // 2
                _logger.warning(
                    "out of memory with %d prompts in a batch: going on with %d",
                    len(rows),
                    batch_size,
                )
                continue
            queue = queue[batch_size:]
            yield rows, completions

    def _attempt(
        self,
        prompts: list[list[int]],
        prefix: SharedPrefix | None,
        seeds: list[int],
    ) -> list[Generated] | None:
        """Return the completions of a batch; None if there is too little memory.

        A single prompt cannot be made smaller: its error is raised.
        """
        try:
            return self._complete(prompts, prefix, seeds)
        except (RuntimeError, MemoryError) as error:
            if len(prompts) == 1 or not is_out_of_memory(error):
                raise
        # Behind the `except`: until its end, the traceback holds on to the tensors.
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _complete(
        self,
        prompts: list[list[int]],
        prefix: SharedPrefix | None,
        seeds: list[int],
    ) -> list[Generated]:
        input_ids, attention_mask = self._padded(prompts, prefix)
        ends = self._end_ids()
        # An encoder-decoder writes behind one start token, not behind the prompt.
        apart = self.model.config.is_encoder_decoder
        start = 1 if apart else input_ids.shape[1]
        stopping = StopTexts(
            self.tokenizer, self.stop, start=start, rows=len(prompts), end_ids=ends
        )
        given: dict[str, Any] = {}
        if self.stop:
            given["stopping_criteria"] = StoppingCriteriaList([stopping])
        if prefix:
            given["past_key_values"] = prefix.for_batch(len(prompts))
        write: Any = self.model.generate
        with torch.inference_mode():
            output: Tensor = write(
                input_ids=input_ids.to(self.model.device),
                attention_mask=attention_mask.to(self.model.device),
                generation_config=self._config(ends),
                logits_processor=self.sampling.processors(prompts, seeds),
                **given,
            )
        return [
            self._read(ids, len(prompt), stopped, ends)
            for ids, prompt, stopped in zip(
                output[:, start:].tolist(), prompts, stopping.lengths, strict=True
            )
        ]

    def _read(
        self, ids: list[int], prompt_tokens: int, stopped: int | None, ends: list[int]
    ) -> Generated:
        """Return what a row of the output says; behind its end there is padding."""
        lengths = [] if stopped is None else [stopped]
        lengths += [at for at, token in enumerate(ids, start=1) if token in ends]
        written = ids[: min(lengths, default=len(ids))]
        # Not every model's end token is a special one of its tokenizer.
        words = written[:-1] if written and written[-1] in ends else written
        text = str(self.tokenizer.decode(words, skip_special_tokens=True))
        return Generated(
            cut(text, self.stop), prompt_tokens, len(written), is_cut=not lengths
        )

    def _padded(
        self, prompts: list[list[int]], prefix: SharedPrefix | None
    ) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask, shape (rows, length).

        A decoder goes on from the last position, so padding stands on the left: behind
        the shared prefix, whose keys lie in front of those of every row. An encoder
        that counts positions counts them from the left, so it is padded on the right.
        """
        length = max(map(len, prompts))
        input_ids = torch.full((len(prompts), length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros((len(prompts), length), dtype=torch.long)
        shared = prefix.length if prefix else 0
        for row, ids in enumerate(prompts):
            split = len(ids) if self.model.config.is_encoder_decoder else shared
            behind = length - (len(ids) - split)
            input_ids[row, :split] = torch.tensor(ids[:split])
            input_ids[row, behind:] = torch.tensor(ids[split:])
            attention_mask[row, :split] = 1
            attention_mask[row, behind:] = 1
        return input_ids, attention_mask

    def _end_ids(self) -> list[int]:
        """Return the tokens that end a completion: the tokenizer's and the model's."""
        own = self.model.generation_config.eos_token_id
        found = own if isinstance(own, list) else [own]
        ids = {self.tokenizer.eos_token_id, *found} - {None}
        return sorted(int(token) for token in ids)

    def _config(self, ends: list[int]) -> GenerationConfig:
        """Return settings that leave nothing to a model's own defaults for chats."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            min_length=0,
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=ends or None,
        )

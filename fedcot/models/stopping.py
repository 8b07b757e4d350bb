"""Where a completion ends: at an end token or before a stop text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

# Tokens of a tail that stand for no text, such as special ones, are few.
_SLACK_TOKENS = 8


class StopTexts(StoppingCriteria):
    """Ends a row as soon as its completion holds one of the stop texts.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    stop : sequence of str
    start : int
        Where completions start.
    rows : int
        Rows in the batch.
    end_ids : collection of int
        Tokens that end a row anyway.

    Attributes
    ----------
    lengths : list of int or None
        Tokens that a row had when its stop text was complete.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: Sequence[str],
        *,
        start: int,
        rows: int,
        end_ids: Collection[int],
    ) -> None:
        self.lengths: list[int | None] = [None] * rows
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._start = start
        self._open = set(range(rows))
        self._end_ids = frozenset(end_ids)
        # A token stands for at least a byte, so that a stop text just completed lies
        # in as many tokens as it has bytes.
        longest = max((len(word.encode()) for word in stop), default=0)
        self._tail = longest + _SLACK_TOKENS

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """Return which rows are done; see `transformers.StoppingCriteria`."""
        rows = sorted(self._open)
        first = max(self._start, input_ids.shape[1] - self._tail)
        tails = input_ids[rows, first:].tolist() if rows else []
        for row, tail in zip(rows, tails, strict=True):
            if tail[-1] in self._end_ids:
                self._open.discard(row)
            elif self._holds_stop(tail) and self._holds_stop(
                # Alone, a tail may read otherwise than at the end of its text.
                input_ids[row, self._start :].tolist()
            ):
                self.lengths[row] = input_ids.shape[1] - self._start
                self._open.discard(row)
        done = [length is not None for length in self.lengths]
        return torch.tensor(done, device=input_ids.device)

    def _holds_stop(self, ids: list[int]) -> bool:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return any(word in text for word in self._stop)

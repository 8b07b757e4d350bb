"""A completion ends before the first stop text, however it is cut into tokens."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedcot.models.stopping import StopTexts
from fedcot.plain_text import cut

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def _tokenizer(*merged: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with some longer tokens and an end token."""
    vocabulary = {letter: number for number, letter in enumerate(BYTES)}
    for word in merged:
        vocabulary[word] = len(vocabulary)
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=BYTES[0]))
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    return tokenizer


# `Ċ` is the byte of a newline, `Ġ` that of a space.
TOKENIZER = _tokenizer("Q:", "ĊĊQ", "ĠthatĠis")
END = TOKENIZER.eos_token_id


def _ids(*tokens: str) -> list[int]:
    return [TOKENIZER.convert_tokens_to_ids(token) for token in tokens]


def _lengths(
    rows: list[list[int]], stop: list[str], start: int = 2
) -> list[int | None]:
    """Feed the rows token by token and return where each one stopped."""
    criterion = StopTexts(TOKENIZER, stop, start=start, rows=len(rows), end_ids=[END])
    prompt = _ids("Q:", "Q:")[:start]
    longest = max(map(len, rows))
    padded = [prompt + row + [END] * (longest - len(row)) for row in rows]
    for length in range(start + 1, start + longest + 1):
        ids = torch.tensor(padded)[:, :length]
        done = criterion(ids, None)
        assert done.tolist() == [one is not None for one in criterion.lengths]
    return criterion.lengths


def test_stop_texts_end_a_row_at_the_token_that_completes_them() -> None:
    rows = [
        _ids("a", "b", "Ċ", "Ċ", "c", "d"),  # Two tokens.
        _ids("a", "ĊĊQ", "c", "d", "e", "f"),  # Inside of one.
        _ids("a", "Ċ", "c", "Ċ", "d", "e"),  # Not behind each other.
        _ids("Ċ", "Ċ", "a", "b", "c", "d"),  # At once.
    ]
    assert _lengths(rows, ["\n\n"]) == [4, 2, None, 2]


def test_the_prompt_is_not_searched() -> None:
    assert _lengths([_ids("a", "b")], ["Q:"]) == [None]
    assert _lengths([_ids("a", "Q", ":")], ["Q:"]) == [3]


def test_a_row_that_has_ended_is_not_searched() -> None:
    rows = [[*_ids("a"), END, *_ids("Q:", "b")], _ids("a", "b", "Q:", "c")]
    assert _lengths(rows, ["Q:"]) == [None, 3]


def test_a_late_stop_is_found_though_only_the_tail_is_read() -> None:
    row = _ids(*"x" * 60, "s", "t", "o", "p", "y")
    assert _lengths([row], ["stop"]) == [64]
    assert _lengths([row], ["stop!"]) == [None]


def test_a_stop_of_several_bytes_per_letter_is_found() -> None:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ((tokens, _),) = level.pre_tokenize_str("答")
    assert len(tokens) == 3
    row = _ids(*"abcdefghijkl", *tokens, "z")
    assert TOKENIZER.decode(row) == "abcdefghijkl答z"
    assert _lengths([row], ["答"]) == [15]


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        ([], "a b Q: c\n\nd"),
        (["\n\n"], "a b Q: c"),
        (["\n\n", "Q:"], "a b "),
        (["Q:", "\n\n"], "a b "),
        (["a"], ""),
        (["nowhere"], "a b Q: c\n\nd"),
    ],
)
def test_a_text_is_cut_before_the_first_stop(stop: list[str], kept: str) -> None:
    assert cut("a b Q: c\n\nd", stop) == kept

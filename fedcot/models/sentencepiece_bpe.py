"""A SentencePiece model of merges as a fast tokenizer, with the same ids.

Covers what Llama-type models are made with: byte-pair merges in the order of their
scores, a byte for whatever no piece covers, and no normalisation beyond blanks. Every
other model is refused, by comparing both on texts before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fedcot.errors import ConfigError

BLANK: Final = "▁"
UNKNOWN, START, END = "<unk>", "<s>", "</s>"
_BYTES: Final = tuple(f"<0x{value:02X}>" for value in range(256))
# Each differs between models that normalise, split or merge in different ways.
_PROBES: Final = (
    "",
    "  two  blanks   and\tone tab \n\n new line ",
    f"{BLANK}a{BLANK}{BLANK} b {BLANK}",
    'aaaaaaaaa bbbb 12345 3.14 x=(y+z)*2; I\'m "here"...',
    "\u00dcn\u00efc\u00f6d\u00e9 \ufb01 \u2460 \uff21 \u212b e\u0301 \ufdfa",
    "\u05e9\u05dc\u05d5\u05dd \u202e\u65e5\u672c \U0001f469\u200d\U0001f4bb",
    "\x00\x01\x7f\u00a0\u3000\ufeff\ufffd",
)


def fast_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Return a SentencePiece model as a tokenizer of `transformers`.

    It puts ``<s>`` in front of a text, ends with ``</s>``, and pads with ``<unk>``,
    which no text becomes since every byte has a token. A text that spells one of them
    out is ordinary text.

    Parameters
    ----------
    path : Path
        A ``.model`` file.

    Raises
    ------
    ConfigError
        It is no such model, or one that this tokenizer would split differently.
    """
    reference = _read(path)
    pieces = [reference.id_to_piece(place) for place in range(len(reference))]
    if missing := {UNKNOWN, START, END, *_BYTES} - set(pieces):
        raise _refused(path, f"no piece {min(missing)!r}")
    scores = {
        piece: reference.get_score(place)
        for place, piece in enumerate(pieces)
        if not (
            reference.is_control(place)
            or reference.is_unknown(place)
            or reference.is_byte(place)
        )
    }
    ordered = len(set(scores.values())) == len(scores) > 0
    # Merges are scored 0, -1, -2 ...; other kinds of model hold log-probabilities.
    if not ordered or any(score != int(score) for score in scores.values()):
        raise _refused(path, "scores that are no order of merges")
    tokenizer = _tokenizer(
        pieces, scores, strips=reference.encode("a  b") == reference.encode("a b")
    )
    _check_same(path, reference, tokenizer, sorted(scores))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        pad_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def _read(path: Path) -> Any:
    try:
        return SentencePieceProcessor(model_proto=path.read_bytes())
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise _refused(path, type(error).__name__) from error


def _tokenizer(
    pieces: Sequence[str], scores: dict[str, float], *, strips: bool
) -> Tokenizer:
    """Return the tokenizer; `strips`: repeated and outer blanks do not count."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: place for place, piece in enumerate(pieces)},
            merges=_merges(scores),
            unk_token=UNKNOWN,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    cleaning = [
        normalizers.Replace(Regex(r"\A +"), ""),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Replace(Regex(f"[ {BLANK}]+\\z"), ""),
    ]
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(cleaning if strips else []),
            normalizers.Prepend(BLANK),
            normalizers.Replace(" ", BLANK),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A",
        pair=f"{START} $A {START} $B",
        special_tokens=[(START, pieces.index(START))],
    )
    return tokenizer


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Return every pair of pieces that makes a piece, the best result first."""
    found: list[tuple[str, str]] = []
    for piece in sorted(scores, key=lambda known: -scores[known]):
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        # Of two ways to the same piece, that of the better parts comes about first.
        found += sorted(
            (pair for pair in splits if pair[0] in scores and pair[1] in scores),
            key=lambda pair: (-scores[pair[0]], -scores[pair[1]]),
        )
    return found


def _check_same(
    path: Path, reference: Any, tokenizer: Tokenizer, pieces: Sequence[str]
) -> None:
    # All pieces behind each other, in both orders, also try most pairs of them.
    texts = (*_PROBES, " ".join(pieces), "".join(pieces), "".join(reversed(pieces)))
    for text in texts:
        found = tokenizer.encode(text, add_special_tokens=False).ids
        if found != reference.encode(text):
            raise _refused(path, "a model that normalises or splits in another way")


def _refused(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        "`--tokenizer` must be a SentencePiece model of byte-pair merges with byte "
        f"fallback, no normalisation and <s> and </s>, found {path.name!r}: {reason}; "
        "pass the .model file that the weights were trained with."
    )

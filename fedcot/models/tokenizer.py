"""The word and digit tokenizers of the built-in pair and the in-context pair.

Words are whole tokens. A number is spelled digit by digit, so that arithmetic can be
learnt rather than looked up. Every token that starts a word carries the marker of
SentencePiece, which makes encoding and decoding exact inverses on normalised text.
"""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedcot.data.prompts import HINT, MARKERS
from fedcot.world.hidden_rules import rule_words
from fedcot.world.problem import SYMBOLS
from fedcot.world.vocabulary import cause_words, question_words

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_START = "\N{LOWER ONE EIGHTH BLOCK}"


def _tokens() -> list[str]:
    words = [word for word in question_words() if not word.isdigit()]
    words += [word for word in cause_words() if word not in words]
    digits = [str(digit) for digit in range(10)]
    starts = [_START + text for text in (*MARKERS, *words, *SYMBOLS, *digits)]
    return [PAD, END, UNKNOWN, *starts, *digits]


def _in_context_tokens() -> list[str]:
    """Return the tokens of the pair, then those that only hidden rules need."""
    tokens = _tokens()
    tokens += [_START + word for word in (HINT, *rule_words())]
    return list(dict.fromkeys(tokens))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the built-in pair; the same on every call."""
    return _tokenizer_of(_tokens())


def build_in_context_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the built-in in-context pair; the same on every call.

    What `build_tokenizer` knows has the same ids.
    """
    return _tokenizer_of(_in_context_tokens())


def _tokenizer_of(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_START, prepend_scheme="always"),
            pre_tokenizers.Split(
                Regex(rf"{_START}[^{_START}\d]+|{_START}\d|\d"), behavior="isolated"
            ),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_START, prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=512,
    )

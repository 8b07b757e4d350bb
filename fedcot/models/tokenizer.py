"""The shared word and digit tokenizer of the built-in teacher and student.

Words are whole tokens. A number is spelled digit by digit, so that arithmetic can be
learnt rather than looked up. Every token that starts a word carries the marker of
SentencePiece, which makes encoding and decoding exact inverses on normalised text.
"""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedcot.data.prompts import MARKERS
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


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the built-in pair; the same on every call."""
    vocabulary = {token: index for index, token in enumerate(_tokens())}
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

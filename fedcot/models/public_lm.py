"""Tokenizer of the public language model of question text.

Its ids are the indices of the privacy vocabulary: 0 is the empty slot, 1 the unknown
word, then `question_words` in order, numbers whole. So its input embedding has a row
for each vocabulary entry, and its next-token distribution is one over the vocabulary.
The empty slot also opens a text and ends it.
"""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedcot.world.vocabulary import question_words

EMPTY, UNKNOWN = "<pad>", "<unk>"


def build_public_lm_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word tokenizer of the public language model."""
    tokens = [EMPTY, UNKNOWN, *question_words()]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=EMPTY,
        bos_token=EMPTY,
        eos_token=EMPTY,
        unk_token=UNKNOWN,
        model_max_length=512,
    )

"""The public messages of the SMS Spam Collection, and few-shot sequences of them.

Public is every message of the file that no teacher client holds and that is not tested:
messages are compared by the words of their text, whatever the case and punctuation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import SPAM_LABELS, format_named
from fedcot.social.task_data import SPAM_FILE, content_key
from fedcot.social.task_rows import data_folder, one_line, spam_rows, writable

FORM: Final = format_named("sms-spam")
PAD, END = "<pad>", "<end>"
TRAINED_TOKENS: Final = 512  # of a sequence; most prompts of 8 examples have fewer
LONGEST: Final = 400  # signs of a message that is trained on
# A class is one word of forty, and what the training is about.
LABEL_WEIGHT: Final = 8.0
SPLICED: Final = 0.5
REPEATED: Final = 0.3


def public_messages(
    data_dir: str, kept_back: Sequence[Demonstration]
) -> list[Demonstration]:
    """Return every message of the file but those that are kept back.

    `sms_spam_data` takes as many messages of either class; here the more frequent class
    keeps all of its messages.

    Parameters
    ----------
    data_dir : str
        As `fedcot.social.task_data.load_task_data` takes it.
    kept_back : sequence of Demonstration
        Private ones and those of the test.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    names = {"spam": SPAM_LABELS[0], "ham": SPAM_LABELS[1]}
    rows = spam_rows(data_folder(data_dir) / SPAM_FILE)
    found = [
        Demonstration(one_line(",".join(filter(None, parts))), names[label])
        for label, *parts in rows
        if label in names
    ]
    taken = {content_key(one) for one in kept_back}
    public = []
    for one in writable(found, FORM.name, Counter()):
        if content_key(one) not in taken:
            taken.add(content_key(one))
            public.append(one)
    return public


def held_out(
    public: Sequence[Demonstration], *, seed: int, each: int
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return what a model is trained on, and `each` messages of each class."""
    kept: list[Demonstration] = []
    rest: list[Demonstration] = []
    for label in SPAM_LABELS:
        rows = [one for one in public if one.answer == label]
        order = numpy_generator(seed, "sms-held-out", label).permutation(len(rows))
        rest += [rows[int(place)] for place in order[:each]]
        kept += [rows[int(place)] for place in order[each:]]
    return kept, rest


def build_tokenizer(
    public: Sequence[Demonstration], vocabulary: int
) -> PreTrainedTokenizerFast:
    """Return BPE over bytes, trained on public examples as they are written."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [FORM.write(one) + FORM.separator for one in public]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END
    )


@dataclass(frozen=True)
class FewShot:
    """Examples one behind the other, as a prompt has them.

    Attributes
    ----------
    ids : list of int
        Tokens.
    weights : list of float
        Of each token in the loss.
    places : list of int
        Where the names of the classes begin.
    """

    ids: list[int]
    weights: list[float]
    places: list[int]


class Sequences:
    """Draws sequences of `TRAINED_TOKENS` tokens at most; classes are equally likely.

    Parameters
    ----------
    messages : sequence of Demonstration
        Of both classes.
    tokenizer : PreTrainedTokenizerFast
        Of `build_tokenizer`.
    """

    def __init__(
        self, messages: Sequence[Demonstration], tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self._words = {
            label: [one.question.split() for one in messages if one.answer == label]
            for label in SPAM_LABELS
        }
        self._tokenizer = tokenizer

    def draw(
        self, rng: np.random.Generator, *, is_swapped: bool, is_varied: bool = True
    ) -> FewShot:
        """Return one sequence.

        Parameters
        ----------
        rng : numpy.random.Generator
        is_swapped : bool
            Whether the classes have each other's name.
        is_varied : bool
            Whether messages are put together of two halves, with other digits, and
            come again: a model that finds the name of the same message learns to find
            that of a like one. The text of what comes again counts nothing, so that
            the model does not learn to repeat its prompt.
        """
        found = FewShot([], [], [])
        said: list[tuple[str, int]] = []
        while True:
            repeats = is_varied and bool(said) and rng.random() < REPEATED
            if repeats:
                text, kind = said[int(rng.integers(len(said)))]
            else:
                kind = int(rng.integers(2))
                text = self._message(SPAM_LABELS[kind], rng, is_varied=is_varied)
            said.append((text, kind))
            name = SPAM_LABELS[1 - kind if is_swapped else kind]
            # Cut where the tokens of the parts are those of the whole.
            asked = self._ids(("\n" if found.ids else "") + FORM.ask(text))
            answer = self._ids(f" {name}\n")
            if len(found.ids) + len(asked) + len(answer) > TRAINED_TOKENS:
                return found
            found.places.append(len(found.ids) + len(asked))
            found.ids.extend(asked + answer)
            found.weights.extend([0.0 if repeats else 1.0] * len(asked))
            found.weights.extend([LABEL_WEIGHT, *[1.0] * (len(answer) - 1)])

    def _message(self, label: str, rng: np.random.Generator, *, is_varied: bool) -> str:
        messages = self._words[label]
        while True:
            words = messages[int(rng.integers(len(messages)))]
            if is_varied and rng.random() < SPLICED:
                other = messages[int(rng.integers(len(messages)))]
                words = words[: (len(words) + 1) // 2] + other[len(other) // 2 :]
            text = " ".join(words)
            if is_varied:
                text = re.sub("[0-9]", lambda _: str(rng.integers(10)), text)
            # Two halves may spell a mark of the format, or fill a sequence alone.
            if len(text) <= LONGEST and FORM.read(f"Text: {text}\nClass: {label}"):
                return text

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.backend_tokenizer.encode(text).ids)

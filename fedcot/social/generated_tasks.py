"""Tasks that are generated from a seed: random insertion and hidden rules.

Paper: https://arxiv.org/abs/2312.11441, section 4 and table 5 (random insertion). The
rules are those of the built-in world (`fedcot.world.hidden_rules`).
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.task_rows import REPEATED, TaskData, assembled, content_key
from fedcot.world.hidden_rules import KINDS, Kind, draw_rule, rule_words
from fedcot.world.vocabulary import question_words

NOT_A_WORD: Final = "no word of letters, or too short"
# Not the sign that stands between question and answer.
INSERTED: Final = string.punctuation.replace("=", "") + " "
SHORTEST_WORD: Final = 4
# Draws in a row that gave a known question before a rule counts as used up.
_REPEATS: Final = 2000


def random_insertion_data(
    seed: int,
    data_dir: str = "",
    num_train: int = 0,
    num_test: int = 0,
    *,
    words: Sequence[str] = (),
) -> TaskData:
    """Return words with a random punctuation mark or blank behind each character.

    Parameters
    ----------
    seed : int
        Draws the order of the words and what is inserted.
    data_dir : str
        Not used: everything is generated.
    num_train, num_test : int
        0: half of the words each.
    words : sequence of str
        Public (for example `fedcot.privacy.word_lists.WordList.words`); those of the
        built-in world if not given. Letters only, `SHORTEST_WORD` of them at least.

    Raises
    ------
    ConfigError
        There are fewer words than asked for.
    """
    public = {word.lower() for word in words or (*rule_words(), *question_words())}
    usable = sorted(word for word in public if _is_usable(word))
    dropped = Counter({NOT_A_WORD: len(public) - len(usable)})
    wanted_test = num_test or (
        len(usable) - num_train if num_train else len(usable) // 2
    )
    wanted_train = num_train or len(usable) - wanted_test
    if min(wanted_train, wanted_test) < 1 or wanted_train + wanted_test > len(usable):
        raise ConfigError(
            "`num-train` and `num-test` must be at least 1 and at most the number of "
            f"words ({len(usable)}), found {wanted_train} and {wanted_test}; lower "
            "them, or pass a longer list of public words."
        )
    rng = numpy_generator(seed, "random-insertion")
    order = [usable[int(place)] for place in rng.permutation(len(usable))]
    found = [Demonstration(_with_insertions(word, rng), word) for word in order]
    return assembled(
        "random-insertion",
        found[wanted_test:],
        found[:wanted_test],
        seed=seed,
        num_train=wanted_train,
        num_test=wanted_test,
        dropped=dropped,
    )


def hidden_rule_data(
    kind: Kind, seed: int, *, num_train: int = 400, num_test: int = 200
) -> TaskData:
    """Return questions of a rule of the built-in world that no model was trained on.

    Parameters
    ----------
    kind : str
        ``conversion``, ``labels`` or ``operator``.
    seed : int
        Draws the rule and its questions.
    num_train, num_test : int
        At least 1.

    Raises
    ------
    ConfigError
        The kind is unknown, or a rule has fewer questions.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"`kind` must be one of {', '.join(KINDS)}, found {kind!r}; choose one."
        )
    if min(num_train, num_test) < 1:
        raise ConfigError(
            f"`num-train` and `num-test` must be at least 1, found {num_train} and "
            f"{num_test}; raise them."
        )
    rng = numpy_generator(seed, "hidden-rule", kind)
    rule = draw_rule("held-out", kind, rng)
    found: dict[str, Demonstration] = {}
    repeats, in_a_row = 0, 0
    while len(found) < num_train + num_test:
        question = rule.question(rng)
        rationale = rule.rationale(question)
        if rationale is None:
            raise ValueError("a rule must answer its own questions.")
        one = Demonstration(question, rationale.answer, rationale.text)
        if content_key(one) not in found:
            found[content_key(one)] = one
            in_a_row = 0
            continue
        repeats, in_a_row = repeats + 1, in_a_row + 1
        if in_a_row > _REPEATS:
            raise ConfigError(
                f"`num-train` and `num-test` must be at most what a rule of "
                f"`{kind}` has, found {num_train} and {num_test}, and only known "
                f"questions after {len(found)}; lower them."
            )
    rows = list(found.values())
    return TaskData(
        train=tuple(rows[num_test:]),
        test=tuple(rows[:num_test]),
        format_name="world",
        dropped=MappingProxyType({REPEATED: repeats} if repeats else {}),
        labels=rule.labels,
        hint=rule.hint,
    )


def _is_usable(word: str) -> bool:
    return word.isascii() and word.isalpha() and len(word) >= SHORTEST_WORD


def _with_insertions(word: str, rng: np.random.Generator) -> str:
    marks = rng.choice(list(INSERTED), size=len(word))
    return "".join(f"{sign}{mark}" for sign, mark in zip(word, marks, strict=True))

"""Tasks of the built-in world whose rule only examples tell.

A task is one rule: a conversion rate, a labelling of topics or an invented operator. No
question says what it is, so a model that answers better with more examples in its
prompt reads them. What private teachers hold are rules that no model was trained on:
the hash of a rule decides its split, as that of a question does elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from fedcot.data.schema import Rationale
from fedcot.world.families import NAMES

Kind = Literal["conversion", "labels", "operator"]
RuleSplit = Literal["pretraining", "held-out"]
KINDS: Final[tuple[Kind, ...]] = ("conversion", "labels", "operator")
# Of the rules, in hundredths; the rest is what models are trained on.
HELD_OUT_SHARE: Final = 25

UNITS: Final = ("gold", "silver", "copper", "amber", "salt", "wool")
TRADES: Final = ("trades", "brings", "offers", "counts")
TIMES: Final = ("today", "tomorrow", "early", "late", "monday", "friday")
LARGEST_AMOUNT: Final = 12
LARGEST_RATE: Final = 9

TOPICS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        topic: tuple(words.split())
        for topic, words in (
            ("animals", "otter heron badger lynx toad moth crane mule"),
            ("tools", "hammer saw drill chisel rake spade wrench file"),
            ("foods", "rice bean plum onion cheese honey melon oat"),
            ("clothes", "scarf glove boot hat coat sock vest belt"),
            ("weather", "rain fog hail snow storm frost mist thunder"),
            ("music", "drum flute harp horn fiddle organ lute bell"),
            ("rooms", "kitchen attic cellar hall porch studio pantry loft"),
            ("plants", "fern moss ivy reed birch cedar thistle clover"),
        )
    }
)
LABELS: Final = ("zib", "dax", "fep", "wug", "mip", "tov", "kel", "rud")
FILLERS: Final = ("the", "old", "small", "near", "with", "my", "big", "new")

SIGNS: Final = (
    *("blick", "zorp", "quil", "nax", "jom", "plim"),
    *("trel", "vosk", "dorn", "wibb", "gaff", "sool"),
)
LARGEST_OPERAND: Final = 9
OPERATIONS: Final[Mapping[str, Callable[[int, int], int]]] = MappingProxyType(
    {
        "the sum": lambda left, right: left + right,
        "the difference": lambda left, right: abs(left - right),
        "the product": lambda left, right: left * right,
        "the larger": max,
        "the smaller": min,
    }
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What all questions of a task have in common, and none of them says.

    Attributes
    ----------
    kind : str
    parts : tuple of str
        Of a conversion: from, to and the rate. Of labels: a topic and its label, twice
        (more often in `wide_rule`).
        Of an operator: its sign and its operation.
    """

    kind: Kind
    parts: tuple[str, ...]

    @property
    def split(self) -> RuleSplit:
        """Whether models may be trained on it."""
        text = " ".join((self.kind, *self.parts))
        bucket = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 100
        return "held-out" if bucket < HELD_OUT_SHARE else "pretraining"

    @property
    def hint(self) -> str:
        """The rule in words: what a teacher may say instead of showing examples."""
        if self.kind == "conversion":
            source, target, rate = self.parts
            return f"{source} to {target} times {rate}"
        if self.kind == "labels":
            pairs = zip(self.parts[::2], self.parts[1::2], strict=True)
            return " ".join(f"{topic} gives {label}" for topic, label in pairs)
        sign, operation = self.parts
        return f"{sign} gives {operation}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Every possible answer; empty where the answers are numbers."""
        return self.parts[1::2] if self.kind == "labels" else ()

    def question(self, rng: np.random.Generator) -> str:
        """Draw a question."""
        if self.kind == "labels":
            return self._labelled(rng)
        name = _choice(rng, NAMES)
        if self.kind == "conversion":
            source, target, _ = self.parts
            amount = int(rng.integers(2, LARGEST_AMOUNT + 1))
            trade, time = _choice(rng, TRADES), _choice(rng, TIMES)
            return f"{name} {trade} {amount} {source} for {target} {time}"
        left, right = (int(n) for n in rng.integers(1, LARGEST_OPERAND + 1, size=2))
        return f"{name} says {left} {self.parts[0]} {right} {_choice(rng, TIMES)}"

    def rationale(self, question: str) -> Rationale | None:
        """Return the right answer with its steps; None for no question of the rule.

        The step of a conversion is its product, ``12 * 3 = 36``, that of a labelling
        its topic; an operator has none. A question about labels needs words of exactly
        one of the topics.
        """
        words = question.split()
        if self.kind == "labels":
            found = [
                (topic, label)
                for topic, label in zip(self.parts[::2], self.parts[1::2], strict=True)
                if not set(words).isdisjoint(TOPICS[topic])
            ]
            return Rationale(*found[0]) if len(found) == 1 else None
        numbers = [int(word) for word in words if word.isdecimal()]
        if self.kind == "conversion":
            source, target, rate = self.parts
            if len(numbers) != 1 or not _in_order(words, (source, "for", target)):
                return None
            result = str(numbers[0] * int(rate))
            return Rationale(f"{numbers[0]} * {rate} = {result}", result)
        sign, operation = self.parts
        if len(numbers) != 2 or not _in_order(
            words, (str(numbers[0]), sign, str(numbers[1]))
        ):
            return None
        return Rationale("", str(OPERATIONS[operation](*numbers)))

    def _labelled(self, rng: np.random.Generator) -> str:
        topic = self.parts[2 * int(rng.integers(len(self.parts) // 2))]
        fillers = rng.permutation(FILLERS)[:2]
        # What decides stands last, in front of the answer: a small model that reads
        # examples looks there first.
        told = rng.permutation(TOPICS[topic])[:2]
        return " ".join(map(str, (*fillers, *told)))


def draw_rule(split: RuleSplit, kind: Kind, rng: np.random.Generator) -> Rule:
    """Return a rule of a kind that belongs to a split."""
    while True:
        rule = Rule(kind, _PARTS[kind](rng))
        if rule.split == split:
            return rule


def wide_rule(num_topics: int, rng: np.random.Generator) -> Rule:
    """Return a rule that labels more topics than those of the tasks: for training.

    With two labels there is little to gain from looking the right one up, and a model
    takes long to find out; with eight there is three times as much. A wide rule may
    contain a pair that a held-out rule consists of. That no model knows a rule by heart
    shows in its accuracy without examples.

    Parameters
    ----------
    num_topics : int
        From 3 to 8.
    rng : numpy.random.Generator
    """
    if not 3 <= num_topics <= len(TOPICS):
        raise ValueError(
            f"`num_topics` must be from 3 to {len(TOPICS)}, found {num_topics}."
        )
    return Rule("labels", _labels(rng, num_topics))


def rule_words() -> tuple[str, ...]:
    """Return every word of these tasks that is no number, in a fixed order."""
    words: dict[str, None] = {}
    lists: list[Sequence[str]] = [
        *(text.split() for text in OPERATIONS),
        ("for", "to", "times", "gives", "says"),
        *TOPICS.values(),
        tuple(TOPICS),
        *(UNITS, TRADES, TIMES, LABELS, FILLERS, SIGNS, NAMES),
    ]
    for entries in lists:
        words.update(dict.fromkeys(entries))
    return tuple(word for word in words if not word.isdecimal())


def _conversion(rng: np.random.Generator) -> tuple[str, ...]:
    source, target = rng.permutation(UNITS)[:2]
    return str(source), str(target), str(rng.integers(2, LARGEST_RATE + 1))


def _labels(rng: np.random.Generator, num_topics: int = 2) -> tuple[str, ...]:
    # Sorted by topic: the same rule has one name.
    topics = sorted(map(str, rng.permutation(list(TOPICS))[:num_topics]))
    labels = map(str, rng.permutation(LABELS)[:num_topics])
    return tuple(part for pair in zip(topics, labels, strict=True) for part in pair)


def _operator(rng: np.random.Generator) -> tuple[str, ...]:
    return _choice(rng, SIGNS), _choice(rng, tuple(OPERATIONS))


_PARTS: Final[Mapping[Kind, Callable[[np.random.Generator], tuple[str, ...]]]] = (
    MappingProxyType(
        {"conversion": _conversion, "labels": _labels, "operator": _operator}
    )
)


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _in_order(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether some words stand in a list, one after the other with no other between.

    A number may stand in front: ``12 gold for silver``.
    """
    size = len(wanted)
    return any(
        tuple(words[at : at + size]) == tuple(wanted)
        for at in range(len(words) - size + 1)
    )

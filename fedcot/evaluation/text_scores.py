"""How close a text is to a reference: chrF, BLEU, and the token F1 of SQuAD.

chrF and BLEU are those of sacreBLEU (https://aclanthology.org/W18-6319), one sentence
at a time, with its defaults, which `SIGNATURES` spells out. A mean over records weighs
every record alike; it is not the corpus score, which pools the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from fedcot.evaluation.answers import plain_words

_CHRF: Final = CHRF()
_BLEU: Final = BLEU(effective_order=True)  # A sentence may have fewer than 4 words.

# Write beside every score: chrF2 over character 6-grams without word n-grams; BLEU-4 on
# `13a` tokens with exponential smoothing.
SIGNATURES: Final = {
    "chrf": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no",
    "bleu": "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp",
}


def sentence_chrf(text: str, reference: str) -> float:
    """Return chrF of one text, 0 to 100; 100 if it is the reference."""
    return float(_CHRF.sentence_score(text, [reference]).score)


def sentence_bleu(text: str, reference: str) -> float:
    """Return BLEU of one text, 0 to 100, over the orders that it has n-grams of."""
    return float(_BLEU.sentence_score(text, [reference]).score)


def mean_chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean of `sentence_chrf` over records, 0 to 100.

    Raises
    ------
    ValueError
        If there are no records, or not as many references.
    """
    return _mean([sentence_chrf(a, b) for a, b in _pairs(texts, references)])


def mean_bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean of `sentence_bleu` over records, 0 to 100.

    Raises
    ------
    ValueError
        If there are no records, or not as many references.
    """
    return _mean([sentence_bleu(a, b) for a, b in _pairs(texts, references)])


def token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the words that two answers share, 0 to 1, as SQuAD does.

    Words are those of `plain_words`; with ``m`` in common, precision is ``m`` over the
    answer's and recall ``m`` over the gold words. Two answers without words are equal.
    """
    found, wanted = Counter(plain_words(answer)), Counter(plain_words(gold))
    if not found or not wanted:
        return float(found == wanted)
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total())


def is_exact_match(answer: str, gold: str) -> bool:
    """Whether two answers have the same words in the same order, as SQuAD compares."""
    return plain_words(answer) == plain_words(gold)


def _pairs(texts: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if len(texts) != len(references) or not texts:
        raise ValueError(
            "there must be one reference for each of at least one text, found "
            f"{len(texts)} texts and {len(references)} references."
        )
    return list(zip(texts, references, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

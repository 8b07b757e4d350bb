"""Text scores against sacreBLEU's own corpus scores and by hand."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from fedcot.evaluation.text_scores import (
    SIGNATURES,
    is_exact_match,
    mean_bleu,
    mean_chrf,
    sentence_bleu,
    sentence_chrf,
    token_f1,
)

TEXT = "She has 48 clips, so half of them are 24."
REFERENCE = "She sold 48 clips. Half of them is 24."


def test_chrf_by_hand() -> None:
    # Three letters, two of them shared in order: unigrams 2 of 3, bigrams 1 of 2,
    # trigrams 0 of 1, longer ones do not exist. With beta = 2 and precision equal to
    # recall, F is their mean over the orders.
    assert sentence_chrf("abx", "aby") == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert sentence_chrf("same text", "same text") == 100.0
    assert sentence_chrf("xyz", "abc") == 0.0
    assert sentence_chrf("", "abc") == 0.0


def test_bleu_by_hand() -> None:
    # Four words, three shared, two bigrams of three, one trigram of two, no 4-gram of
    # one, which exponential smoothing counts as half.
    expected = (3 / 4 * 2 / 3 * 1 / 2 * (1 / 2) / 1) ** (1 / 4)
    assert sentence_bleu("a b c x", "a b c d") == pytest.approx(100 * expected)
    # Two words have no trigrams; the short text pays exp(1 - 4 / 2).
    assert sentence_bleu("a b", "a b c d") == pytest.approx(100 * math.exp(-1))
    assert sentence_bleu("a b c d e", "a b c d e") == pytest.approx(100)


def test_one_sentence_is_a_corpus_of_one() -> None:
    theirs = sacrebleu.corpus_chrf([TEXT], [[REFERENCE]]).score
    assert sentence_chrf(TEXT, REFERENCE) == pytest.approx(theirs)
    theirs = sacrebleu.corpus_bleu([TEXT], [[REFERENCE]]).score
    assert sentence_bleu(TEXT, REFERENCE) == pytest.approx(theirs)


def test_the_command_line_of_sacrebleu_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "reference").write_text(REFERENCE + "\n")
    (tmp_path / "text").write_text(TEXT + "\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sacrebleu", str(tmp_path / "reference")),
            *("-i", str(tmp_path / "text"), "-m", "chrf", "-b", "-w", "6"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) == pytest.approx(sentence_chrf(TEXT, REFERENCE), abs=1e-5)


def test_signatures_are_what_sacrebleu_says_of_itself() -> None:
    chrf = sacrebleu.CHRF()
    bleu = sacrebleu.BLEU(effective_order=True)
    for name, metric in (("chrf", chrf), ("bleu", bleu)):
        metric.corpus_score([TEXT], [[REFERENCE]])
        stated = metric.get_signature().format().rpartition("|version")[0]
        assert SIGNATURES[name] == stated


def test_means_weigh_records_alike() -> None:
    texts, references = ["abx", "a b c d"], ["aby", "a b c d"]
    assert mean_chrf(texts, references) == pytest.approx(
        (sentence_chrf("abx", "aby") + 100) / 2
    )
    assert mean_bleu(texts, references) == pytest.approx(
        (sentence_bleu("abx", "aby") + 100) / 2
    )


@pytest.mark.parametrize("mean", [mean_chrf, mean_bleu])
def test_nothing_has_no_mean(mean) -> None:
    with pytest.raises(ValueError, match="one reference"):
        mean([], [])
    with pytest.raises(ValueError, match="one reference"):
        mean(["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("answer", "gold", "f1", "exact"),
    [
        ("the cat sat", "A cat sat!", 1.0, True),
        ("cat sat", "cat ran", 0.5, False),
        ("cat", "cat cat cat", 0.5, False),  # precision 1, recall 1/3
        ("dog", "cat", 0.0, False),
        ("cat dog", "dog cat", 1.0, False),
        ("", "", 1.0, True),
        ("the", "an", 1.0, True),
        ("", "cat", 0.0, False),
    ],
)
def test_token_f1_by_hand(answer: str, gold: str, f1: float, exact: bool) -> None:
    assert token_f1(answer, gold) == pytest.approx(f1)
    assert is_exact_match(answer, gold) is exact


WORDS = st.lists(st.sampled_from(["cat", "dog", "the", "Ox.", "7"]), max_size=8)


@given(WORDS, WORDS)
def test_f1_is_the_harmonic_mean(answer: list[str], gold: list[str]) -> None:
    found = [w.lower().strip(".") for w in answer if w != "the"]
    wanted = [w.lower().strip(".") for w in gold if w != "the"]
    common = sum(min(found.count(w), wanted.count(w)) for w in set(found))
    value = token_f1(" ".join(answer), " ".join(gold))
    if not common:
        assert value == (found == wanted)
        return
    precision, recall = common / len(found), common / len(wanted)
    assert value == pytest.approx(2 * precision * recall / (precision + recall))

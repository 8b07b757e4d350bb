"""Text scores against sacreBLEU's own corpus score and by hand."""

import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu

from fedcot.evaluation.text_scores import sentence_chrf

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


def test_one_sentence_is_a_corpus_of_one() -> None:
    theirs = sacrebleu.corpus_chrf([TEXT], [[REFERENCE]]).score
    assert sentence_chrf(TEXT, REFERENCE) == pytest.approx(theirs)


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


def test_the_defaults_of_sacrebleu_are_those_that_are_meant() -> None:
    chrf = sacrebleu.CHRF()
    chrf.corpus_score([TEXT], [[REFERENCE]])
    stated = chrf.get_signature().format().rpartition("|version")[0]
    assert stated == "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"

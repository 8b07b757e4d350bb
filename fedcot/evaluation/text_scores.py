"""How close a text is to a reference."""

from __future__ import annotations

from typing import Final

from sacrebleu.metrics.chrf import CHRF

# sacreBLEU's defaults (https://aclanthology.org/W18-6319): chrF2 over character 6-grams
# without word n-grams.
_CHRF: Final = CHRF()


def sentence_chrf(text: str, reference: str) -> float:
    """Return chrF of one text, 0 to 100; 100 if it is the reference."""
    return float(_CHRF.sentence_score(text, [reference]).score)

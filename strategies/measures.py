"""What is measured beside the headline accuracy, pooled over clients."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fedcot.arms import headline_prompt
from fedcot.evaluation.metrics import proportion
from fedcot.rows import ArmScore, ArmTraining

# Of each arm, prompt and split, the newest score of each partition.
Scores = Mapping[tuple[str, str, str], Mapping[int, ArmScore]]
FILTER_COUNTS: Final = (
    "num_pairs",
    "num_unparsable",
    "num_invalid_step",
    "num_label_mismatch",
    "num_kept",
    "num_truncated",
)


def estimate(hits: int, records: int) -> dict[str, float]:
    """Return a share with its standard error and the number of records."""
    if records == 0:
        return {"mean": math.nan, "stderr": math.nan, "n": 0}
    found = proportion(hits, records)
    return {"mean": found.mean, "stderr": found.stderr, "n": records}


def further_measures(scores: Scores, arms: Iterable[str]) -> dict[str, Any]:
    """Return what the summary holds beside exact match.

    Every entry is over the test records of all clients, by arm: `accuracy_flexible` by
    the lenient extractor, `accuracy_ranked` by the most likely choice,
    `answer_log_likelihood` in nats per answer, `rationale_perplexity` of the reference
    rationales (after the `explain` prompt), `rationale_chrf` (0 to 100). `chance` is
    the accuracy of guessing, 0 for open answers. An arm is left out where a measure
    does not apply.
    """
    found: dict[str, Any] = {
        "chance": 0.0,
        "accuracy_flexible": {},
        "accuracy_ranked": {},
        "answer_log_likelihood": {},
        "rationale_perplexity": {},
        "rationale_chrf": {},
    }
    for arm in arms:
        rows = list(scores.get((arm, headline_prompt(arm), "test"), {}).values())
        records = sum(row.num_records for row in rows)
        if not records:
            continue
        chance = sum(row.chance * row.num_records for row in rows) / records
        found["chance"] = chance
        flexible = sum(row.flexible_match for row in rows)
        found["accuracy_flexible"][arm] = estimate(flexible, records)
        if all(row.ranked_match >= 0 for row in rows):
            ranked = sum(row.ranked_match for row in rows)
            found["accuracy_ranked"][arm] = estimate(ranked, records)
        if nats := sum(row.answer_nats for row in rows):
            found["answer_log_likelihood"][arm] = {"mean": nats / records, "n": records}
        if tokens := sum(row.rationale_tokens for row in rows):
            lost = -sum(row.rationale_nats for row in rows) / tokens
            found["rationale_perplexity"][arm] = {
                "perplexity": math.exp(min(lost, 700.0)),
                "tokens": tokens,
            }
        if chrf := sum(row.chrf for row in rows):
            found["rationale_chrf"][arm] = chrf / records
    return found


def filter_counts(
    trainings: Mapping[tuple[str, int], ArmTraining],
) -> dict[str, dict[str, int]]:
    """Return, for each arm, what became of the rationales that its clients hold.

    Parameters
    ----------
    trainings : mapping of (arm, partition) to ArmTraining
        The newest of each; its counts cover all rounds up to it.
    """
    found: dict[str, dict[str, int]] = {}
    for (arm, _), training in sorted(trainings.items()):
        counts = found.setdefault(arm, dict.fromkeys(FILTER_COUNTS, 0))
        for name in FILTER_COUNTS:
            counts[name] += getattr(training, name)
    return found

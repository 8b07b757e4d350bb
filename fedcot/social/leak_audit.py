"""How often a student's prompt gives away a canary that its teacher clients held.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 5 and appendix D. The
conversation is replayed for each canary. Beyond the paper: the share of canaries with
rank 0 comes first, with its exact interval, and once more among those that stood in a
generating prompt at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedcot.errors import ConfigError
from fedcot.evaluation.adapter_audit import report_of
from fedcot.evaluation.copying import nearest, verbatim_rate
from fedcot.evaluation.exposure import rank_of
from fedcot.evaluation.rates import exact_rate
from fedcot.seeding import derive_seed
from fedcot.social.conversation import (
    Conversation,
    ConversationSettings,
    converse,
)
from fedcot.social.settings import INSTRUCTION

if TYPE_CHECKING:
    from fedcot.evaluation.trial_book import TrialBook
    from fedcot.social.client_model import ClientModel
    from fedcot.social.demonstrations import DemonstrationFormat
    from fedcot.social.generation import Check
    from fedcot.social.planted import SocialTrial
    from fedcot.social.split import Silo

ZERO_SHOT: Final = "zero-shot"
Progress = Callable[[int, int], None]
Converse = Callable[..., Conversation]
# How lines of the book are named: all students of a trial stand in one.
_ALL: Final = "conversation"
_QUANTILES: Final = (0.0, 0.05, 0.25, 0.5)


def audit_conversations(
    silos: Mapping[int, Silo],
    form: DemonstrationFormat,
    models: Mapping[int, ClientModel],
    student: ClientModel,
    settings: ConversationSettings,
    *,
    trial_of: Callable[[int], SocialTrial],
    trials: int,
    seed: int,
    book: TrialBook,
    repeats: int = 1,
    check: Check | None = None,
    talk: Converse = converse,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Replay a conversation for each canary, and rank the canary under each prompt.

    Parameters
    ----------
    silos : mapping of int to Silo
        Without canaries.
    student : ClientModel
        Scores secrets behind what it was told.
    trial_of : callable
        Returns the canary of a number; all of one size.
    trials : int
        Canaries (T), >= 1; one conversation each.
    seed : int
    book : TrialBook
        Trials that it has are not replayed.
    repeats : int
        How often each holder has the canary.
    talk : callable
        As `converse`.

    Returns
    -------
    dict
        ``students``: by student, see `fedcot.evaluation.adapter_audit.report_of`;
        ``zero-shot``, which was told nothing, is the calibration of the null.
        ``shared``: verbatim copies, and the distance of what left each client to its
        private texts (instruments M1 and M2 of the paper).

    Raises
    ------
    ConfigError
        The student gives every secret of a trial one score: it does not know its words.
    """

    def replayed(number: int) -> dict[str, Any]:
        trial = trial_of(number)
        held = _inserted(silos, trial, repeats)
        told = talk(
            held,
            form,
            models,
            settings,
            seed=derive_seed(seed, "audit", number),
            student=student,
            check=check,
        )
        return book.add(
            _ALL,
            number,
            size=trial.size,
            ranks=_ranks(told, trial, form, student, settings),
            drawn=_drawn(told, trial, settings),
            shared=_shared(told, held, form),
        )

    rows = []
    for number in range(trials):
        if on_progress is not None:
            on_progress(number, trials)
        rows.append(book.row(_ALL, number) or replayed(number))
    if on_progress is not None:
        on_progress(trials, trials)
    return _report(rows)


def _report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the trials of an audit say together."""
    size = int(rows[-1]["size"])
    return {
        "students": {
            name: report_of(
                [row["ranks"][name] for row in rows],
                size,
                [row["drawn"].get(name) for row in rows],
            )
            for name in rows[0]["ranks"]
        },
        "shared": _copies(rows),
    }


def student_names(settings: ConversationSettings) -> dict[str, str]:
    """Return what the students of a conversation are called in results, by key."""
    names = {name: f"{name}.{settings.num_chosen}" for name in settings.aggregators}
    if settings.teaches_instruction:
        names[INSTRUCTION] = INSTRUCTION
    return names


def _inserted(
    silos: Mapping[int, Silo], trial: SocialTrial, repeats: int
) -> dict[int, Silo]:
    return {
        partition: silo + (trial.canary,) * repeats
        if partition in trial.holders
        else silo
        for partition, silo in silos.items()
    }


def _ranks(
    told: Conversation,
    trial: SocialTrial,
    form: DemonstrationFormat,
    student: ClientModel,
    settings: ConversationSettings,
) -> dict[str, int]:
    """Return the rank of the canary under what each student was told."""
    prompts = told.prompts(form)
    # A student that was told nothing is asked all the same.
    states = {
        name: prompts.get(key, "") for key, name in student_names(settings).items()
    }
    found = {}
    for name, state in {ZERO_SHOT: "", **states}.items():
        scores = student.score(trial.pairs(form, state))
        if len(set(scores)) == 1:
            raise ConfigError(
                "`canary-pattern` must give secrets that the student tells apart, "
                f"found one score for all {trial.size}; choose a pattern in the "
                "vocabulary of `prompted-student`."
            )
        found[name] = rank_of(scores[0], scores[1:])
    return found


def _drawn(
    told: Conversation, trial: SocialTrial, settings: ConversationSettings
) -> dict[str, bool]:
    """Return whether the canary stood in a generating prompt of a holder."""
    found = {}
    for key, name in student_names(settings).items():
        is_instruction = key == INSTRUCTION
        shown = told.drawn_for_instruction if is_instruction else told.drawn
        found[name] = any(trial.canary in shown[holder] for holder in trial.holders)
    return found


def _shared(
    told: Conversation, silos: Mapping[int, Silo], form: DemonstrationFormat
) -> dict[str, Any]:
    """Return how far what left each client is from its private demonstrations."""
    exact, normalised = 0, 0
    distances: list[float] = []
    for partition, texts in told.shared.items():
        if not texts:
            continue
        sources = [form.write(one) for one in silos[partition]]
        copied = verbatim_rate(texts, sources)
        exact += copied.exact.hits
        normalised += copied.normalised.hits
        distances += [round(nearest(text, sources).distance, 4) for text in texts]
    return {"exact": exact, "normalised": normalised, "distances": distances}


def _copies(rows: list[dict[str, Any]]) -> dict[str, Any]:
    distances = [value for row in rows for value in row["shared"]["distances"]]
    if not distances:
        return {"texts": 0}
    rates = {
        name: asdict(
            exact_rate(sum(row["shared"][name] for row in rows), len(distances))
        )
        for name in ("exact", "normalised")
    }
    return {
        "texts": len(distances),
        **rates,
        "mean_distance": float(np.mean(distances)),
        "distance_quantiles": {
            f"{share:g}": float(np.quantile(distances, share)) for share in _QUANTILES
        },
    }

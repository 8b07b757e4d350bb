"""What a finished run's adapters keep of the canaries that its clients held.

Papers: The Secret Sharer (https://arxiv.org/abs/1802.08232); Social Learning
(https://arxiv.org/abs/2312.11441, section 5) for ranks by the mean log-probability of
the secret. Here the score is conditioned on weights instead of a prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedcot.arms import UNTRAINED
from fedcot.community.coalitions import JOIN
from fedcot.community.membership import community_of
from fedcot.community.pool import community_settings
from fedcot.community.settings import (
    FEDERATED,
    LABEL_ONLY,
    POOLED,
    RANDOM_LABEL,
)
from fedcot.data.partition import partition_sizes
from fedcot.data.traces import Scope
from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import Canary, CanaryTrial
from fedcot.evaluation.exposure import summarise_ranks
from fedcot.evaluation.insertion import (
    held_numbers,
    holders_of,
    inserted_trials,
    num_inserted,
)
from fedcot.evaluation.memorization import MemorizationReport, audit
from fedcot.evaluation.spans import ScoreFunction, SecretSpan, model_scores
from fedcot.evaluation.trial_book import TrialBook, plan_digest
from fedcot.node_pairs import used_indices
from fedcot.node_training import student_base, training_settings
from fedcot.seeding import numpy_generator
from fedcot.settings import COMMUNITY
from fedcot.student.files import weights_of
from fedcot.student.training import load_adapter
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.student.base import Base, TrainingSettings
    from fedcot.tasks.task import Task

BASE: Final = "base"
MEAN: Final = "mean of clients"
PREDICT: Final = "predict"
EXPLAIN: Final = "explain"
Progress = Callable[[int, int], None]
# Students that read every trace which may reach their coalition.
_READ_ALL: Final = (POOLED, FEDERATED, LABEL_ONLY, RANDOM_LABEL)


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter of a run, or a student that was tuned in full.

    Attributes
    ----------
    student : str
        Arm; ``arm (mean of clients)``; or ``arm.coalition``.
    arm : str
    folder : Path
    partitions : tuple of int
        Whose records it was trained on.
    coalition : tuple of str
        The communities of these; empty outside mode community.
    """

    student: str
    arm: str
    folder: Path
    partitions: tuple[int, ...]
    coalition: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Work:
    """A canary that is ranked under an adapter; None: under the untouched base."""

    student: str
    adapter: TrainedAdapter | None
    number: int
    drawn: bool | None


def find_adapters(
    run_dir: Path, config: RunConfig, num_partitions: int
) -> tuple[TrainedAdapter, ...]:
    """Return the adapters of a run, by arm and then by whose they are."""
    found = []
    for folder in sorted((run_dir / "adapters").glob("*/*")):
        arm, leaf = folder.parent.name, folder.name
        if weights_of(folder) is None or arm in UNTRAINED:
            continue
        if leaf.startswith("partition-"):
            own = (int(leaf.removeprefix("partition-")),)
            found.append(TrainedAdapter(arm, arm, folder, own))
        elif config.mode != COMMUNITY:
            everybody = tuple(range(num_partitions))
            found.append(TrainedAdapter(f"{arm} ({MEAN})", arm, folder, everybody))
        else:
            coalition = tuple(leaf.split(JOIN))
            members = tuple(
                partition
                for partition in range(num_partitions)
                if community_of(partition, config.community_names) in coalition
            )
            found.append(
                TrainedAdapter(f"{arm}.{leaf}", arm, folder, members, coalition)
            )
    return tuple(found)


def audit_adapters(
    run_dir: Path,
    config: RunConfig,
    *,
    num_partitions: int,
    num_rounds: int,
    size: int,
    trials: int,
    book_path: Path,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Rank the canaries of a run under each of its students, and under the base.

    Where every client has an adapter of its own, a canary that several hold is ranked
    under one of them, drawn with the seed: its ranks under the others would be no
    further independent trials, and an exact interval too narrow.

    Parameters
    ----------
    config : RunConfig
        With ``canaries > 0``.
    num_partitions, num_rounds : int
        Clients and rounds that the run had.
    size : int
        Canary and references together (N), >= 2.
    trials : int
        Canaries that are ranked at most, by their numbers.
    book_path : Path
        Where ranks are kept, so that an audit that was stopped goes on.

    Returns
    -------
    dict
        By student, then by prompt (``predict``, ``explain``): see
        `fedcot.evaluation.memorization.MemorizationReport`. ``base`` is the calibration
        of the null: nobody trained it on anything.

    Raises
    ------
    ConfigError
        The run has no adapters, or the pattern too few secrets.
    """
    adapters = find_adapters(run_dir, config, num_partitions)
    if not adapters:
        raise ConfigError(
            f"`RUN_DIR` must hold adapters to audit, found none in "
            f"`{run_dir / 'adapters'}`; train an arm beside zero-shot."
        )
    decisive = {
        "run_config": config.to_run_config(),
        "num_partitions": num_partitions,
        "num_rounds": num_rounds,
        "size": size,
        "adapters": {
            str(one.folder.relative_to(run_dir)): _digest(one.folder)
            for one in adapters
        },
    }
    book = TrialBook(book_path, plan_digest(decisive))
    found = inserted_trials(config, size)[:trials]
    work = list(
        _work(config, adapters, len(found), num_partitions, num_rounds=num_rounds)
    )
    _rank(config, work, found, book, on_progress)
    return _summary(work, book, size)


def _work(
    config: RunConfig,
    adapters: Sequence[TrainedAdapter],
    count: int,
    num_partitions: int,
    *,
    num_rounds: int,
) -> Iterator[_Work]:
    """Yield which canary is ranked under which adapter, adapter by adapter."""
    holders = [
        set(holders_of(config, number, num_partitions)) for number in range(count)
    ]
    for number in range(count):
        yield _Work(BASE, None, number, None)
    planned = []
    for student in dict.fromkeys(one.student for one in adapters):
        own = [one for one in adapters if one.student == student]
        for number in range(count):
            saw = [one for one in own if holders[number] & set(one.partitions)]
            if saw:
                rng = numpy_generator(config.seed, "audited-adapter", number)
                chosen = saw[int(rng.integers(len(saw)))]
                drawn = _drawn(
                    config,
                    chosen,
                    number,
                    sorted(holders[number] & set(chosen.partitions)),
                    num_partitions,
                    num_rounds,
                )
                planned.append(_Work(student, chosen, number, drawn))
    places = {one: place for place, one in enumerate(adapters)}
    yield from sorted(planned, key=lambda one: places[_given(one.adapter)])


def _rank(
    config: RunConfig,
    work: Sequence[_Work],
    trials: Sequence[CanaryTrial],
    book: TrialBook,
    on_progress: Progress | None,
) -> None:
    """Rank what the book does not have yet; each adapter is loaded once."""
    task, base = configured_task(config), student_base(config)
    settings = (
        community_settings(config)
        if config.mode == COMMUNITY
        else training_settings(config)
    )
    by_prompt = [_by_prompt(trial, task) for trial in trials]
    loaded: tuple[TrainedAdapter | None, ScoreFunction] | None = None
    for done, one in enumerate(work):
        if on_progress is not None:
            on_progress(done, len(work))
        if book.row(one.student, one.number) is not None:
            continue
        if loaded is None or loaded[0] is not one.adapter:
            score = _scores(config, base, settings, one.adapter)
            loaded = (one.adapter, score)
        ranks = {
            prompt: audit(loaded[1], [trial]).ranks[0]
            for prompt, trial in by_prompt[one.number].items()
        }
        book.add(one.student, one.number, ranks=ranks, drawn=one.drawn)
    if on_progress is not None:
        on_progress(len(work), len(work))


def _scores(
    config: RunConfig,
    base: Base,
    settings: TrainingSettings,
    adapter: TrainedAdapter | None,
) -> ScoreFunction:
    batch = config.evaluation_batch_size
    if adapter is None:
        return model_scores(base, batch_size=batch)
    weights = load_adapter(adapter.folder)
    return model_scores(base, adapter=weights, settings=settings, batch_size=batch)


def _summary(work: Sequence[_Work], book: TrialBook, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for student in dict.fromkeys(one.student for one in work):
        rows = [
            row
            for one in work
            if one.student == student and (row := book.row(student, one.number))
        ]
        drawn = [row["drawn"] for row in rows]
        found[student] = {
            prompt: report_of([row["ranks"][prompt] for row in rows], size, drawn)
            for prompt in rows[0]["ranks"]
        }
    return found


def report_of(
    ranks: Sequence[int], size: int, drawn: Sequence[bool | None]
) -> dict[str, Any]:
    """Return the report on ranks of independent canaries, for JSON.

    Parameters
    ----------
    ranks : sequence of int
    size : int
        Canary and references together.
    drawn : sequence of bool or None
        Whether each canary reached what the student saw; nothing is stated by it where
        one is not known.
    """
    known = [bool(was) for was in drawn if was is not None]
    given = known if len(known) == len(ranks) else None
    exposure = summarise_ranks(ranks, size, drawn=given)
    report = MemorizationReport(tuple(ranks), exposure).to_dict()
    return {**report, "num_drawn": None if given is None else sum(given)}


def _by_prompt(trial: CanaryTrial, task: Task) -> dict[str, CanaryTrial]:
    """Return the trial as a student writes it behind each of its prompts.

    Only where the answer is the secret does the answer alone hold anything to score.
    """
    found = {}
    if trial.canary.answer == trial.canary.secret:
        found[PREDICT] = CanaryTrial(
            _predicted(trial.canary, task),
            tuple(_predicted(other, task) for other in trial.references),
        )
    found[EXPLAIN] = trial
    return found


def _predicted(canary: Canary, task: Task) -> Canary:
    target, secret = task.prediction(canary.answer), canary.secret
    start = target.find(secret)
    if start < 0:
        raise ConfigError(
            "`canary-pattern` must give answers that the task writes as they are, "
            f"found that {task.name!r} changes them; choose another pattern."
        )
    prompt = task.predict_prompt(canary.question)
    span = SecretSpan(prompt, target, start, start + len(secret))
    return replace(canary, span=span)


def _drawn(
    config: RunConfig,
    adapter: TrainedAdapter,
    number: int,
    holders: Sequence[int],
    num_partitions: int,
    num_rounds: int,
) -> bool | None:
    """Return whether a holder's canary was trained on; None if it is not known."""
    if config.noise_multiplier > 0 or config.fraction_train < 1:
        return None
    if config.mode == COMMUNITY:
        reaches = config.trace_scope in (Scope.COALITION, Scope.PUBLIC) or (
            config.trace_scope == Scope.COMMUNITY and len(adapter.coalition) == 1
        )
        return reaches if adapter.arm in _READ_ALL and not config.pool_tokens else None
    return any(
        _was_used(config, number, holder, num_partitions, num_rounds)
        for holder in holders
    )


def _was_used(
    config: RunConfig,
    number: int,
    partition_id: int,
    num_partitions: int,
    num_rounds: int,
) -> bool:
    total = partition_sizes(config, num_partitions)[partition_id]
    repeats = config.canary_repeats
    place = held_numbers(config, partition_id, num_partitions).index(number)
    first = total - num_inserted(config, partition_id, num_partitions)
    first += place * repeats
    rounds = used_indices(config, partition_id, num_rounds, total)
    used = {index for indices in rounds for index in indices}
    return not used.isdisjoint(range(first, first + repeats))


def _given(adapter: TrainedAdapter | None) -> TrainedAdapter:
    if adapter is None:
        raise ValueError("the base is ranked apart.")
    return adapter


def _digest(folder: Path) -> str:
    weights = weights_of(folder)
    if weights is None:
        raise ValueError(f"{folder} holds no weights.")
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

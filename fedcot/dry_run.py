"""Everything that a run does before it downloads, trains or asks a teacher.

Each part is tried for itself, so that one problem does not hide what the others have to
say. Nothing is fetched, and nothing stays on the disk.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedcot.config import RunConfig
from fedcot.earlier_runs import earlier_seconds
from fedcot.errors import ConfigError, FedcotError
from fedcot.launch import nodes_of
from fedcot.settings import COMMUNITY, DATASET, RECORDED, SOCIAL, WORLD

if TYPE_CHECKING:
    from fedcot.data.schema import Record
    from fedcot.models.sources import Role
    from fedcot.privacy.accounting import PrivacyPlan
    from fedcot.tasks.task import Task

DOWNLOAD: Final = "would be downloaded"
UNKNOWN: Final = "unknown"


def dry_run(config: RunConfig, *, num_supernodes: int | None = None) -> dict[str, Any]:
    """Return what a run would do, with its problems, each in one line.

    Parameters
    ----------
    config : RunConfig
    num_supernodes : int | None
        Simulated clients; None: as a run decides.

    Returns
    -------
    dict
        `config`, `nodes`, `models`, `data`, `teacher_labels`, `partitions`, `chance`,
        `prompts`, `privacy`, `community`, `social`, `memory`, `time`, `downloads` and
        `problems`.
        A part that failed, or that the mode has not, is empty; what failed has a line
        in `problems`. Prompts are rendered on public texts only.
    """
    nodes = nodes_of(config, num_supernodes)
    problems: list[str] = []
    with _offline(), tempfile.TemporaryDirectory(prefix="fedcot-dry-run-") as folder:
        found: dict[str, Any] = {
            "config": config.to_run_config(),
            "nodes": nodes,
            **_Parts(config, nodes, Path(folder), problems).all(),
        }
    # One mistake may stop several parts.
    found["problems"] = list(dict.fromkeys(problems))
    return found


class _Parts:
    """What is said about a run, part by part."""

    def __init__(
        self, config: RunConfig, nodes: int, folder: Path, problems: list[str]
    ) -> None:
        self.config = config
        self.clients = config.num_partitions or nodes
        self.nodes = nodes
        self.folder = folder
        self.problems = problems
        self.downloads: list[str] = []
        self.awaits_data = False
        self.planned: PrivacyPlan | None = None

    def all(self) -> dict[str, Any]:
        """Return every part; one that fails is empty."""
        self._try(self._nodes)
        return {
            "models": self._try(self._models),
            **self.dataset(),
            **(self._try(self._clients) or {"partitions": [], "chance": None}),
            "privacy": self._try(self._privacy),
            "community": self._try(self._community),
            "social": self._try(self._social),
            "memory": self._try(self._memory),
            "time": self._try(self._time),
            "downloads": self.downloads,
        }

    def dataset(self) -> dict[str, Any]:
        """Return what is read, the recorded answers, and the prompts."""
        return {
            **(self._try(self._data) or {"data": {}, "teacher_labels": {}}),
            "prompts": self._try(self._prompts),
        }

    def _try(self, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return part()
        except (FedcotError, OSError, ImportError) as error:
            self.problems.append(" ".join(str(error).split()))
            return {}

    def _nodes(self) -> dict[str, Any]:
        from fedcot.preflight import check_nodes

        check_nodes(self.config, self.nodes)
        return {}

    def _models(self) -> dict[str, Any]:
        if self.config.mode == SOCIAL:
            return self._said_by()
        from fedcot.teacher_source import is_local

        student = self._try(lambda: self._model(self.config.student, "student"))
        if self.config.teacher == RECORDED:
            teacher: dict[str, Any] = {"source": RECORDED, "found": "in the dataset"}
        elif not is_local(self.config.teacher):
            teacher = {"source": self.config.teacher, "found": "endpoint, not asked"}
        else:
            teacher = self._try(lambda: self._model(self.config.teacher, "teacher"))
        self._try(self._model_settings)
        return {"student": student, "teacher": teacher}

    def _said_by(self) -> dict[str, Any]:
        """Return the models of teacher clients and of the student."""
        from fedcot.social.outline import model_sources
        from fedcot.teacher_source import is_endpoint

        found = {}
        for place, (key, source) in enumerate(model_sources(self.config)):
            where = "endpoint, not asked" if is_endpoint(source) else "in this process"
            found[f"{key} {place}"] = {"source": source, "found": where}
        return found

    def _model_settings(self) -> dict[str, Any]:
        from fedcot.preflight import check_model_settings

        if not self._would_download():
            check_model_settings(self.config)
        return {}

    def _would_download(self) -> bool:
        from fedcot.data.sources import data_folder, would_download
        from fedcot.tasks.mapping import load_mapping

        if self.config.dataset == WORLD:
            return False
        mapping = load_mapping(self.config.dataset)
        return would_download(mapping, data_folder(mapping, self.config.data_dir))

    def _model(self, source: str, role: Role) -> dict[str, Any]:
        from fedcot.models.sources import check_weights, is_hub_id, model_folder
        from fedcot.models.weights import ModelKind

        try:
            folder = model_folder(source, role, fetch=False)
        except ConfigError:
            if not is_hub_id(source):
                raise
            self.downloads.append(f"{role} {source}")
            return {"source": source, "found": f"{DOWNLOAD}: {source}"}
        check_weights(folder, role)
        kind = ModelKind.of_folder(folder, source=source, role=role)
        return {
            "source": source,
            "found": str(folder),
            "type": str(kind.config.model_type),
            "encoder_decoder": kind.is_encoder_decoder,
        }

    def _data(self) -> dict[str, Any]:
        """Return what was read, what was left out and why."""
        if self.config.dataset == WORLD:
            return {"data": {"dataset": WORLD}, "teacher_labels": {}}
        from fedcot.data.loading import load_dataset
        from fedcot.tasks.mapping import load_mapping

        if self._would_download():
            hub = load_mapping(self.config.dataset).source.hub
            self.awaits_data = True
            self.downloads.append(f"dataset {hub}")
            found = f"{DOWNLOAD}: {hub}"
            data: dict[str, Any] = {"dataset": self.config.dataset, "found": found}
            return {"data": data, "teacher_labels": {}}
        loaded = load_dataset(self.config)
        data = {
            "dataset": self.config.dataset,
            "rows": dict(loaded.rows),
            "used": {
                "train": len(loaded.train),
                "test": len(loaded.test),
                "public": len(loaded.public),
            },
            "skipped": {split: dict(why) for split, why in loaded.skipped.items()},
            "cleaned": dict(loaded.cleaned),
        }
        labels = {
            split: dataclasses.asdict(counts) for split, counts in loaded.labels.items()
        }
        return {"data": data, "teacher_labels": labels}

    def _clients(self) -> dict[str, Any]:
        """Return each client's number of records, and how often guessing is right."""
        from fedcot.data.partition import load_partition
        from fedcot.tasks.registry import configured_task

        if self.awaits_data or self.config.mode == SOCIAL:
            return {}
        task = configured_task(self.config)
        sizes, guesses = [], []
        for number in range(self.clients):
            partition = load_partition(self.config, number, self.clients)
            sizes.append({"train": len(partition.train), "test": len(partition.test)})
            guesses += [_guess(task, record) for record in partition.test]
        chance = sum(guesses) / len(guesses) if guesses else None
        return {"partitions": sizes, "chance": chance or None}

    def _prompts(self) -> dict[str, Any]:
        """Return what teacher and student would read for a public question."""
        if self.config.mode == SOCIAL:
            return {}
        from fedcot.community.level_prompts import level_prompt
        from fedcot.tasks.registry import configured_task

        task = configured_task(self.config)
        question = public_question(self.config)
        prompt = task.teacher_prompt(question)
        if level := self.config.provider_level:
            prompt = level_prompt(prompt, level)
        return {
            "teacher": prompt.text,
            "student_predict": task.predict_prompt(question),
            "student_explain": task.explain_prompt(question),
        }

    def _privacy(self) -> dict[str, Any]:
        """Return the plan, as `fedcot privacy plan` gives it."""
        from fedcot import budget
        from fedcot.artefacts import with_artefacts
        from fedcot.community.settings import perturbs

        if self.awaits_data and DATASET in (self.config.vocabulary, self.config.bank):
            return {"lines": [f"{UNKNOWN} until the dataset is on this machine"]}
        config = with_artefacts(self.config, self.folder)
        planned = budget.plan_run(
            config, budget.world_channel(config), num_partitions=self.clients
        )
        self.planned = planned
        self._try(lambda: _checked(config, planned, self.clients))
        if self.clients >= len(config.community_names) > 0:
            # The rate of DP-SGD depends on how many members share the questions.
            config = dataclasses.replace(config, num_partitions=self.clients)
        arms = budget.plan_arms(config, planned)
        is_perturbing = perturbs(config)
        if is_perturbing and not planned.is_within_limit:
            self.problems.append(
                "`record-epsilon` must be at least what a prompt is charged, found "
                f"{config.record_epsilon}; raise it or lower prompt-epsilon."
            )
        return {
            **(dataclasses.asdict(planned) if is_perturbing else {}),
            "per_arm": {arm: dataclasses.asdict(costs) for arm, costs in arms.items()},
            "worst_arm": budget.worst_of(arms),
            "lines": [
                *(planned.lines() if is_perturbing else ()),
                *budget.arm_lines(arms),
            ],
        }

    def _community(self) -> dict[str, Any]:
        """Return who shares what with whom; nothing outside mode community."""
        if self.config.mode != COMMUNITY:
            return {}
        from fedcot.community.outline import outline

        return outline(self.config, self.clients, self.planned)

    def _social(self) -> dict[str, Any]:
        """Return what teacher clients say and what leaves them, in mode social."""
        if self.config.mode != SOCIAL:
            return {}
        from fedcot.social.outline import check_teaching, outline

        check_teaching(self.config, self.clients)
        return outline(self.config, self.clients)

    def _memory(self) -> dict[str, Any]:
        if self.config.mode == SOCIAL:
            return {"lines": [f"{UNKNOWN}: models are only loaded and asked"]}
        from fedcot.memory import estimate, shortage

        needed = estimate(self.config, num_supernodes=self.nodes)
        if problem := shortage(needed):
            self.problems.append(problem)
        return {**needed.as_dict(), "lines": list(needed.lines())}

    def _time(self) -> dict[str, Any]:
        """Return what an earlier run with the same settings took."""
        found = earlier_seconds(self.config)
        if found is None:
            return {"seconds": UNKNOWN, "why": "no earlier run had these settings"}
        seconds, folder = found
        return {"seconds": round(seconds, 1), "why": f"taken by the run {folder.name}"}


def examine_data(config: RunConfig) -> dict[str, Any]:
    """Return what is read from the dataset alone, and its problems.

    Returns
    -------
    dict
        `data`, `teacher_labels`, `prompts` and `problems`, as `dry_run` gives them.
    """
    problems: list[str] = []
    with _offline():
        found = _Parts(config, 1, Path(), problems).dataset()
    return {**found, "problems": problems}


def public_question(config: RunConfig) -> str:
    """Return the text of a question that no client holds.

    The first demonstration of a mapping, else a row of the public share, else the names
    of the parts of a question.
    """
    if config.dataset == WORLD:
        from fedcot.data.partition import load_public_bank

        return load_public_bank(config, 1)[0].question
    from fedcot.data.loading import load_dataset
    from fedcot.tasks.mapped import MappedTask
    from fedcot.tasks.mapping import load_mapping

    mapping = load_mapping(config.dataset)
    task = MappedTask(mapping)
    if mapping.demonstrations:
        shown = mapping.demonstrations[0]
        return task.question(task.parts(shown.parts, shown.choices))
    with suppress(ConfigError):  # Said already where the data is read.
        if config.public_share and (public := load_dataset(config).public):
            return public[0].question
    return task.question([f"[{name}]" for name, _ in task.fields])


@contextmanager
def _offline() -> Iterator[None]:
    """Let the libraries of Hugging Face read their caches and nothing else."""
    import datasets.config
    import huggingface_hub.constants

    places: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _guess(task: Task, record: Record) -> float:
    """Return how likely a guess is right; 0 for an open answer."""
    choices = len(task.candidates(record))
    return 1 / choices if choices else 0.0


def _checked(config: RunConfig, planned: PrivacyPlan, clients: int) -> dict[str, Any]:
    from fedcot import budget

    budget.check_prompt_epsilon(config, planned)
    if config.mode == COMMUNITY:
        from fedcot.community.costs import check_record_limit
        from fedcot.data.partition import partition_sizes

        check_record_limit(config, planned, partition_sizes(config, clients))
    budget.check_variations(config, clients)
    return {}

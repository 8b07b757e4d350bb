"""What a run's settings say about teacher clients and the student."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

from fedcot.config import RunConfig
from fedcot.data.partition import load_partition
from fedcot.data.schema import Record
from fedcot.errors import ConfigError
from fedcot.models.options import ModelOptions
from fedcot.models.sources import BUILTIN, Role, artefact_hash
from fedcot.plain_text import normalize
from fedcot.records import IdentifyRequest
from fedcot.social.client_model import (
    ClientModel,
    EndpointSettings,
    configured_client_model,
)
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.formats import WorldFormat, format_named
from fedcot.social.generation import GenerationSettings
from fedcot.social.inspection import Gate, gate_texts
from fedcot.social.settings import BUILTIN_SMALL, WORLD_TASK
from fedcot.social.split import Silo, split_demonstrations
from fedcot.social.task_data import TaskData, load_task_data
from fedcot.teacher_source import is_endpoint
from fedcot.world.families import CLIENT_NAMES
from fedcot.world.splits import draw_problems

IN_CONTEXT_TEACHER: Final = "in-context-teacher"
IN_CONTEXT_STUDENT: Final = "in-context-student"


@lru_cache(maxsize=8)
def _task_data(
    task: str, seed: int, data_dir: str, num_train: int, num_test: int
) -> TaskData:
    return load_task_data(
        task, seed=seed, data_dir=data_dir, num_train=num_train, num_test=num_test
    )


def configured_data(config: RunConfig) -> TaskData:
    """Return the examples of all simulated clients, and the public test questions.

    Raises
    ------
    ConfigError
        The data cannot be had, or there are fewer examples than asked for.
    """
    return _task_data(
        config.task, config.seed, config.data_dir, config.num_records, config.hold_out
    )


def configured_test(config: RunConfig) -> tuple[Demonstration, ...]:
    """Return the questions that the student is tested on; nobody holds one of them.

    Of the built-in world all client domains in equal share, as the hold-out of mode
    community.

    Raises
    ------
    ConfigError
        There are too few.
    """
    if config.task != WORLD_TASK:
        # It does not hang on how many examples clients hold.
        return _task_data(
            config.task, config.seed, config.data_dir, 1, config.hold_out
        ).test
    try:
        problems = draw_problems(
            "validation", CLIENT_NAMES, config.hold_out, seed=config.seed
        )
    except ValueError as error:
        raise ConfigError(
            "`hold-out` must be at most what the built-in world holds, found "
            f"{config.hold_out}; lower it."
        ) from error
    return tuple(demonstration_of(problem.record()) for problem in problems)


def configured_silo(config: RunConfig, partition_id: int, num_partitions: int) -> Silo:
    """Return the examples of one simulated teacher client.

    Problems of the built-in world come without steps: a client holds questions and
    answers, see `fedcot.social.teacher_client`.

    Raises
    ------
    ConfigError
        The data cannot be had, or cannot be split as asked.
    """
    if config.task == WORLD_TASK:
        partition = load_partition(config, partition_id, num_partitions)
        silo: Silo = tuple(map(demonstration_of, partition.train))
    else:
        silo = _silos(config, num_partitions)[partition_id]
    if config.canaries:
        from fedcot.social.planted import with_canaries

        form = configured_form(config)
        return with_canaries(
            config,
            form,
            silo,
            partition_id=partition_id,
            num_partitions=num_partitions,
        )
    return silo


@lru_cache(maxsize=8)
def _silos(config: RunConfig, num_partitions: int) -> tuple[Silo, ...]:
    return split_demonstrations(
        configured_data(config),
        num_partitions,
        partitioner=config.partitioner,
        dirichlet_alpha=config.dirichlet_alpha,
        smallest=config.examples_per_prompt,
        seed=config.seed,
    )


def demonstration_of(record: Record) -> Demonstration:
    """Return a record as a demonstration without steps, as models of the world read."""
    return Demonstration(normalize(record.question), record.answer)


def configured_form(config: RunConfig) -> DemonstrationFormat:
    """Return how demonstrations of the task are written and read."""
    if config.task == WORLD_TASK:
        return WorldFormat()
    data = configured_data(config)
    return format_named(data.format_name, labels=data.labels)


def configured_gate(config: RunConfig, silo: Silo, steps: Sequence[str] = ()) -> Gate:
    """Return what keeps texts of a teacher client back.

    Steps that its model wrote to its examples count as private, behind all others.
    """
    return Gate(
        [*gate_texts(silo), *steps],
        config.gate_distance,
        refused_run=config.gate_run or None,
    )


def generation_settings(config: RunConfig) -> GenerationSettings:
    """Return how a teacher's model is asked for demonstrations."""
    return GenerationSettings(
        per_prompt=config.examples_per_prompt,
        keep=config.examples_kept,
        num_prompts=config.generation_prompts or config.examples_per_prompt,
        samples_per_prompt=config.samples_per_prompt,
        temperature=config.example_temperature,
        max_new_tokens=config.max_new_tokens,
    )


def client_model_of(config: RunConfig, partition_id: int) -> ClientModel:
    """Return the model of one teacher client; several are dealt out in turn.

    Raises
    ------
    ConfigError
        It cannot be had.
    """
    names = config.client_models
    return _model(config, names[partition_id % len(names)], "client-model")


def prompted_student(config: RunConfig) -> ClientModel:
    """Return the student's model.

    Raises
    ------
    ConfigError
        It cannot be had.
    """
    return _model(config, config.prompted_student, "prompted-student")


def model_hash(source: str) -> str:
    """Return the SHA-256 of a model's files; the URL's of an endpoint is none."""
    if is_endpoint(source):
        return "endpoint"
    role, found = role_of(source, "prompted-student")
    return artefact_hash(found, role)


def role_of(
    source: str, key: Literal["client-model", "prompted-student"]
) -> tuple[Role, str]:
    """Return the role under which a model is found, and what it is found by."""
    if source == BUILTIN:
        return IN_CONTEXT_TEACHER, BUILTIN
    if source == BUILTIN_SMALL:
        return IN_CONTEXT_STUDENT, BUILTIN
    return key, source


def social_identity(
    config: RunConfig, code_hash: str, *, told: IdentifyRequest | None = None
) -> IdentifyRequest:
    """Return what server and clients must have in common.

    What teacher clients' models are is their owners' affair.

    Parameters
    ----------
    config : RunConfig
    code_hash : str
    told : IdentifyRequest, optional
        What the server says it has. A deployed node takes its word for the student and
        the test questions: it loads no student, and its files are its owner's.

    Raises
    ------
    ConfigError
        The test questions or the student's model cannot be had.
    """
    if told is not None:
        student_hash, test_hash = told.student_hash, told.dataset_hash
    else:
        student_hash = model_hash(config.prompted_student)
        test_hash = TaskData((), configured_test(config), config.task).hash
    return IdentifyRequest(
        code_hash=code_hash,
        student_hash=student_hash,
        vocabulary_hash="none",
        dataset_hash=test_hash,
    )


@lru_cache(maxsize=4)
def _loaded(source: str, role: Role, options: ModelOptions, batch: int) -> ClientModel:
    """Load a model once per process: eight clients may share one actor."""
    return configured_client_model(source, role=role, options=options, batch_size=batch)


def _model(
    config: RunConfig, source: str, key: Literal["client-model", "prompted-student"]
) -> ClientModel:
    if is_endpoint(source):
        return configured_client_model(
            source,
            endpoint=EndpointSettings(
                model=config.teacher_model,
                api=config.teacher_api,
                concurrency=config.teacher_concurrency,
                retries=config.teacher_retries,
                timeout=config.teacher_timeout,
                requests_per_minute=config.teacher_requests_per_minute,
            ),
        )
    role, found = role_of(source, key)
    return _loaded(
        found, role, ModelOptions.of_student(config), config.teacher_batch_size
    )

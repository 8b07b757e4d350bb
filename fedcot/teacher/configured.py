"""The teacher that a configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fedcot.community.level_prompts import at_provider_level
from fedcot.config import RunConfig
from fedcot.data.loading import LoadedData, load_dataset
from fedcot.errors import ConfigError
from fedcot.models.options import ModelOptions
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.settings import RECORDED
from fedcot.tasks.task import Task
from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.endpoint import EndpointWriter
from fedcot.teacher.prompted import PromptedTeacher
from fedcot.teacher.recorded import RecordedTeacher
from fedcot.teacher.teacher import Teacher
from fedcot.teacher_source import is_endpoint

CACHE_NAME: Final = "teacher-cache.sqlite"


def configured_teacher(
    config: RunConfig,
    *,
    task: Task,
    cache_root: Path,
    vocabulary: Vocabulary | None = None,
    check: bool = True,
) -> Teacher:
    """Return the teacher of a configuration.

    Parameters
    ----------
    config : RunConfig
        Names teacher, settings, prices and cache.
    task : Task
        The one of the data set.
    cache_root : Path
        Where the answers of an endpoint are kept unless `teacher-cache` names a file.
    vocabulary : Vocabulary, optional
        Of the run; recorded rationales are also found by what it makes of a question.
    check : bool
        Ask an endpoint at once whether it is there and takes the key: later, clients
        have already spent their budget.

    Raises
    ------
    ConfigError
        There is no such teacher, it has no rationales for the data set, it cannot be
        asked for `provider-level`, or the cache is something else.
    TeacherError
        The endpoint does not answer.
    """
    if config.teacher == RECORDED:
        return _recorded(config, task, vocabulary)
    prices = (config.teacher_input_price, config.teacher_output_price)
    named = Path(config.teacher_cache).expanduser() if config.teacher_cache else None
    if is_endpoint(config.teacher):
        writer = _endpoint(config)
        cache = AnswerCache(named or cache_root / CACHE_NAME)
        if check:
            writer.check()
        return PromptedTeacher(task, at_provider_level(writer, config), cache, prices)
    from fedcot.teacher.transformers_writer import TransformersWriter

    local = TransformersWriter(
        config.teacher,
        options=ModelOptions.of_teacher(config),
        batch_size=config.teacher_batch_size,
        max_new_tokens=config.max_new_tokens,
        temperature=config.teacher_temperature,
        top_p=config.teacher_top_p,
        seed=config.seed,
    )
    asked = at_provider_level(local, config)
    return PromptedTeacher(task, asked, AnswerCache(named) if named else None, prices)


def _endpoint(config: RunConfig) -> EndpointWriter:
    return EndpointWriter(
        config.teacher,
        model=config.teacher_model,
        api=config.teacher_api,
        max_new_tokens=config.max_new_tokens,
        temperature=config.teacher_temperature,
        top_p=config.teacher_top_p,
        seed=config.seed,
        concurrency=config.teacher_concurrency,
        retries=config.teacher_retries,
        timeout=config.teacher_timeout,
        requests_per_minute=config.teacher_requests_per_minute,
    )


def recorded_dataset(config: RunConfig) -> LoadedData:
    """Return the data set of a recorded teacher.

    Raises
    ------
    ConfigError
        It carries no rationales.
    """
    data = load_dataset(config)
    if not any(one.completion for one in (*data.train, *data.public, *data.test)):
        raise ConfigError(
            "`teacher` must be a model with a dataset that carries no rationales, "
            f"found `recorded` with {config.dataset!r}; pass `-c teacher=builtin`, or "
            "name the column of the rationales in the dataset's mapping."
        )
    return data


def _recorded(
    config: RunConfig, task: Task, vocabulary: Vocabulary | None
) -> RecordedTeacher:
    data = recorded_dataset(config)
    # Where two questions have the same words, the public one stands.
    records = (*data.public, *data.train, *data.test)
    released = RecordedTeacher(task, data.public, vocabulary)
    return RecordedTeacher(task, records, released=released)

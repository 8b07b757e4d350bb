"""The task that a configuration names."""

from functools import cache

from fedcot.config import RunConfig
from fedcot.settings import WORLD
from fedcot.tasks.task import Task
from fedcot.tasks.world import WorldTask


def configured_task(config: RunConfig) -> Task:
    """Return the task of a configuration, read once per process.

    Raises
    ------
    ConfigError
        There is no such mapping, or it is broken.
    """
    return task_of(config.dataset)


@cache
def task_of(dataset: str) -> Task:
    """Return the task that the setting `dataset` names.

    Raises
    ------
    ConfigError
        There is no such mapping, or it is broken.
    """
    if dataset == WORLD:
        return WorldTask()
    from fedcot.tasks.mapped import MappedTask
    from fedcot.tasks.mapping import load_mapping

    return MappedTask(load_mapping(dataset))

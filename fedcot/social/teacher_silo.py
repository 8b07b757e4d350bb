"""What a teacher client holds, what of it its model reads, and what it votes with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.models.sources import BUILTIN
from fedcot.node_state import Owner
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.settings import SOCIAL
from fedcot.social.ballots import held_out_split
from fedcot.social.client_model import ClientModel
from fedcot.social.configured import (
    client_model_of,
    configured_form,
    configured_gate,
    configured_silo,
)
from fedcot.social.demonstrations import (
    Demonstration,
    DemonstrationFormat,
    draw_indices,
)
from fedcot.social.formats import format_named
from fedcot.social.inspection import Gate
from fedcot.social.instructions import NUM_EXAMPLES
from fedcot.social.settings import INSTRUCTION, WORLD_TASK
from fedcot.social.split import Silo
from fedcot.social.task_data import TaskData, load_task_data
from fedcot.teacher_source import is_endpoint
from fedcot.world.hidden_rules import KINDS
from fedcot.world.reading import read_problem
from fedcot.world.verifier import solves, verify

# Nobody owns a file of these, so that deployed nodes get shares of them too.
GENERATED: Final = (WORLD_TASK, "random-insertion", *KINDS)
# Questions that a model explains together; so many are tried at least.
EXPLAINED_TOGETHER: Final = 64
VOTE_MERGING: Final = "vote"

Part = Literal["teaching", "held-out"]


@dataclass(frozen=True, slots=True)
class Explained:
    """Demonstrations that a model may read.

    Attributes
    ----------
    demonstrations : tuple of Demonstration
    num_left_out : int
        Those that the client's model was asked to explain and got wrong.
    """

    demonstrations: Silo = field(repr=False)
    num_left_out: int

    def drawn(self, count: int, seed: int, purpose: str) -> Silo:
        """Return demonstrations at random; those of fewer are the first of more.

        Raises
        ------
        ConfigError
            There are fewer.
        """
        total = len(self.demonstrations)
        if count > total:
            raise ConfigError(
                f"`num-records` must leave each teacher client {count} examples that "
                f"its model may read, found {total}; raise it, or choose a model that "
                "explains more of them."
            )
        chosen = draw_indices(total, count, seed, purpose)
        return tuple(self.demonstrations[index] for index in chosen)


def teacher_config(config: RunConfig, owner: Owner) -> RunConfig:
    """Return the settings with the owner's model and folder in place of the server's.

    A server must choose neither which model reads private examples nor which files are
    read, nor open the gate. Of an endpoint it must not name the model either: it has to
    list one only.

    Raises
    ------
    ConfigError
        The run is not of mode social, or the owner of a deployed node has not allowed
        that its model teaches, has named no model, no folder or task for files, or
        another task.
    """
    if config.mode != SOCIAL:
        raise ConfigError(
            f"`mode` must be {SOCIAL} for a teacher client, found {config.mode}; pass "
            f"`-c mode={SOCIAL}`."
        )
    if owner.simulated:
        return config
    if not owner.allow_sharing:
        raise ConfigError(
            "`allow-sharing` must be true in the node config of a deployed teacher "
            "client, because what its model writes after private examples leaves "
            "without any epsilon, found false; pass --node-config "
            "'allow-sharing=true' if it may."
        )
    if not owner.client_model:
        raise ConfigError(
            "`client-model` must be given in the node config of a deployed teacher "
            "client: which model reads its examples is its owner's to say, found "
            "nothing; pass for example --node-config 'client-model=\"builtin\"'."
        )
    _check_task(config, owner)
    is_asked = is_endpoint(owner.client_model)
    return dataclasses.replace(
        config,
        client_model=owner.client_model,
        data_dir=str(owner.data_dir or ""),
        # No teacher client loads it, so that none has to be had.
        student=BUILTIN,
        # Its owner has chosen the endpoint.
        raw_to_endpoint=config.raw_to_endpoint or is_asked,
        teacher_model="" if is_asked else config.teacher_model,
        # A run may be stricter than the owner, never laxer.
        gate_distance=max(config.gate_distance, owner.gate_distance),
        gate_run=min(config.gate_run or owner.gate_run, owner.gate_run),
    )


def _check_task(config: RunConfig, owner: Owner) -> None:
    """Refuse to read files that the owner has not named for the run's task.

    A folder may hold files of several tasks.
    """
    has_files = config.task not in GENERATED
    if has_files and owner.data_dir is None:
        raise ConfigError(
            "`data-dir` must be given in the node config of a deployed node whose "
            f"`task` is read from files, found nothing for `{config.task}`; pass for "
            "example --node-config 'data-dir=\"/srv/data\"'."
        )
    if config.task != owner.task and (has_files or owner.task):
        raise ConfigError(
            "`task` of the run must be the one that the node config of a deployed "
            f"node names, found `{config.task}` and `{owner.task}`; pass for example "
            f"--node-config 'task=\"{config.task}\"' if its files may be taught from."
        )


class TeacherSilo:
    """The examples of one teacher client, read and explained once per process.

    Parameters
    ----------
    config : RunConfig
        Of `teacher_config`.
    owner : Owner
    """

    def __init__(self, config: RunConfig, owner: Owner) -> None:
        self._config = config
        self._owner = owner

    @property
    def form(self) -> DemonstrationFormat:
        """How they are written."""
        return _form(self._config, self._owner)

    @property
    def all(self) -> Silo:
        """Every example, as the client holds it."""
        return _held(self._config, self._owner)

    @property
    def teaching(self) -> Explained:
        """Those that prompts for teaching are drawn from."""
        return _explained(self._config, self._owner, "teaching")

    @property
    def held_out(self) -> Explained:
        """Those that the client votes with and never teaches with.

        Raises
        ------
        ConfigError
            The run has no votes.
        """
        if not has_votes(self._config):
            raise ConfigError(
                "`aggregators` must hold one that counts votes, or "
                "`instruction-merging` be vote, where teacher clients are asked for "
                f"ballots, found {self._config.aggregators}; pass for example "
                "`-c aggregators=random,voting`."
            )
        return _explained(self._config, self._owner, "held-out")

    def gate(self) -> Gate:
        """Return what keeps texts back: over every example, with the steps known."""
        votes = self.held_out.demonstrations if has_votes(self._config) else ()
        given = {one.reasoning for one in self.all}
        steps = [
            one.reasoning
            for one in (*self.teaching.demonstrations, *votes)
            if one.reasoning not in given
        ]
        return configured_gate(self._config, self.all, steps)


def has_votes(config: RunConfig) -> bool:
    """Whether teacher clients vote on examples or on instructions."""
    merges = INSTRUCTION in config.teaching_names
    return config.has_votes or (merges and config.instruction_merging == VOTE_MERGING)


def steps_hold(demonstration: Demonstration) -> bool:
    """Whether the steps of a problem of the built-in world are true and lead on.

    Where the question can be read they have to be its steps.
    """
    steps, answer = demonstration.reasoning, demonstration.answer
    problem = read_problem(demonstration.question)
    holds = verify(steps, answer).valid
    return holds and (problem is None or solves(steps, answer, problem))


def explain(
    model: ClientModel,
    form: DemonstrationFormat,
    silo: Sequence[Demonstration],
    *,
    needed: int,
    max_new_tokens: int,
    seed: int,
) -> Explained:
    """Let a client's model write the steps of examples that have none.

    Examples whose answer it does not reach are left out: they would teach wrong steps.
    What has steps stays as it is.

    Parameters
    ----------
    model : ClientModel
        The client's own; it writes greedily.
    form : DemonstrationFormat
    silo : sequence of Demonstration
    needed : int
        No more are tried once there are so many, in steps of `EXPLAINED_TOGETHER`.
    max_new_tokens : int
    seed : int
        Which are tried first.
    """
    order = numpy_generator(seed, "explanations").permutation(len(silo))
    found: list[Demonstration] = []
    tried = 0
    while tried < len(silo) and (not tried or len(found) < needed):
        places = order[tried : tried + EXPLAINED_TOGETHER]
        some = [silo[int(place)] for place in places]
        found += _with_steps(model, form, some, max_new_tokens)
        tried += len(some)
    return Explained(tuple(found), tried - len(found))


def _with_steps(
    model: ClientModel,
    form: DemonstrationFormat,
    silo: Sequence[Demonstration],
    max_new_tokens: int,
) -> list[Demonstration]:
    """Return those that have steps or get right ones, in order."""
    prompts = {one: form.ask(one.question) for one in silo if not one.reasoning}
    written = model.sample(
        list(prompts.values()),
        temperature=0.0,
        max_new_tokens=max_new_tokens,
        stop=form.stop,
        seeds=list(range(len(prompts))),
    )
    steps: dict[Demonstration, str] = {}
    for (one, prompt), sampled in zip(prompts.items(), written, strict=True):
        read = form.read(f"{prompt} {sampled.text}")
        # What the model added to the question is no step.
        if (
            read is not None
            and read.question == one.question
            and form.is_right(read.answer, one.answer)
        ):
            steps[one] = read.reasoning
    told = [
        one if one.reasoning else dataclasses.replace(one, reasoning=steps.get(one, ""))
        for one in silo
    ]
    return [one for one in told if one.reasoning]


@lru_cache(maxsize=64)
def _own_data(config: RunConfig) -> TaskData:
    """Return all that a deployed node's files hold to be taught with, and no test.

    No number of the run's has a part in it: how many there are for one choice after
    another would tell who is among them.
    """
    return load_task_data(
        config.task, seed=config.seed, data_dir=config.data_dir, num_test=None
    )


def _has_files(config: RunConfig, owner: Owner) -> bool:
    return not owner.simulated and config.task not in GENERATED


def _form(config: RunConfig, owner: Owner) -> DemonstrationFormat:
    if not _has_files(config, owner):
        return configured_form(config)
    data = _own_data(config)
    return format_named(data.format_name, labels=data.labels)


@lru_cache(maxsize=64)
def _held(config: RunConfig, owner: Owner) -> Silo:
    if _has_files(config, owner):
        return _own_data(config).train
    return configured_silo(config, owner.partition_id, owner.num_partitions)


@lru_cache(maxsize=64)
def _explained(config: RunConfig, owner: Owner, part: Part) -> Explained:
    silo = _held(config, owner)
    held_out: Silo = ()
    if has_votes(config):
        seed = derive_seed(config.seed, "held-out", owner.partition_id)
        silo, held_out = held_out_split(silo, config.held_out_share, seed)
    chosen = silo if part == "teaching" else held_out
    if config.task != WORLD_TASK:
        return Explained(chosen, 0)
    instructed = NUM_EXAMPLES if INSTRUCTION in config.teaching_names else 0
    return explain(
        client_model_of(config, owner.partition_id),
        _form(config, owner),
        chosen,
        needed=max(config.examples_per_prompt, config.counts[-1], instructed),
        max_new_tokens=config.max_new_tokens,
        seed=derive_seed(config.seed, part, owner.partition_id),
    )

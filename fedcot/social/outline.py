"""What a run of social learning will do and what will leave a client, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from fedcot.errors import ConfigError
from fedcot.models.sources import check_weights, model_folder
from fedcot.social.instructions import NUM_EXAMPLES
from fedcot.social.settings import (
    EXAMPLES,
    INSTRUCTION,
    PRIVATE_VOTING,
)
from fedcot.social.votes import LARGEST_NUM_TEACHERS
from fedcot.teacher_source import is_endpoint

if TYPE_CHECKING:
    from fedcot.config import RunConfig

Setting = Literal["client-model", "prompted-student"]


def check_teaching(config: RunConfig, num_partitions: int) -> None:
    """Check that data and models of a simulated run are there and suffice.

    Raises
    ------
    ConfigError
        A silo is too small, or a model or a file cannot be had.
    """
    from fedcot.social.configured import configured_form, configured_test, role_of

    configured_test(config)
    configured_form(config)
    sizes = silo_sizes(config, num_partitions)
    needed = needed_examples(config)
    if min(sizes) < needed:
        raise ConfigError(
            f"`num-records` must leave every teacher client {needed} examples, found "
            f"{min(sizes)} with {num_partitions} clients; raise it, ask for fewer "
            "clients, or lower examples-per-prompt."
        )
    if PRIVATE_VOTING in config.aggregator_names and (
        num_partitions > LARGEST_NUM_TEACHERS
    ):
        raise ConfigError(
            f"`num-partitions` must be at most {LARGEST_NUM_TEACHERS} with "
            f"`private-voting`, found {num_partitions}; pass `-c aggregators=random`."
        )
    for key, source in model_sources(config):
        if not is_endpoint(source):
            role, found = role_of(source, key)
            check_weights(model_folder(found, role), role)


def needed_examples(config: RunConfig) -> int:
    """Return how many examples a teacher client must hold at least."""
    per_prompt = config.examples_per_prompt if EXAMPLES in config.teaching_names else 1
    instructed = NUM_EXAMPLES if INSTRUCTION in config.teaching_names else 1
    # What private examples could do is measured with as many of them.
    compared = config.counts[-1] if EXAMPLES in config.teaching_names else 1
    shown = max(per_prompt, instructed, compared)
    from fedcot.social.teacher_silo import has_votes

    if not has_votes(config):
        return shown
    # Rounding to the nearest number of held-out examples may go either way.
    return round(shown / (1 - config.held_out_share)) + 1


def silo_sizes(config: RunConfig, num_partitions: int) -> tuple[int, ...]:
    """Return how many examples each simulated teacher client holds."""
    from fedcot.social.configured import configured_silo

    return tuple(
        len(configured_silo(config, number, num_partitions))
        for number in range(num_partitions)
    )


def model_sources(config: RunConfig) -> Iterator[tuple[Setting, str]]:
    """Yield the setting and the source of every model of a run."""
    for source in dict.fromkeys(config.client_models):
        yield "client-model", source
    yield "prompted-student", config.prompted_student


def outline(config: RunConfig, num_partitions: int) -> dict[str, Any]:
    """Return what will be said, by whom, and what leaves a client.

    Returns
    -------
    dict
        `silos`, `flow`, `students` (their names) and all as `lines`.

    Raises
    ------
    ConfigError
        See `check_teaching`.
    """
    from fedcot.social.teacher_silo import has_votes

    sizes = silo_sizes(config, num_partitions)
    flow, students = flow_kinds(config), student_names(config)
    most = config.examples_per_prompt * config.examples_kept
    said = ", ".join(flow)
    lines = [
        f"{num_partitions} teacher clients with {min(sizes)} to {max(sizes)} examples",
        f"task: {config.task}; each message goes to all of them: {said}",
        f"students: {', '.join(students)}",
    ]
    if EXAMPLES in config.teaching_names:
        lines.append(
            f"leaves a client: at most {most} examples that its model writes; no copy "
            f"of a private question, and none within {config.gate_distance:g} of its "
            "length; no epsilon bounds that"
        )
    if INSTRUCTION in config.teaching_names:
        lines.append("leaves a client: one instruction; no epsilon bounds that")
    if has_votes(config):
        lines.append("leaves a client: its votes; the server is trusted with them")
    for key, source in model_sources(config):
        if is_endpoint(source):
            lines.append(f"{key}: an endpoint reads private examples: {source}")
    return {
        "silos": list(sizes),
        "flow": list(flow),
        "students": list(students),
        "lines": lines,
    }


def flow_kinds(config: RunConfig) -> tuple[str, ...]:
    """Return the steps of the conversation, in order."""
    from fedcot.social.flow import TEACH_EXAMPLES, TEACH_INSTRUCTION, VOTE

    kinds = []
    if EXAMPLES in config.teaching_names:
        kinds += [TEACH_EXAMPLES, *([VOTE] if config.has_votes else [])]
    if INSTRUCTION in config.teaching_names:
        voted = config.instruction_merging == "vote"
        kinds += [TEACH_INSTRUCTION, *([VOTE] if voted else [])]
    return tuple(kinds)


def student_names(config: RunConfig) -> tuple[str, ...]:
    """Return the students of a run, as its results name them.

    ``original.N`` reads N private examples of one teacher client each: a bound that no
    student reaches without them, and only measured in a simulation.
    """
    counts = [count for count in config.counts if count]
    taught = [f"{a}.{n}" for a in config.aggregator_names for n in counts]
    names = ["zero-shot", *(["manual"] if config.manual_prompt else [])]
    if EXAMPLES in config.teaching_names:
        names += [f"original.{n}" for n in counts]
    names += taught
    if INSTRUCTION in config.teaching_names:
        names.append(INSTRUCTION)
        # Behind the instruction only the most examples: half as many runs of the model.
        longest = counts[-1] if counts else 0
        names += [f"{INSTRUCTION}+{a}.{longest}" for a in config.aggregator_names]
    return tuple(names)

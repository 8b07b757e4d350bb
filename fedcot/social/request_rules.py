"""Which requests of the server a teacher client answers: those that the settings imply.

The settings are the run's, so that the server chooses them, but once: they are part of
the name of the run's folder, and what leaves over all runs is the owner's to bound.
"""

from __future__ import annotations

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.social.configured import generation_settings
from fedcot.social.flow import TEACH_EXAMPLES
from fedcot.social.messages import (
    INSTRUCTIONS,
    BallotRequest,
    ExamplesRequest,
    InstructionRequest,
    StepRequest,
    step_message,
)
from fedcot.social.outline import flow_kinds
from fedcot.social.settings import EXAMPLES

# Fields of a request by name, and the values that the settings give.
Numbers = dict[str, int | float]


def check_request(config: RunConfig, num_partitions: int, request: StepRequest) -> None:
    """Check that a request is the one that the settings give at its step.

    Parameters
    ----------
    config : RunConfig
        Of `fedcot.social.teacher_silo.teacher_config`.
    num_partitions : int
        How many teacher clients there are; each adds candidates to a vote.
    request : StepRequest

    Raises
    ------
    ConfigError
        The flow has another step there, or a number is not that of the settings.
    """
    _check_step(config, request)
    if isinstance(request, ExamplesRequest):
        asked = generation_settings(config)
        _check_numbers(
            request,
            {
                "per_prompt": asked.per_prompt,
                "keep": asked.keep,
                "num_prompts": asked.num_prompts,
                "samples_per_prompt": asked.samples_per_prompt,
                "temperature": asked.temperature,
                "max_new_tokens": asked.max_new_tokens,
            },
        )
    elif isinstance(request, InstructionRequest):
        _check_numbers(
            request,
            {
                "temperature": config.example_temperature,
                "max_new_tokens": config.max_new_tokens,
                "tries": config.instruction_tries,
            },
        )
    elif isinstance(request, BallotRequest):
        _check_ballot(config, num_partitions, request)


def _check_step(config: RunConfig, request: StepRequest) -> None:
    """Refuse what the flow does not have at this step: each step draws anew."""
    kinds = flow_kinds(config)
    kind = step_message(request).kind
    provided = kinds[request.step] if request.step < len(kinds) else "no further step"
    if kind != provided:
        raise ConfigError(
            "`step` must be one that the settings of the run give, found step "
            f"{request.step} with {kind}, where there is {provided}; start a run with "
            "other settings."
        )
    if isinstance(request, BallotRequest):
        before = kinds[request.step - 1]
        taught = EXAMPLES if before == TEACH_EXAMPLES else INSTRUCTIONS
        if request.subject != taught:
            raise ConfigError(
                "`subject` must be what was taught in the step before a vote, found "
                f"{request.subject} at step {request.step} behind {taught}; vote on "
                "these."
            )


def _check_numbers(request: StepRequest, expected: Numbers) -> None:
    for name, value in expected.items():
        found = getattr(request, name)
        if found != value:
            raise ConfigError(
                f"`{name}` of a request must be {value} by the settings of the run, "
                f"found {found}; start a run with other settings."
            )


def _check_ballot(
    config: RunConfig, num_partitions: int, request: BallotRequest
) -> None:
    """Refuse more places, or more candidates, than the conversation can have."""
    if request.subject == EXAMPLES:
        turns = config.counts[-1]
        kept = config.examples_per_prompt * config.examples_kept
        found = {"turns": len(request.turns), "candidates": len(request.candidates)}
        most = {"turns": turns, "candidates": num_partitions * kept}
    else:
        found = {"turns": len(request.turns), "texts": len(request.texts)}
        most = {"turns": 1, "texts": num_partitions}
    for name, count in found.items():
        if count > most[name]:
            raise ConfigError(
                f"`{name}` of a ballot must be at most {most[name]} by the settings of "
                f"the run, found {count}; start a run with other settings."
            )

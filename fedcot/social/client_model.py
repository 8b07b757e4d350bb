"""The language model of a teacher client or of a student: text in, text out.

Paper: https://arxiv.org/abs/2312.11441 (section 3). No weights are changed, so a model
behind an endpoint will do as well as one in this process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fedcot.errors import ConfigError
from fedcot.models.options import ModelOptions
from fedcot.models.sources import BUILTIN, Role
from fedcot.teacher.teacher import Described
from fedcot.teacher_source import is_endpoint

IN_CONTEXT_ROLES: Final[tuple[Role, ...]] = ("in-context-teacher", "in-context-student")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One continuation of a prompt.

    Attributes
    ----------
    text : str
        Up to the first stop string; private where the prompt was.
    mean_log_probability : float or None
        Of the tokens of `text`, in nats per token, at most 0, under the model's own
        distribution (temperature 1); None where it is not known or there is no token.
        Perplexity is ``exp(-mean_log_probability)``.
    num_tokens : int
        Tokens of `text`, over which the mean is taken.
    """

    text: str = field(repr=False)
    mean_log_probability: float | None
    num_tokens: int


class ClientModel(Protocol):
    """Goes on with texts, and says how likely a continuation is."""

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    def describe(self) -> Described:
        """Return everything that decides what is written: model, revision, settings."""
        ...

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        """Whether a prompt and so many tokens behind it fit into the context.

        True where nobody knows, as of an endpoint.
        """
        ...

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        """Return one continuation for each prompt, in order.

        Parameters
        ----------
        prompts : sequence of str
        temperature : float
            At least 0; 0 takes the most likely token each time.
        max_new_tokens : int
            A continuation is cut there; at least 1.
        stop : sequence of str
            A continuation ends before the first of these.
        seeds : sequence of int
            One for each prompt.

        Raises
        ------
        ConfigError
            An argument is out of range, or a prompt is too long.
        TeacherError
            The model cannot be reached, or memory does not suffice.
        """
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return how likely each continuation is after its prompt.

        Parameters
        ----------
        pairs : sequence of (prompt, continuation)
            Neither is empty.

        Returns
        -------
        list of float
            Mean log-probability of the continuation's tokens, in nats per token; the
            end of the text is none of them.

        Raises
        ------
        ConfigError
            The model cannot tell, a text is empty, or a pair is too long.
        TeacherError
            The model cannot be reached, or memory does not suffice.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """How an endpoint is asked; see `fedcot.teacher.endpoint.EndpointWriter`.

    Attributes
    ----------
    model : str
        As the endpoint names it; empty: the only one it lists.
    api : str
        ``chat`` or ``completions``, for sampling.
    concurrency, retries, timeout, requests_per_minute
        Requests at a time; tries of one beyond the first; seconds; 0 for no limit.
    """

    model: str = ""
    api: str = "chat"
    concurrency: int = 8
    retries: int = 8
    timeout: float = 120.0
    requests_per_minute: float = 0.0


def configured_client_model(
    source: str,
    *,
    role: Role = "teacher",
    options: ModelOptions | None = None,
    batch_size: int = 16,
    endpoint: EndpointSettings | None = None,
) -> ClientModel:
    """Return the model that a setting names.

    Parameters
    ----------
    source : str
        A local folder, a Hugging Face id, the URL of an OpenAI-compatible server, or
        ``builtin`` with a role of the in-context pair.
    role : str
        The setting that names it, for errors; or the built-in model that is meant.
    options : ModelOptions, optional
        How a model in this process is loaded.
    batch_size : int
        Texts for each forward pass of it.
    endpoint : EndpointSettings, optional
        How a server is asked.

    Raises
    ------
    ConfigError
        There is no such model, or the URL is refused.
    """
    if source == BUILTIN and role not in IN_CONTEXT_ROLES:
        raise ConfigError(
            f"`{role}` must be a model that learns from examples in its prompt, found "
            f"`builtin`, and of the built-in ones only {', '.join(IN_CONTEXT_ROLES)} "
            "do; pass one of these roles, or another model."
        )
    # Imported where needed: torch and `openai` take seconds, and a run needs one.
    if is_endpoint(source):
        from fedcot.social.endpoint_model import EndpointModel

        return EndpointModel(source, endpoint or EndpointSettings())
    from fedcot.social.local_model import LocalModel

    return LocalModel(source, role=role, options=options, batch_size=batch_size)


def check_sampling(
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    seeds: Sequence[int],
) -> None:
    """Refuse arguments of `ClientModel.sample` that make no sense.

    Raises
    ------
    ConfigError
        The temperature is negative or no number, nothing may be written, a prompt is
        empty, or seeds and prompts differ in number.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigError(
            f"`temperature` must be a number of at least 0, found {temperature}; 0 "
            "takes the most likely token."
        )
    if max_new_tokens < 1:
        raise ConfigError(
            f"`max-new-tokens` must be at least 1, found {max_new_tokens}; raise it."
        )
    if not all(prompts):
        raise ConfigError(
            f"`prompts` must hold texts to go on from, found {prompts.count('')} of "
            f"{len(prompts)} empty; a prompt ends in a cue at least."
        )
    if len(seeds) != len(prompts):
        raise ConfigError(
            f"`seeds` must hold one seed for each prompt, found {len(seeds)} for "
            f"{len(prompts)} prompts; derive one for each."
        )


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse pairs of `ClientModel.score` without a prompt or a continuation.

    The first token of a text has no probability that all models agree on.

    Raises
    ------
    ConfigError
        A text is empty.
    """
    empty = sum(not prompt or not continuation for prompt, continuation in pairs)
    if empty:
        raise ConfigError(
            "`pairs` must hold a prompt and a continuation each, found "
            f"{empty} of {len(pairs)} with an empty text; leave them out."
        )

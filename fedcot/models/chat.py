"""Prompts as a chat, where the tokenizer brings a template for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from fedcot.errors import ConfigError
from fedcot.plain_text import valid_unicode

if TYPE_CHECKING:
    from fedcot.models.loading import LoadedModel
    from fedcot.tasks.task import TeacherPrompt

Message = dict[str, str]


def has_chat(loaded: LoadedModel) -> bool:
    """Whether prompts go through a chat template."""
    template = getattr(loaded.tokenizer, "chat_template", None)
    return bool(template) and loaded.options.chat_template == "auto"


def chat_ids(loaded: LoadedModel, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a chat up to where the model's next turn begins.

    A template that knows no system role gets the instruction in front of the first
    question. Models that can think aloud are asked not to: the rationale is the answer.

    Raises
    ------
    ConfigError
        The template refuses these messages.
    """
    try:
        return _templated(loaded, list(messages))
    except jinja2.TemplateError as error:
        merged = _without_system(messages)
        if merged == list(messages):
            raise _refused(loaded, error) from error
    try:
        return _templated(loaded, merged)
    except jinja2.TemplateError as error:
        raise _refused(loaded, error) from error


def teacher_ids(loaded: LoadedModel, prompt: TeacherPrompt) -> list[int]:
    """Return the ids of a teacher's prompt: a chat where it can be one, else a text."""
    from fedcot.models.sequences import text_ids

    if has_chat(loaded):
        return chat_ids(loaded, prompt.messages)
    return text_ids(loaded, prompt.text)


def _templated(loaded: LoadedModel, messages: list[Message]) -> list[int]:
    ids: Any = loaded.tokenizer.apply_chat_template(
        [{**turn, "content": valid_unicode(turn["content"])} for turn in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        enable_thinking=False,
    )
    return list(ids)


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Put a system message in front of the first user's turn."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    first = messages[1]
    content = f"{messages[0]['content']}\n\n{first['content']}"
    return [{**first, "content": content}, *messages[2:]]


def _refused(loaded: LoadedModel, error: jinja2.TemplateError) -> ConfigError:
    # The message of a template is public; the messages given to it may not be.
    return ConfigError(
        f"`chat-template` must fit the prompts, found that the template of "
        f"{loaded.source!r} refuses them ({type(error).__name__}); pass "
        "`-c chat-template=none`."
    )

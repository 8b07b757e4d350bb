"""Templates as data: jinja2 in a sandbox, checked before anything is read with them.

A template may fill in values, choose (``if``), repeat (``for``) and pass a value
through one of `FILTERS`. It cannot call, import, include or define anything: what is
not on the list of allowed syntax is refused, so that what a template can see is exactly
the names in it, and those are checked against the names it may use.

Filters beside jinja2's own:

``lettered``
    a list of choices as ``(a) first``, ``(b) second``, one a line; an empty choice is
    left out, the others keep their letter.
``before(mark)``, ``after(mark)``
    the text before the first, or behind the last, place where a mark stands; nothing
    stands behind a mark that is not there.
``without_marks``
    the text without calculator marks such as ``<<48/2=24>>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fedcot.errors import ConfigError

FILTERS: Final = (
    "after",
    "before",
    "capitalize",
    "default",
    "first",
    "int",
    "join",
    "last",
    "length",
    "lettered",
    "list",
    "lower",
    "replace",
    "select",
    "string",
    "title",
    "trim",
    "upper",
    "without_marks",
)
_SYNTAX: Final = (
    nodes.And,
    nodes.Assign,
    nodes.Compare,
    nodes.Concat,
    nodes.CondExpr,
    nodes.Const,
    nodes.Filter,
    nodes.For,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.Keyword,
    nodes.List,
    nodes.Name,
    nodes.Neg,
    nodes.Not,
    nodes.Operand,
    nodes.Or,
    nodes.Output,
    nodes.Slice,
    nodes.Template,
    nodes.TemplateData,
    nodes.Test,
    nodes.Tuple,
)
_MARKS: Final = re.compile(r"<<[^<>\n]*>>")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
MAX_CHOICES: Final = len(_LETTERS)


@dataclass(frozen=True)
class Compiled:
    """A template that was checked, with the names that it uses."""

    names: frozenset[str]
    template: Template
    where: str = "a template"

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text for some values.

        Raises
        ------
        ConfigError
            A value is missing or not of the kind that the template needs.
        """
        try:
            return self.template.render(values)
        # The text of such an error may quote a value, which may be private.
        except (TemplateError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.where} must fit the values that it is given, found "
                f"{type(error).__name__}; correct the template."
            ) from None


def is_template(text: str) -> bool:
    """Whether a value of a mapping is a template rather than the name of a column."""
    return "{{" in text or "{%" in text


def compile_template(
    text: str, where: str, allowed: Sequence[str] | None = None
) -> Compiled:
    """Return a template that uses allowed syntax and allowed names only.

    Parameters
    ----------
    text : str
        jinja2.
    where : str
        File and key, for the error.
    allowed : sequence of str, optional
        The names it may use; without it, every name is a column of the data.

    Raises
    ------
    ConfigError
        It is no jinja2, or it uses a name or a piece of syntax that it may not.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
        # Texts have methods, and nothing else that a template could want.
        _check_syntax(tree, where, attributes=allowed is None)
        names = frozenset(meta.find_undeclared_variables(tree))
        if allowed is not None:
            _check_names(names, where, allowed)
        return Compiled(names, _ENVIRONMENT.from_string(text), where)
    except (TemplateError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{where} must be a jinja2 template, found an error in it ({reason}); "
            "correct the template."
        ) from error


def letter(index: int) -> str:
    """Return the letter of a choice, from 0 on."""
    return _LETTERS[index]


def _check_names(names: Iterable[str], where: str, allowed: Sequence[str]) -> None:
    for name in sorted(names):
        if name not in allowed:
            may = ", ".join(f"`{x}`" for x in allowed) or "no name, only public text"
            raise ConfigError(
                f"{where} must use nothing but {may}, because a template sees only "
                "what is public, perturbed or stays with the client, found "
                f"`{name}`; take it out of the template."
            )


def _check_syntax(tree: nodes.Template, where: str, *, attributes: bool) -> None:
    pending: list[nodes.Node] = [tree]
    while pending:
        node = pending.pop()
        found = ""
        if not isinstance(node, _SYNTAX):
            found = type(node).__name__.lower()
        elif isinstance(node, nodes.Filter) and node.name not in FILTERS:
            found = f"the filter {node.name}"
        elif isinstance(node, nodes.Name) and node.name in ("self", "caller"):
            found = node.name
        elif isinstance(node, nodes.Getattr) and (
            node.attr.startswith("_") or not (attributes or _is_loop(node.node))
        ):
            found = node.attr
        elif isinstance(node, nodes.Getitem) and _is_hidden(node.arg):
            found = "an item whose name begins with _"
        if found:
            raise ConfigError(
                f"{where} must fill in, choose and repeat values only, found "
                f"`{found}`; the filters are {', '.join(FILTERS)}."
            )
        pending.extend(node.iter_child_nodes())


def _is_loop(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "loop"


def _is_hidden(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and str(node.value).startswith("_")


def _lettered(choices: Iterable[str]) -> str:
    pairs = zip(_LETTERS, choices, strict=False)
    return "\n".join(f"({letter}) {choice}" for letter, choice in pairs if choice)


def _before(text: str, mark: str) -> str:
    return str(text).partition(mark)[0].strip()


def _after(text: str, mark: str) -> str:
    _, found, behind = str(text).rpartition(mark)
    return behind.strip() if found else ""


def _without_marks(text: str) -> str:
    return _MARKS.sub("", str(text))


def _environment() -> ImmutableSandboxedEnvironment:
    # Escapes are for HTML; `None` is a value that a row does not have.
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.globals.clear()
    own = {
        "lettered": _lettered,
        "before": _before,
        "after": _after,
        "without_marks": _without_marks,
    }
    environment.filters.update(own)
    return environment


_ENVIRONMENT: Final = _environment()

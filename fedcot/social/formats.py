"""The formats of the paper's tasks, and that of the built-in world.

Paper: https://arxiv.org/abs/2312.11441, table 5. A format is a template: writing,
asking and reading all follow from it, so that they cannot disagree. Reading is strict,
since what is read becomes a part of other people's prompts.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from fedcot.data.prompts import ANSWER, HINT, MARKERS, QUESTION, RATIONALE
from fedcot.errors import ConfigError
from fedcot.evaluation.arithmetic import NUMBER
from fedcot.evaluation.extraction import extract, read_answer, same_answer
from fedcot.plain_text import cut
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat

BLANK: Final = "____"
_MARK: Final = "####"
_BLANK_LINE: Final = "\n\n"
_ONE_NUMBER: Final = re.compile(rf"-?[$£€¥]?{NUMBER}")
_ENDS: Final = string.punctuation
# Stand for the other parts while a question is tried.
_SAMPLE_NUMBER, _SAMPLE_WORD = "1", "word"


@dataclass(frozen=True, slots=True)
class TemplateFormat:
    r"""A format of the paper's table 5; see `DemonstrationFormat`.

    Attributes
    ----------
    name : str
    template : str
        Has ``{question}`` and ``{answer}``. With ``{reasoning}`` every demonstration
        has steps. With ``{context}`` a question has two lines, of which the first is
        the context. All parts but the steps have one line.
    kind : str
        Of the answers: ``label``, ``word`` or ``numeric``.
    labels : tuple of str
        For ``label`` only.
    stop : tuple of str
    separator : str
    reserved : tuple of str
        What no part may hold, since it is a part of the template within a line.
    has_blank : bool
        Whether a question has exactly one `BLANK`.
    """

    name: str
    template: str
    kind: str
    labels: tuple[str, ...] = ()
    stop: tuple[str, ...] = (_BLANK_LINE,)
    separator: str = _BLANK_LINE
    reserved: tuple[str, ...] = ()
    has_blank: bool = False

    @property
    def has_reasoning(self) -> bool:
        """Whether demonstrations show steps."""
        return "{reasoning}" in self.template

    @property
    def opening(self) -> str:
        """What stands before the first part."""
        return _pieces(self.template)[0][0].rstrip()

    def write(self, demonstration: Demonstration) -> str:
        """See `DemonstrationFormat.write`."""
        text = self._written(demonstration)
        if self.read(text) != demonstration:
            raise _unfit(self.name, "demonstration")
        return text

    def ask(self, question: str) -> str:
        """See `DemonstrationFormat.ask`."""
        answer = _SAMPLE_NUMBER if self.kind == "numeric" else _SAMPLE_WORD
        answer = self.labels[0] if self.labels else answer
        steps = _SAMPLE_WORD if self.has_reasoning else ""
        tried = Demonstration(question, answer, steps)
        text = self._written(tried)
        if self.read(text) != tried:
            raise _unfit(self.name, "question")
        behind = f"{steps}\n{_MARK} {answer}" if steps else answer
        return text.removesuffix(behind).rstrip()

    def read(self, text: str) -> Demonstration | None:
        """See `DemonstrationFormat.read`."""
        text = text.strip()
        match = _pattern(self.template).fullmatch(text)
        if match is None or _holds(text[len(self.opening) :], self.stop):
            return None
        values = {name: value.lstrip() for name, value in match.groupdict().items()}
        for (_, name), (following, _) in zip(
            _pieces(self.template), [*_pieces(self.template)[1:], ("", "")], strict=True
        ):
            # A blank before what stands on the same line belongs to the part: words
            # with random insertions may end in one.
            if not following.startswith(" "):
                values[name] = values[name].rstrip()
        if not self._is_fit(values):
            return None
        question = values["question"]
        if "context" in values:
            question = f"{values['context']}\n{question}"
        return Demonstration(question, values["answer"], values.get("reasoning", ""))

    def read_answer(self, text: str) -> str | None:
        """See `DemonstrationFormat.read_answer`.

        Of an answer with steps it is the number behind ``####``, of the others the
        first line, in the spelling of the labels.
        """
        text = cut(text, self.stop).strip()
        if self.has_reasoning:
            _, mark, behind = text.partition(_MARK)
            return extract("numeric", mark + behind, strict=True) if mark else None
        line = text.partition("\n")[0]
        if self.labels:
            return read_answer("label", line, labels=self.labels)
        words = line.split()
        return (words[0].rstrip(_ENDS) or None) if len(words) == 1 else None

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether two numbers have one value, or two texts are the same.

        Case does not count, nor punctuation behind a word.
        """
        if self.kind == "numeric":
            # Not by `same_answer`: the examples of a client may hold `$3`.
            first, second = (read_answer("numeric", text) for text in (answer, gold))
            return first is not None and first == second
        return same_answer("label", answer.rstrip(_ENDS), gold.rstrip(_ENDS))

    def _written(self, demonstration: Demonstration) -> str:
        values = {
            "question": demonstration.question,
            "answer": demonstration.answer,
            "reasoning": demonstration.reasoning,
        }
        if "{context}" in self.template:
            values["context"], _, values["question"] = demonstration.question.partition(
                "\n"
            )
        return "".join(
            literal + values[name] for literal, name in _pieces(self.template)
        )

    def _is_fit(self, values: dict[str, str]) -> bool:
        answer = values["answer"]
        if self.kind == "label":
            is_answer = answer in self.labels
        elif self.kind == "numeric":
            is_answer = _ONE_NUMBER.fullmatch(answer) is not None
        else:
            is_answer = len(answer.split()) == 1
        lines = [line for value in values.values() for line in value.split("\n")]
        marks = _line_marks(self.template)
        return (
            is_answer
            and all(line.strip() and line.splitlines() == [line] for line in lines)
            and not any(line.lstrip().startswith(marks) for line in lines)
            and not any(_holds(value, self.reserved) for value in values.values())
            and (not self.has_blank or values["question"].count(BLANK) == 1)
        )


@dataclass(frozen=True, slots=True)
class WorldFormat:
    """The format of the built-in world and its tasks with hidden rules.

    ``question: … rationale: … answer: …`` with single spaces, as
    `fedcot.models.in_context_data` trains models on it; without the rationale where
    there are no steps.

    Attributes
    ----------
    name : str
    labels : tuple of str
        Every possible answer of the task at hand, if it is one of labels.
    """

    name: str = "world"
    labels: tuple[str, ...] = ()
    has_reasoning: bool = True
    # A model of the built-in world may end its examples by saying the rule.
    stop: tuple[str, ...] = (QUESTION, HINT)
    separator: str = " "
    opening: str = QUESTION

    def write(self, demonstration: Demonstration) -> str:
        """See `DemonstrationFormat.write`."""
        steps = demonstration.reasoning
        middle = f"{RATIONALE} {steps} " if steps else ""
        asked = f"{QUESTION} {demonstration.question}"
        text = f"{asked} {middle}{ANSWER} {demonstration.answer}"
        if self.read(text) != demonstration:
            raise _unfit(self.name, "demonstration")
        return text

    def ask(self, question: str) -> str:
        """See `DemonstrationFormat.ask`."""
        answer = self.labels[0] if self.labels else _SAMPLE_WORD
        tried = Demonstration(question, answer)
        if self.read(f"{QUESTION} {question} {ANSWER} {answer}") != tried:
            raise _unfit(self.name, "question")
        return f"{QUESTION} {question}"

    def read(self, text: str) -> Demonstration | None:
        """See `DemonstrationFormat.read`; an answer is one word."""
        text = text.strip()
        if not text.startswith(QUESTION):
            return None
        # A tokenizer may write the first word right behind the opening.
        parts = _marked_parts(text.removeprefix(QUESTION))
        if parts is None or _holds(text.removeprefix(QUESTION), self.stop):
            return None
        marks, values = parts
        if marks not in ((ANSWER,), (RATIONALE, ANSWER)) or not all(values):
            return None
        answer = values[-1]
        if len(answer.split()) != 1 or (self.labels and answer not in self.labels):
            return None
        return Demonstration(values[0], answer, values[1] if len(values) == 3 else "")

    def read_answer(self, text: str) -> str | None:
        """See `DemonstrationFormat.read_answer`; steps may stand before the answer."""
        read = self.read(f"{QUESTION} {_SAMPLE_WORD} {cut(text, self.stop).strip()}")
        # What the student added to the question is no answer to it.
        is_clean = read is not None and read.question == _SAMPLE_WORD
        return read.answer if read is not None and is_clean else None

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether the two are the same text but for case."""
        return same_answer("label", answer, gold)


SPAM_LABELS: Final = ("spam", "not spam")
FORMATS: Final[tuple[DemonstrationFormat, ...]] = (
    TemplateFormat(
        "sms-spam",
        "Text: {question}\nClass: {answer}",
        "label",
        labels=SPAM_LABELS,
        stop=(_BLANK_LINE, "\nText:"),
    ),
    TemplateFormat(
        "sms-spam-classes",
        'Text: {question}\nClass ("spam" or "not spam"): {answer}',
        "label",
        labels=SPAM_LABELS,
        stop=(_BLANK_LINE, "\nText:"),
    ),
    TemplateFormat(
        "lambada",
        "Fill in blank:\n{question} -> {answer}",
        "word",
        stop=(_BLANK_LINE, "\nFill in blank:"),
        reserved=("->",),
        has_blank=True,
    ),
    TemplateFormat(
        "boolq",
        "{context}\nQuestion: {question}\nAnswer: {answer}",
        "label",
        labels=("yes", "no"),
    ),
    TemplateFormat(
        "gsm8k",
        "Question: {question}\nAnswer: {reasoning}\n#### {answer}",
        "numeric",
        stop=(_BLANK_LINE, "\nQuestion:"),
        reserved=(_MARK,),
    ),
    TemplateFormat(
        "random-insertion",
        "{question} = {answer}",
        "word",
        stop=("\n",),
        reserved=(" = ",),
    ),
    WorldFormat(),
)


def format_named(name: str, *, labels: tuple[str, ...] = ()) -> DemonstrationFormat:
    """Return the format with a name.

    Parameters
    ----------
    name : str
    labels : tuple of str
        Every possible answer of the task at hand, for ``world``; other formats have
        their own.

    Raises
    ------
    ConfigError
        There is none, or it has other labels.
    """
    for form in FORMATS:
        if form.name == name and isinstance(form, WorldFormat):
            return replace(form, labels=labels)
        if form.name == name:
            if labels not in ((), form.labels):
                raise ConfigError(
                    f"`labels` must be those of the format `{name}` "
                    f"({', '.join(form.labels) or 'none'}), found {len(labels)} "
                    "others; leave them out."
                )
            return form
    names = ", ".join(form.name for form in FORMATS)
    raise ConfigError(
        f"`format` must be one of {names}, found {name!r}; choose one of them."
    )


def _unfit(name: str, part: str) -> ConfigError:
    """Return the error for what a format cannot hold, without any of its text."""
    return ConfigError(
        f"`{part}` must be readable in the format `{name}`, found one that is not; "
        "leave it out, or take out line breaks, blanks at its ends and markers."
    )


def _holds(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


@cache
def _pieces(template: str) -> tuple[tuple[str, str], ...]:
    """Return pairs of a literal and the name of the part behind it."""
    return tuple(
        (literal, name or "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = []
    for literal, name in _pieces(template):
        inside = r"[\s\S]*" if name == "reasoning" else r"[^\n]*"
        # A model may leave out the blank behind a marker.
        pieces.append(f"{re.escape(literal.rstrip(' '))}(?P<{name}>{inside})")
    return re.compile("".join(pieces))


@cache
def _line_marks(template: str) -> tuple[str, ...]:
    """Return what begins a line of the template, other than a part."""
    literals = [literal for literal, _ in _pieces(template)]
    lines = [line.strip() for literal in literals for line in literal.split("\n")]
    return tuple(line for line in lines if line and f" {line} " not in literals)


def _marked_parts(text: str) -> tuple[tuple[str, ...], list[str]] | None:
    """Split a text at the markers of the built-in world.

    Returns
    -------
    tuple of (tuple of str, list of str) or None
        The markers in order, and the texts before, between and behind them. None if a
        word holds a marker and more.
    """
    marks: list[str] = []
    parts: list[list[str]] = [[]]
    for word in text.split():
        if word in MARKERS:
            marks.append(word)
            parts.append([])
        elif _holds(word, MARKERS):
            return None
        else:
            parts[-1].append(word)
    return tuple(marks), [" ".join(part) for part in parts]

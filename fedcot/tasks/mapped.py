"""The task of a mapping: its templates and extractors, as any task has them."""

from __future__ import annotations

from collections.abc import Mapping as Values
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

from fedcot.data.schema import Rationale, Record
from fedcot.errors import ConfigError
from fedcot.evaluation import extraction
from fedcot.evaluation.arithmetic import canonical
from fedcot.evaluation.equations import wrong_equations
from fedcot.plain_text import cut
from fedcot.tasks.mapping import Mapping
from fedcot.tasks.task import TeacherPrompt
from fedcot.tasks.templates import compile_template, letter

_PREDICTION_TOKENS: Final = {
    "numeric": 16,
    "equation": 48,
    "multiple-choice": 8,
    "yes-no": 8,
    "label": 16,
    "free-text": 64,
}
_SAMPLES: Final = {
    "numeric": "12",
    "equation": "12",
    "multiple-choice": "a",
    "yes-no": "yes",
    "free-text": "the harbour",
}


class MappedTask:
    """See `fedcot.tasks.task.Task`.

    Parameters
    ----------
    mapping : Mapping
        Read and checked by `fedcot.tasks.mapping.load_mapping`.
    """

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.name = mapping.name
        self.hash = mapping.hash
        self.stop = mapping.stop
        self.checks_steps = mapping.checks_arithmetic
        self.prediction_tokens = _PREDICTION_TOKENS[mapping.kind]
        self.fields = tuple(_fields(mapping))
        self._count = mapping.choices.count if mapping.choices else 0
        self._templates = {
            key: compile_template(
                text, f"[templates] `{key}` of the mapping `{mapping.name}`"
            )
            for key, text in mapping.templates.items()
        }
        self._instruction = self._write("instruction")
        self._demonstrations = tuple(
            (
                self._write("user", question=self.question(parts)),
                self._write("completion", rationale=rationale, answer=answer),
            )
            for parts, rationale, answer in self._examples()
        )

    def parts(self, texts: Values[str, str], choices: Sequence[str]) -> tuple[str, ...]:
        """Return the parts of a question in the order of `fields`.

        Parameters
        ----------
        texts : mapping of str to str
            Text of each part but the choices.
        choices : sequence of str
            At most as many as there are slots for; the others are empty.
        """
        padded = [*choices, *[""] * (self._count - len(choices))]
        found: list[str] = []
        for name in self.mapping.order:
            found.extend(padded if name == "choices" else [texts[name]])
        return tuple(found)

    def question(self, parts: Sequence[str]) -> str:
        """Return the text of a question from its parts, raw or perturbed.

        Raises
        ------
        ValueError
            There are more or fewer parts than `fields`.
        """
        if len(parts) != len(self.fields):
            raise ValueError(
                f"a question of `{self.name}` has {len(self.fields)} parts."
            )
        values: dict[str, Any] = {}
        rest = list(parts)
        for name in self.mapping.order:
            count = self._count if name == "choices" else 1
            values[name] = rest[:count] if name == "choices" else rest[0]
            rest = rest[count:]
        return self._templates["question"].render(values).strip()

    def teacher_prompt(self, question: str) -> TeacherPrompt:
        """Return instruction, public demonstrations and the question at hand."""
        user = self._write("user", question=question)
        return TeacherPrompt(self._instruction, self._demonstrations, user)

    def parse_teacher(self, text: str) -> Rationale | None:
        """Return steps and answer, strictly, of what stands before a stop string."""
        return extraction.split_answer(
            self.mapping.kind,
            cut(text, self.stop),
            choices=self._count,
            labels=self.mapping.labels,
        )

    def predict_prompt(self, question: str) -> str:
        """Return the prompt that asks for the answer alone."""
        return self._write("predict", question=question)

    def explain_prompt(self, question: str) -> str:
        """Return the prompt that asks for a rationale that ends in the answer."""
        return self._write("explain", question=question)

    def adapt_prompt(self, perturbed: str, rationale: Rationale, question: str) -> str:
        """Return the prompt that asks to carry a rationale over."""
        text = self.completion(rationale)
        return self._write(
            "adapt", perturbed=perturbed, rationale=text, question=question
        )

    def completion(self, rationale: Rationale) -> str:
        """Return steps, answer phrase and answer."""
        return self._write(
            "completion", rationale=rationale.text, answer=rationale.answer
        )

    def prediction(self, answer: str) -> str:
        """Return the answer as a student writes it without a rationale."""
        return self._write("prediction", answer=answer)

    def parse_completion(self, text: str) -> Rationale | None:
        """Return steps and answer, as `parse_teacher`."""
        return self.parse_teacher(text)

    def parse_prediction(self, text: str) -> str | None:
        """Return the answer if the text is nothing else."""
        return extraction.read_answer(
            self.mapping.kind, text, choices=self._count, labels=self.mapping.labels
        )

    def strict_answer(self, text: str) -> str | None:
        """Return the answer behind the answer phrase, with steps before it or not."""
        return self._extract(text, strict=True)

    def flexible_answer(self, text: str) -> str | None:
        """Return the last thing in the text that looks like an answer."""
        return self._extract(text, strict=False)

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether the two are the same by value, letter or text."""
        return extraction.same_answer(self.mapping.kind, answer, gold)

    def is_valid(self, rationale: Rationale) -> bool:
        """Whether no equation in the steps is false, where the mapping asks for it."""
        return not self.checks_steps or wrong_equations(rationale.text) == 0

    def candidates(self, record: Record) -> tuple[str, ...]:
        """Return the letters of the choices, yes and no, or the labels."""
        if self.mapping.kind == "multiple-choice":
            texts = enumerate(record.choices)
            return tuple(letter(index) for index, text in texts if text)
        if self.mapping.kind == "yes-no":
            return ("yes", "no")
        return self.mapping.labels

    def gold(
        self, value: object, choices: Sequence[str] = (), names: Sequence[str] = ()
    ) -> str | None:
        """Return the one spelling of an answer that stands in the data.

        Parameters
        ----------
        value : object
            Text, number or truth value. For a choice its name, text, letter or place,
            tried in this order; for a label the label or its place.
        choices, names : sequence of str
            Texts of the choices and, where the data has them, their names.

        Returns
        -------
        str or None
            None if it is no answer of this kind.
        """
        kind = self.mapping.kind
        if kind == "multiple-choice":
            return self._choice(value, choices, names)
        if kind == "yes-no" and value in (0, 1, "0", "1"):
            return "yes" if value in (1, "1") else "no"
        if kind == "label" and not isinstance(value, str):
            place = _place(value, self.mapping.first, len(self.mapping.labels))
            return None if place is None else self.mapping.labels[place]
        if kind in ("numeric", "equation") and isinstance(value, int | float):
            return _number(value)
        return self.parse_prediction(str(value))

    def check(self, where: str) -> None:
        """Refuse templates whose answers could not be read back, and bad examples.

        Raises
        ------
        ConfigError
            A completion, a prediction or a demonstration cannot be read strictly.
        """
        for key in ("user", "predict", "explain"):
            if "question" not in self._templates[key].names:
                raise ConfigError(
                    f"{where}: [templates] `{key}` must show the question, found that "
                    "it does not; write `{{ question }}` into it."
                )
            # Whatever fails on a text fails here, not in the midst of a run.
            self._write(key, question="text")
        labels = self.mapping.labels
        sample = labels[0] if labels else _SAMPLES[self.mapping.kind]
        read = self.parse_completion(self.completion(Rationale("First 1.", sample)))
        if read is None or not self.is_right(read.answer, sample):
            raise ConfigError(
                f"{where}: [templates] `completion` must write rationale and answer so "
                "that the strict extractor reads them back, found that it does not; "
                "end it for example in `The answer is {{ answer }}.`"
            )
        if self.parse_prediction(self.prediction(sample)) != sample:
            raise ConfigError(
                f"{where}: [templates] `prediction` must write nothing but the answer, "
                "found that it cannot be read back; use for example `{{ answer }}`."
            )
        for number, (_, rationale, answer) in enumerate(self._examples(), start=1):
            read = self.parse_completion(self.completion(Rationale(rationale, answer)))
            if not answer or read is None or read.answer != answer:
                raise ConfigError(
                    f"{where}: [[demonstrations]] number {number} must have steps and "
                    "an answer that can be read back, found it cannot; correct it."
                )

    def _examples(self) -> list[tuple[tuple[str, ...], str, str]]:
        """Return parts, steps and answer of each demonstration; "" for a bad answer."""
        return [
            (
                self.parts(shown.parts, shown.choices),
                shown.rationale,
                self.gold(shown.answer, shown.choices) or "",
            )
            for shown in self.mapping.demonstrations
        ]

    def _choice(
        self, value: object, choices: Sequence[str], names: Sequence[str]
    ) -> str | None:
        if isinstance(value, str):
            for known in (names, choices):
                if value.strip() in known:
                    return letter(list(known).index(value.strip()))
            read = self.parse_prediction(value)
            if read is not None:
                return read if ord(read) - ord("a") < len(choices) else None
            value = int(value) if value.strip().isdecimal() else None
        place = _place(value, self.mapping.first, len(choices))
        return None if place is None else letter(place)

    def _extract(self, text: str, *, strict: bool) -> str | None:
        return extraction.extract(
            self.mapping.kind,
            cut(text, self.stop),
            strict=strict,
            choices=self._count,
            labels=self.mapping.labels,
        )

    def _write(self, key: str, **values: str) -> str:
        return self._templates[key].render(values)


def _fields(mapping: Mapping) -> list[tuple[str, int]]:
    slots = {name: count for name, _, count in mapping.parts}
    found: list[tuple[str, int]] = []
    for name in mapping.order:
        if name == "choices" and mapping.choices is not None:
            letters = [letter(index) for index in range(mapping.choices.count)]
            found += [(f"choice-{x}", mapping.choices.slots) for x in letters]
        else:
            found.append((name, slots[name]))
    return found


def _place(value: object, first: int, count: int) -> int | None:
    """Return the place from 0 on that a whole number names."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not 0 <= value - first < count:
        return None
    return value - first


def _number(value: float) -> str | None:
    try:
        return None if isinstance(value, bool) else canonical(Fraction(repr(value)))
    except ValueError:  # Infinite, or no number.
        return None

"""The task of the built-in world."""

from collections.abc import Sequence

from fedcot.data import prompts
from fedcot.data.schema import Rationale, Record
from fedcot.settings import WORLD
from fedcot.tasks.task import TeacherPrompt
from fedcot.world.verifier import verify


class WorldTask:
    """See `fedcot.tasks.task.Task`; teacher and student read the same prompts."""

    name = WORLD
    hash = ""  # All of it is code.
    fields: tuple[tuple[str, int], ...] = ()
    stop: tuple[str, ...] = ()
    checks_steps = True
    prediction_tokens = 8

    def question(self, parts: Sequence[str]) -> str:
        """Return the one part there is."""
        (text,) = parts
        return text

    def teacher_prompt(self, question: str) -> TeacherPrompt:
        """Return the `explain` prompt, which the built-in teacher was trained on."""
        return TeacherPrompt("", (), prompts.explain_prompt(question))

    def parse_teacher(self, text: str) -> Rationale | None:
        """Return steps and answer, as `fedcot.data.prompts.parse_completion`."""
        return prompts.parse_completion(text)

    def predict_prompt(self, question: str) -> str:
        """Return the prompt that asks for the answer alone."""
        return prompts.predict_prompt(question)

    def explain_prompt(self, question: str) -> str:
        """Return the prompt that asks for a rationale that ends in the answer."""
        return prompts.explain_prompt(question)

    def adapt_prompt(self, perturbed: str, rationale: Rationale, question: str) -> str:
        """Return the prompt that asks to carry a rationale over."""
        return prompts.adapt_prompt(perturbed, rationale, question)

    def completion(self, rationale: Rationale) -> str:
        """Return steps, marker and answer."""
        return prompts.completion(rationale)

    def prediction(self, answer: str) -> str:
        """Return the answer itself."""
        return answer

    def parse_completion(self, text: str) -> Rationale | None:
        """Return steps and answer; None without exactly one answer of one word."""
        return prompts.parse_completion(text)

    def parse_prediction(self, text: str) -> str | None:
        """Return the one word there is; None if there are more or none."""
        words = text.split()
        return words[0] if len(words) == 1 else None

    def flexible_answer(self, text: str) -> str | None:
        """Return the last word."""
        words = text.split()
        return words[-1] if words else None

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether the two are the same text."""
        return answer == gold

    def is_valid(self, rationale: Rationale) -> bool:
        """Whether every step is true and the last one gives the answer."""
        return verify(rationale.text, rationale.answer).valid

    def candidates(self, record: Record) -> tuple[str, ...]:
        """Return nothing: the answers are numbers and names."""
        return ()

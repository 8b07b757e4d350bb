"""A teacher that runs in this process through `transformers`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcot.data.prompts import explain_prompt, parse_completion
from fedcot.data.schema import Rationale
from fedcot.models.generation import generate_greedy
from fedcot.models.loading import load_model


@dataclass(frozen=True, slots=True)
class Completion:
    """What the teacher wrote, and what could be read from it.

    Attributes
    ----------
    rationale : Rationale or None
        None when the text has no steps or not exactly one answer.
    """

    text: str
    rationale: Rationale | None


class TransformersTeacher:
    """Answers questions greedily, in length-bucketed batches.

    Parameters
    ----------
    source : str
        ``builtin``, a local folder or a Hugging Face id.
    batch_size : int
        Prompts for each forward pass.
    max_new_tokens : int
        A rationale is cut there; a cut one has no answer and is not used.

    Raises
    ------
    ConfigError
        If there is no such model.
    """

    def __init__(
        self, source: str, *, batch_size: int = 64, max_new_tokens: int = 80
    ) -> None:
        self.name = source
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._loaded = load_model(source, "teacher")

    def answer(
        self,
        questions: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Return one completion for each question, in the order of the questions.

        The same question is answered once. Each rationale depends on its own
        question only (R6: never on another record's).
        """
        distinct = list(dict.fromkeys(questions))
        texts = generate_greedy(
            self._loaded.model,
            self._loaded.tokenizer,
            [explain_prompt(question) for question in distinct],
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            on_progress=on_progress,
        )
        written = {
            question: Completion(text, parse_completion(text))
            for question, text in zip(distinct, texts, strict=True)
        }
        return [written[question] for question in questions]

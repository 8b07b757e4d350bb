"""A student whose only knowledge is its prompt, and its answers to questions.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3: the user's input
stands behind what the student learnt, and the continuation is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedcot.errors import ConfigError
from fedcot.evaluation.metrics import correctness
from fedcot.social.client_model import ClientModel
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.instructions import student_prompt
from fedcot.social.messages import PromptScore


class PromptedStudent:
    """Answers questions greedily behind a prompt.

    Parameters
    ----------
    model : ClientModel
        The student's.
    form : DemonstrationFormat
        Of the task.
    max_new_tokens : int
        An answer is cut there.
    """

    def __init__(
        self, model: ClientModel, form: DemonstrationFormat, *, max_new_tokens: int
    ) -> None:
        self._model = model
        self._form = form
        self._max_new_tokens = max_new_tokens

    def correct(
        self,
        instruction: str,
        demonstrations: Sequence[Demonstration],
        questions: Sequence[str],
        answers: Sequence[str],
    ) -> list[bool | None]:
        """Return whether the student is right on each question.

        Parameters
        ----------
        instruction : str
            What the student reads first; may be empty.
        demonstrations : sequence of Demonstration
            Stand behind the instruction; may be empty.
        questions, answers : sequence of str
            One answer for each question, which counts as right.

        Returns
        -------
        list of bool or None
            None where no answer can be read.

        Raises
        ------
        ConfigError
            A prompt is longer than the model's context: leaving examples out would be
            another student.
        TeacherError
            The model cannot be reached, or memory does not suffice.
        ValueError
            There are more or fewer answers than questions.
        """
        prompts = [
            student_prompt(self._form, instruction, demonstrations, question)
            for question in questions
        ]
        self._check_room(prompts, len(demonstrations))
        if not prompts:
            return []
        written = self._model.sample(
            prompts,
            temperature=0.0,
            max_new_tokens=self._max_new_tokens,
            stop=self._form.stop,
            # Greedy decoding draws nothing.
            seeds=list(range(len(prompts))),
        )
        found: list[bool | None] = []
        for sampled, gold in zip(written, answers, strict=True):
            answer = self._form.read_answer(sampled.text)
            found.append(None if answer is None else self._form.is_right(answer, gold))
        return found

    def _check_room(self, prompts: Sequence[str], count: int) -> None:
        size = self._max_new_tokens
        long = sum(not self._model.fits(p, max_new_tokens=size) for p in prompts)
        if long:
            raise ConfigError(
                "`example-counts` must leave room for each question in the context of "
                f"`prompted-student`, found {long} of {len(prompts)} prompts too long "
                f"with {count} examples; leave out the largest numbers, or lower "
                "max-new-tokens."
            )


def prompt_score(student: str, correct: Sequence[bool | None]) -> PromptScore:
    """Return what `PromptedStudent.correct` found as it travels.

    An answer that cannot be read is wrong.
    """
    return PromptScore(
        student=student,
        num_records=len(correct),
        correct=correctness(hit is True for hit in correct),
        num_answered=sum(hit is not None for hit in correct),
    )

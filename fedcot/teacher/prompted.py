"""A teacher that is asked by prompts, with what it answered before at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fedcot.errors import TeacherError
from fedcot.tasks.task import Task, TeacherPrompt
from fedcot.teacher.cache import AnswerCache, answer_key, prompt_hash
from fedcot.teacher.teacher import (
    Completion,
    Described,
    Progress,
    Usage,
    Writer,
    Written,
)

TOKENS_PER_PRICE = 1_000_000
# A run writes a line for every report.
MOST_REPORTS = 100


class PromptedTeacher:
    """Answers questions by a writer; see `fedcot.teacher.teacher.Teacher`.

    Each distinct prompt is asked once, in a request of its own, so that a rationale
    depends on its own question only (R6). What arrives is in the cache before anything
    else happens with it. A completion without text is not kept there: a server that
    was out of order would have spoilt its prompt for ever.

    Parameters
    ----------
    task : Task
        Writes the prompts and reads the completions.
    writer : Writer
        Writes the completions.
    cache : AnswerCache, optional
        What was answered before, by any run.
    prices : (float, float)
        Of a million prompt tokens and of a million written ones.
    """

    def __init__(
        self,
        task: Task,
        writer: Writer,
        cache: AnswerCache | None = None,
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.name = writer.name
        self._task = task
        self._writer = writer
        self._cache = cache
        self._prices = prices
        self._usage = Usage()
        self._served_by: set[str] = set()

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._usage

    def describe(self) -> Described:
        """Return what the writer says, and who has answered so far if that is known."""
        described = dict(self._writer.describe())
        if self._served_by:
            described["served_by"] = ", ".join(sorted(self._served_by))
        return described

    def for_released(self) -> PromptedTeacher:
        """Return itself: a model knows its prompt only."""
        return self

    def answer(
        self, questions: Sequence[str], *, on_progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion for each question, in the order of the questions.

        Parameters
        ----------
        questions : sequence of str
            As `Task.question` writes them.
        on_progress : callable, optional
            Called with (distinct prompts answered, distinct prompts), those that the
            cache answers first.

        Raises
        ------
        ConfigError, TeacherError
            As the writer's; what had been answered is in the cache.
        """
        asked = {
            question: self._task.teacher_prompt(question)
            for question in dict.fromkeys(questions)
        }
        hashes = {question: prompt_hash(prompt) for question, prompt in asked.items()}
        prompts = {hashes[question]: prompt for question, prompt in asked.items()}
        written = self._written(prompts, _seldom(on_progress, len(prompts)))
        read = {
            name: Completion(
                one.text, self._task.parse_teacher(one.text), name, one.served_by
            )
            for name, one in written.items()
        }
        return [read[hashes[question]] for question in questions]

    def _written(
        self, prompts: dict[str, TeacherPrompt], report: Callable[[int], None]
    ) -> dict[str, Written]:
        """Return the completion of each prompt by its hash."""
        if not prompts:
            return {}
        described = self._writer.describe()
        keys = {
            name: answer_key(prompt, self._task.stop, described)
            for name, prompt in prompts.items()
        }
        written: dict[str, Written] = {}
        for name, key in keys.items():
            known = None if self._cache is None else self._cache.get(key)
            if known is not None:
                written[name] = known
                self._count(known, is_cached=True)
        missing = [name for name in prompts if name not in written]
        if written:
            report(len(written))

        def keep(index: int, one: Written) -> None:
            name = missing[index]
            written[name] = one
            if self._cache is not None and one.text.strip():
                # Another process may have been faster; then both use its completion.
                written[name] = self._cache.put(keys[name], one)
            self._count(one, is_cached=False)
            report(len(written))

        if missing:
            try:
                self._writer.write(
                    [prompts[name] for name in missing],
                    stop=self._task.stop,
                    on_written=keep,
                )
            except TeacherError as error:
                raise self._with_count(error, len(written), len(prompts)) from None
        return written

    def _count(self, one: Written, *, is_cached: bool) -> None:
        if one.served_by:
            self._served_by.add(one.served_by)
        usage = replace(
            self._usage,
            prompts=self._usage.prompts + 1,
            cut=self._usage.cut + one.is_cut,
            empty=self._usage.empty + (not one.text.strip()),
        )
        if is_cached:
            self._usage = replace(usage, cached=usage.cached + 1)
            return
        given = self._usage.prompt_tokens + one.prompt_tokens
        made = self._usage.completion_tokens + one.completion_tokens
        price_in, price_out = self._prices
        self._usage = replace(
            usage,
            prompt_tokens=given,
            completion_tokens=made,
            cost=(given * price_in + made * price_out) / TOKENS_PER_PRICE,
        )

    def _with_count(self, error: TeacherError, done: int, total: int) -> TeacherError:
        count = f"{done} of {total} prompts are answered"
        if self._cache is None:
            return TeacherError(f"{error} {count}, and lost: no cache is in use.")
        return TeacherError(
            f"{error} {count} and kept in `{self._cache.path}`; `fedcot resume` asks "
            "for the rest only."
        )


def _seldom(on_progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return what reports progress at most `MOST_REPORTS` times, the end included."""
    step = max(1, -(-total // MOST_REPORTS))

    def report(done: int) -> None:
        if on_progress is not None and (done % step == 0 or done == total):
            on_progress(done, total)

    return report

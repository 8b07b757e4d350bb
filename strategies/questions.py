"""The teacher's side: which prompts it answers, and the answers it has given."""

from collections.abc import Callable, Mapping, Sequence

from fedcot.arms import RAW_SOURCE
from fedcot.config import RunConfig
from fedcot.data.schema import Record
from fedcot.node_pairs import used_indices
from fedcot.plain_text import valid_unicode
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.records import PerturbReply
from fedcot.rows import SentRationale
from fedcot.seeding import numpy_generator
from fedcot.tasks.task import Task
from fedcot.teacher.teacher import Completion, Teacher

Prompt = tuple[str, str, str]  # source, key, question
Prompts = Sequence[Prompt]


class AnswerBook:
    """Answers all clients' prompts together and each distinct question once.

    Parameters
    ----------
    teacher : Teacher
        A rationale depends on its own question only. Released and public questions go
        to `Teacher.for_released`.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._released = teacher.for_released()
        self._known: dict[tuple[int, str], Completion] = {}

    def answer(
        self,
        prompts: Mapping[int, Prompts],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, tuple[SentRationale, ...]]:
        """Return the rationales of each partition's prompts."""
        asked: dict[int, dict[str, None]] = {}
        for partition in sorted(prompts):
            for source, _, question in prompts[partition]:
                place = self._place(source, question)
                if place not in self._known:
                    asked.setdefault(place[0], {})[question] = None
        for teacher in (self.teacher, self._released):
            questions = list(asked.pop(id(teacher), ()))
            if questions:
                given = teacher.answer(questions, on_progress=on_progress)
                for question, completion in zip(questions, given, strict=True):
                    self._known[id(teacher), question] = completion
        return {
            partition: tuple(self._sent(*prompt) for prompt in prompts[partition])
            for partition in sorted(prompts)
        }

    def completion(self, source: str, question: str) -> Completion:
        """Return what was answered to a question of a source."""
        return self._known[self._place(source, question)]

    def _place(self, source: str, question: str) -> tuple[int, str]:
        teacher = self.teacher if source == RAW_SOURCE else self._released
        return id(teacher), question

    def _sent(self, source: str, key: str, question: str) -> SentRationale:
        rationale = self.completion(source, question).rationale
        return SentRationale(
            source=source,
            key=key,
            parsed=rationale is not None,
            text=valid_unicode(rationale.text) if rationale else "",
            answer=valid_unicode(rationale.answer) if rationale else "",
        )


def prompts_of(reply: PerturbReply, vocabulary: Vocabulary, task: Task) -> list[Prompt]:
    """Return what a client asked, as text."""
    released = [
        (
            "fedcot",
            prompt.record_key,
            task.question(vocabulary.decode_parts(prompt.ids)),
        )
        for prompt in reply.prompts
    ]
    raw = [
        ("distil", prompt.record_key, prompt.question) for prompt in reply.raw_prompts
    ]
    return released + raw


def bank_prompts(
    bank: Sequence[Record],
    config: RunConfig,
    *,
    partition_id: int,
    num_records: int,
    server_round: int,
) -> list[Prompt]:
    """Return a client's share of the public bank in a round.

    Drawn by seed alone. Each record of the client stands for one question of the bank,
    so the control gets as many questions as the client asks, in a round and in all,
    and gets one again when the client asks one again.

    Parameters
    ----------
    num_records : int
        Training records of the client; public.
    """
    rounds = used_indices(config, partition_id, server_round, num_records)
    place: dict[int, int] = {}
    for index in (index for indices in rounds for index in indices):
        place.setdefault(index, len(place))
    order = numpy_generator(config.seed, "bank", partition_id).permutation(len(bank))
    chosen = [bank[order[place[index] % len(bank)]] for index in rounds[-1]]
    return [("random-bank", record.question, record.question) for record in chosen]

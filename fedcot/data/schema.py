"""What a client holds, and what comes back for it."""

from dataclasses import dataclass

from fedcot.plain_text import normalize


@dataclass(frozen=True, slots=True)
class Record:
    """One private question of a client, with its gold answer and its domain.

    Attributes
    ----------
    question : str
        All that a teacher would be shown without privacy: for multiple choice the
        choices are part of it.
    answer : str
        As the task's extractor writes it, for example ``12``, ``b`` or ``yes``.
    domain : str
        Task, topic or family; never sent.
    fields : tuple of str
        The parts that `question` was made of, in the order of the task's layout; empty
        where the question has one part only.
    choices : tuple of str
        Texts of the choices in order; empty for other tasks.
    completion : str
        What a teacher or a person wrote for this question, where the data set carries
        it; empty otherwise.
    """

    question: str
    answer: str
    domain: str
    fields: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    completion: str = ""

    @property
    def identity(self) -> str:
        """What makes it the same record in every run: the words of its parts.

        Not how a mapping writes them: another template, or another order of the parts,
        must not make it a new record, which would be drawn and charged once more.
        """
        if not self.fields:
            return self.question
        return "\x1f".join(sorted(filter(None, map(normalize, self.fields))))

    @property
    def parts(self) -> tuple[str, ...]:
        """The texts that are perturbed one by one."""
        return self.fields or (self.question,)


@dataclass(frozen=True, slots=True)
class Rationale:
    """A rationale that could be parsed: its steps as text, and its answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Partition:
    """The records of one client; the splits never share a question."""

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    deep_test: tuple[Record, ...] = ()

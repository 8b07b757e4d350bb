"""How long the texts of a run get, in tokens of the model that reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot.config import RunConfig
from fedcot.errors import FedcotError
from fedcot.teacher_source import is_local

if TYPE_CHECKING:
    from fedcot.models.sources import Role

# For models whose tokenizer is not on this machine; English has 4 or more.
_CHARACTERS_PER_TOKEN: Final = 3.0
_SAMPLE: Final = 200
# A perturbed question may be longer in tokens than the original one.
_SLACK: Final = 1.2


@dataclass(frozen=True, slots=True)
class Lengths:
    """Longest texts of a run, in tokens of the model that reads them.

    Attributes
    ----------
    prompt, target, prediction : int
        Of the student: prompt, rationale with answer, answer alone.
    teacher_prompt : int
    """

    prompt: int
    target: int
    prediction: int
    teacher_prompt: int


def lengths_of(config: RunConfig, num_supernodes: int) -> Lengths:
    """Return the longest texts of a run, from a sample of its first client's records.

    Where the data or a tokenizer is not on this machine, the longest that the settings
    allow are taken.
    """
    limit = config.max_sequence_tokens
    target = min(limit // 2, config.max_new_tokens + 1)
    prediction = target
    prompt = teacher = limit - target
    try:
        from fedcot.data.partition import load_partition
        from fedcot.tasks.registry import configured_task

        task = configured_task(config)
        clients = config.num_partitions or num_supernodes
        records = load_partition(config, 0, clients).train[:_SAMPLE]
        prediction = min(prediction, task.prediction_tokens + 1)
        asked = [task.explain_prompt(record.question) for record in records]
        shown = [task.teacher_prompt(record.question).text for record in records]
    except (FedcotError, OSError):
        return Lengths(prompt, target, prediction, teacher)
    longest = math.ceil(_SLACK * _longest(config.student, "student", asked))
    prompt = min(prompt, longest)
    if is_local(config.teacher):
        teacher = math.ceil(_SLACK * _longest(config.teacher, "teacher", shown))
    return Lengths(max(1, prompt), target, prediction, max(1, teacher))


def _longest(source: str, role: Role, texts: list[str]) -> int:
    """Return the tokens of the longest text, by the model's tokenizer if it is here."""
    from transformers import AutoTokenizer

    from fedcot.models.sources import model_folder

    longest = sorted(texts, key=len)[-8:]
    try:
        folder = model_folder(source, role, fetch=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (FedcotError, OSError, ValueError, KeyError):
        return math.ceil(max(map(len, longest), default=0) / _CHARACTERS_PER_TOKEN)
    return max((len(tokenizer(text)["input_ids"]) for text in longest), default=0)

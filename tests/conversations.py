"""Teacher clients of a conversation in one process: silos and models that are stubs."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedcot.social.client_model import Sampled
from fedcot.social.conversation import ConversationSettings
from fedcot.social.demonstrations import Demonstration
from fedcot.social.generation import GenerationSettings


def silo(name: str, count: int = 12) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(f"{name} has {number} boxes of plums", str(number))
        for number in range(count)
    )


@dataclass
class Writer:
    """Writes a new question each time, and remembers what it was shown.

    It finds a text the likelier the more words of its prompt it holds.
    """

    name: str = "writer"
    asked: list[str] = field(default_factory=list)
    scored: list[tuple[str, str]] = field(default_factory=list)
    answer: str = "7"

    def describe(self) -> dict[str, str]:
        return {"client_model": "stub"}

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        return True

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        self.asked += prompts
        return [
            Sampled(self.text(prompt, seed), -1.0 - seed % 97 / 97, 5)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def text(self, prompt: str, seed: int) -> str:
        if prompt.endswith("hint:"):
            return f"look at the number {seed}"
        return f" somewhere {seed} coins lie in a jar answer: {self.answer}"

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.scored += pairs
        return [
            -1 / (1 + len(set(prompt.split()) & set(text.split())))
            - zlib.crc32(text.encode()) / 2**40
            for prompt, text in pairs
        ]


def settings(**changes: Any) -> ConversationSettings:
    generation = GenerationSettings(
        per_prompt=3,
        keep=1,
        num_prompts=3,
        samples_per_prompt=2,
        temperature=0.7,
        max_new_tokens=20,
    )
    given: dict[str, Any] = {"generation": generation, "num_chosen": 4, **changes}
    return ConversationSettings(**given)

"""How a model is loaded: number format, device, bits, template and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from fedcot.config import RunConfig


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Part of what identifies a loaded model in this process.

    Attributes
    ----------
    dtype : str
        ``auto`` (as saved), ``float32``, ``bfloat16`` or ``float16``.
    device : str
        ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``.
    quantization : str
        ``none``, ``8bit`` or ``4bit``.
    gradient_checkpointing : bool
        Compute activations twice in training.
    chat_template : str
        ``auto``: the tokenizer's own where it has one; ``none``.
    max_sequence_tokens : int
        Longest prompt with target.
    """

    dtype: str = "float32"
    device: str = "cpu"
    quantization: str = "none"
    gradient_checkpointing: bool = False
    chat_template: str = "auto"
    max_sequence_tokens: int = 512

    @classmethod
    def of_student(cls, config: RunConfig) -> Self:
        """Return how a run loads its student."""
        return cls(
            dtype=config.student_dtype,
            device=config.device,
            quantization=config.student_quantization,
            gradient_checkpointing=config.gradient_checkpointing,
            chat_template=config.chat_template,
            max_sequence_tokens=config.max_sequence_tokens,
        )

    @classmethod
    def of_teacher(cls, config: RunConfig) -> Self:
        """Return how a run loads a teacher in its own process."""
        return cls(
            dtype=config.teacher_dtype,
            device=config.device,
            quantization=config.teacher_quantization,
            chat_template=config.chat_template,
            max_sequence_tokens=config.max_sequence_tokens,
        )


# What the shipped models are loaded with, and what tests use.
PLAIN: Final = ModelOptions()

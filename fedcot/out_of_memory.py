"""Tell that memory did not suffice, whatever the library calls it, and what helps."""

from __future__ import annotations

from typing import Final

from fedcot.errors import FedcotError

_TEXTS: Final = (
    "out of memory",
    "can't alloc",
    "not enough memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "cublas_status_alloc_failed",
)
_REMEDIES: Final = {
    "training": "batch-size, max-sequence-tokens or lora-r, or set "
    "gradient-checkpointing=true (without DP-SGD) or student-quantization",
    "evaluation": "evaluation-batch-size, max-sequence-tokens or max-new-tokens",
    "teacher": "teacher-batch-size or max-new-tokens, or set teacher-dtype=bfloat16 or "
    "teacher-quantization",
    "client": "batch-size, evaluation-batch-size or max-sequence-tokens, set "
    "gradient-checkpointing=true (without DP-SGD) or student-quantization, or run "
    "fewer clients at once (--num-supernodes)",
}


class OutOfMemoryError(FedcotError):
    """Memory did not suffice; the message says what to change."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that memory did not suffice."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError | OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and (
            type(error).__name__ == "OutOfMemoryError"  # torch's, not imported here
            or any(text in str(error).lower() for text in _TEXTS)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def explain_out_of_memory(what: str) -> str:
    """Return one line that says where memory did not suffice and what to change.

    Parameters
    ----------
    what : str
        ``training``, ``evaluation``, ``teacher`` or ``client``.

    Raises
    ------
    ValueError
        Nothing is known about it.
    """
    if what not in _REMEDIES:
        raise ValueError(
            f"`what` must be one of {', '.join(_REMEDIES)}, found {what!r}."
        )
    return (
        f"memory did not suffice ({what}): lower {_REMEDIES[what]}; "
        "`fedcot doctor --config FILE` estimates the peak before a run"
    )

"""Which errors mean that memory did not suffice, and what is said then."""

import pytest
import torch

from fedcot.errors import FedcotError
from fedcot.out_of_memory import (
    OutOfMemoryError,
    explain_out_of_memory,
    is_out_of_memory,
)

MEANT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't alloc"
    ),
    RuntimeError(
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    RuntimeError("std::bad_alloc"),
    OutOfMemoryError("memory did not suffice"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("out of memory"),
    TimeoutError(),
    None,
]


@pytest.mark.parametrize("error", MEANT, ids=lambda error: type(error).__name__)
def test_every_allocator_is_understood(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_the_cause_behind_an_error_counts():
    error = FedcotError("the client failed")
    assert not is_out_of_memory(error)
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    ("what", "setting"),
    [
        ("training", "gradient-checkpointing"),
        ("evaluation", "evaluation-batch-size"),
        ("teacher", "teacher-batch-size"),
        ("client", "--num-supernodes"),
    ],
)
def test_the_line_names_what_to_change(what, setting):
    line = explain_out_of_memory(what)
    assert setting in line
    assert "fedcot doctor" in line
    assert "\n" not in line


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="training"):
        explain_out_of_memory("baking")

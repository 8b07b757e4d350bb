"""The peak memory of a run, estimated before it starts, with what it is made of.

Tensors are counted exactly (`fedcot.memory_trace`); what the processes and allocators
take beside them was measured, see `benchmarks/memory.py`. All of it is an estimate.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedcot.arms import UNTRAINED, shares_adapter
from fedcot.community.coalitions import parse_coalitions
from fedcot.community.settings import FEDERATED
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.memory_needs import (
    PROCESS,
    TUNED,
    Estimate,
    Need,
    gigabytes,
    together,
)
from fedcot.models.options import ModelOptions
from fedcot.settings import COMMUNITY, FULL, WORLD
from fedcot.teacher_source import is_local
from fedcot.text_lengths import Lengths, lengths_of

if TYPE_CHECKING:
    import torch

    from fedcot.memory_sketch import Sketch
    from fedcot.models.sources import Role
    from fedcot.models.weights import ModelKind

# Resident bytes of a process of a run before it has a model: Python, torch,
# transformers, Flower. Measured with torch 2.13 for CPU, without data.
PROCESS_BYTES: Final = 620_000_000
# Of what a step allocates and frees again: the C library keeps freed blocks (1.3 to
# 1.9 times the live bytes were measured); PyTorch's allocator on a GPU wastes less.
KEPT_ON_CPU: Final = 0.8
KEPT_ON_GPU: Final = 0.15
# With CUDA, a context on the GPU and its libraries in the machine's memory. These two
# are assumed, not measured; they differ by GPU and driver.
CONTEXT_BYTES: Final = 700_000_000
CUDA_HOST_BYTES: Final = 2_500_000_000

ALLOCATOR: Final = "kept by the allocator"
CONTEXT: Final = "CUDA context"
TRAVELLING: Final = "whole models on their way"


def estimate(config: RunConfig, *, num_supernodes: int) -> Estimate:
    """Return what a run will need on this machine at most.

    Parameters
    ----------
    config : RunConfig
    num_supernodes : int
        Simulated clients.

    Raises
    ------
    ConfigError
        A model's configuration cannot be used, or the device is not there.
    """
    from fedcot.models.weights import resolved_device

    device = resolved_device(config.device).type
    unknown: list[str] = []
    lengths = lengths_of(config, num_supernodes)
    client = Need("client", 1, "without a model", {PROCESS: PROCESS_BYTES})
    if student := _kind(config.student, "student", unknown):
        client = client_need(config, student, lengths, device)
    client = dataclasses.replace(client, count=actors_of(num_supernodes))
    server = Need("server", 1, "without a model", {PROCESS: PROCESS_BYTES})
    if is_local(config.teacher):
        kind = _kind(config.teacher, "teacher", unknown)
        if kind is not None:
            server = server_need(config, kind, lengths, device, clients=num_supernodes)
    if config.mode == COMMUNITY:
        # The server trains students as well, and members ask the provider themselves.
        server, client = together(server, client), together(client, server)
    if config.tuning == FULL and student:
        size = models_of_server(config, num_supernodes) * model_bytes(config, student)
        host = {**server.host, TRAVELLING: server.host.get(TRAVELLING, 0) + size}
        server = dataclasses.replace(server, host=host)
    return Estimate((server, client), device, tuple(unknown))


def models_of_server(config: RunConfig, num_supernodes: int) -> int:
    """Return how many whole models the server has at a time, with full tuning.

    What clients sent of an arm that is averaged, and its mean. In mode community: the
    student of each coalition in each arm, and what members sent for them.
    """
    if config.mode != COMMUNITY:
        shared = [a for a in config.arm_names if shares_adapter(a, config.aggregation)]
        return len(shared) * (num_supernodes + 1)
    coalitions = len(parse_coalitions(config.coalitions, config.community_names))
    # Pooled traces also train a control for each coalition, and one more.
    students = coalitions * (len(config.sharing_names) + 1) + 1
    sent = coalitions * num_supernodes if FEDERATED in config.sharing_names else 0
    return students + sent


def model_bytes(config: RunConfig, kind: ModelKind) -> int:
    """Return the bytes of all of the student's weights in float32."""
    from fedcot.memory_sketch import sketch

    options = ModelOptions.of_student(config)
    found = sketch(
        kind.config,
        dtype=_dtype_of(kind, options),
        attention="eager",
        full=True,
    )
    return 4 * found.parameters


def actors_of(num_supernodes: int) -> int:
    """Return how many processes the clients of a simulation share: one a processor."""
    return max(1, min(os.cpu_count() or 1, num_supernodes))


def client_need(
    config: RunConfig,
    kind: ModelKind,
    lengths: Lengths,
    device: str,
    *,
    phase: str | None = None,
) -> Need:
    """Return the peak of one client.

    Parameters
    ----------
    kind : ModelKind
        The student's configuration.
    device : str
        ``cpu``, ``cuda`` or ``mps``.
    phase : str | None
        One phase of `student_phases`; None: the one that needs most.
    """
    phases = student_phases(config, kind, lengths, device)
    chosen = phases if phase is None else {phase: phases[phase]}
    return _need("client", chosen, device)


def server_need(
    config: RunConfig, kind: ModelKind, lengths: Lengths, device: str, *, clients: int
) -> Need:
    """Return the peak of a server whose process has the teacher.

    Parameters
    ----------
    kind : ModelKind
        The teacher's configuration.
    """
    peak = teacher_peak(config, kind, lengths, device, clients=clients)
    return _need("server", {"the teacher's answers": peak}, device)


def student_phases(
    config: RunConfig, kind: ModelKind, lengths: Lengths, device: str
) -> dict[str, dict[str, int]]:
    """Return the peak of each phase of a client, by what it is made of."""
    from fedcot import memory_trace as trace
    from fedcot.node_private import PrivateTraining

    found = _sketch(config, kind, ModelOptions.of_student(config), device, adapted=True)
    explain = (lengths.prompt, lengths.target)
    predict = (lengths.prompt, lengths.prediction)
    is_private = PrivateTraining(config, partition_id=0).covers
    kinds = {is_private(arm) for arm in config.arm_names if arm not in UNTRAINED}
    if config.mode == COMMUNITY:
        kinds = {False, config.noise_multiplier > 0}
    tested = min(config.evaluation_batch_size, config.test_records)
    phases = {
        "evaluation": trace.generation_peak(
            found,
            batch_size=tested,
            prompt_tokens=lengths.prompt,
            new_tokens=config.max_new_tokens,
        ),
    }
    if False in kinds:
        phases["training"] = trace.training_peak(
            found,
            batch_size=config.batch_size,
            lengths=(explain, predict),
            fused=device == "cuda",
        )
    if True in kinds:
        phases["private training"] = trace.private_training_peak(found, explain)
    if config.dataset != WORLD:
        phases["likelihoods"] = trace.scoring_peak(
            found, batch_size=tested, prompt=lengths.prompt, target=lengths.target
        )
    if config.tuning == FULL:
        # What a message brought, or the last round left, and the copy of it that was
        # made to start from. What training gave is copied when the gradients are gone,
        # but out of the memory of a GPU.
        copies = 2 + (device != "cpu")
        for name, parts in phases.items():
            parts[TRAVELLING] = found.weight_bytes * (
                copies if name == "training" else 2
            )
    return phases


def teacher_peak(
    config: RunConfig, kind: ModelKind, lengths: Lengths, device: str, *, clients: int
) -> dict[str, int]:
    """Return the peak of the teacher's generation, by what it is made of."""
    from fedcot.memory_trace import generation_peak

    found = _sketch(
        config, kind, ModelOptions.of_teacher(config), device, adapted=False
    )
    return generation_peak(
        found,
        batch_size=min(config.teacher_batch_size, config.records_per_round * clients),
        prompt_tokens=lengths.teacher_prompt,
        new_tokens=config.max_new_tokens,
    )


def shortage(needed: Estimate) -> str:
    """Return one line where a machine has less memory than a run needs, or nothing."""
    has = machine_bytes()
    if needed.host_bytes > has:
        return (
            f"a run must fit into memory, found {gigabytes(has)} here and "
            f"{gigabytes(needed.host_bytes)} needed by estimate; {needed.remedy()}."
        )
    if needed.device != "cuda":
        return ""
    import torch

    has = int(torch.cuda.mem_get_info()[1])
    if needed.device_bytes <= has:
        return ""
    return (
        f"a run must fit on the GPU, found {gigabytes(has)} there and "
        f"{gigabytes(needed.device_bytes)} needed by estimate; {needed.remedy()}."
    )


def machine_bytes() -> int:
    """Return the machine's memory, or what its container may use of it."""
    import psutil

    whole = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        place = Path("/sys/fs/cgroup") / name
        try:
            whole = min(whole, int(place.read_text(encoding="ascii")))
        except (OSError, ValueError):  # Not there, or "max".
            continue
    return whole


def _kind(source: str, role: Role, unknown: list[str]) -> ModelKind | None:
    """Return a model's configuration; note its name where it is not here."""
    from fedcot.models.sources import model_folder
    from fedcot.models.weights import ModelKind

    try:
        folder = model_folder(source, role, fetch=False)
    except FedcotError:
        unknown.append(f"{role} {source}")
        return None
    return ModelKind.of_folder(folder, source=source, role=role)


def _sketch(
    config: RunConfig,
    kind: ModelKind,
    options: ModelOptions,
    device: str,
    *,
    adapted: bool,
) -> Sketch:
    import torch

    from fedcot.memory_sketch import sketch
    from fedcot.models.loading import LoadedModel
    from fedcot.models.weights import CPU_ATTENTION
    from fedcot.node_training import training_settings

    settings = training_settings(config)

    def lora(model: Any) -> Any:
        tokenizer: Any = None  # PEFT looks at the model only.
        base = LoadedModel("", model, tokenizer, options, kind.is_encoder_decoder)
        return settings.lora(base)

    dtype = _dtype_of(kind, options)
    is_full = adapted and config.tuning == FULL
    if is_full and dtype != torch.float32:
        raise ConfigError(
            "`student-dtype` must be float32 with `tuning=full`, found `auto` and a "
            f"student in {str(dtype).removeprefix('torch.')}; pass "
            "`-c student-dtype=float32`."
        )
    return sketch(
        kind.config,
        dtype=dtype,
        attention=CPU_ATTENTION if device == "cpu" else "sdpa",
        quantization=options.quantization,
        lora=lora if adapted and not is_full else None,
        full=is_full,
        checkpointing=adapted and options.gradient_checkpointing,
    )


def _dtype_of(kind: ModelKind, options: ModelOptions) -> torch.dtype:
    """Return the number format that a model is loaded in."""
    import torch

    stated = getattr(kind.config, "dtype", None)
    if options.dtype != "auto":
        stated = getattr(torch, options.dtype)
    return stated if isinstance(stated, torch.dtype) else torch.float32


def _need(process: str, phases: Mapping[str, Mapping[str, int]], device: str) -> Need:
    """Add what a process takes beside its tensors to the phase that needs most."""
    from fedcot.memory_trace import VECTORS

    host = {PROCESS: PROCESS_BYTES}
    on_cpu = device == "cpu"
    worst = max(phases, key=lambda name: sum(phases[name].values()))
    parts = dict(phases[worst])
    parts[ALLOCATOR] = round((KEPT_ON_CPU if on_cpu else KEPT_ON_GPU) * passing(parts))
    if on_cpu:
        return Need(process, 1, worst, {**host, **parts})
    host[PROCESS] += CUDA_HOST_BYTES
    host |= {k: parts.pop(k) for k in (VECTORS, TRAVELLING) if k in parts}
    return Need(process, 1, worst, host, {CONTEXT: CONTEXT_BYTES, **parts})


def passing(parts: Mapping[str, int]) -> int:
    """Return the bytes of the tensors that a step allocates and frees again."""
    from fedcot.memory_trace import ADAPTER, MOMENTS, VECTORS, WEIGHTS

    others = (WEIGHTS, ADAPTER, TUNED, MOMENTS, VECTORS, TRAVELLING)
    return sum(size for name, size in parts.items() if name not in others)

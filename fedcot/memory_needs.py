"""The memory that processes need, by what it is made of, and what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PROCESS: Final = "Python, torch and Flower"
TUNED: Final = "tuned weights"
# SuperLink, Ray and their helpers together, measured as proportional set size.
FLOWER_BYTES: Final = 600_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """Peak of one kind of process.

    Attributes
    ----------
    process : str
        ``server`` or ``client``.
    count : int
        Processes of this kind that exist at the same time.
    phase : str
        What needs most.
    host, device : dict of str to int
        Bytes of one process by what they are, in the machine's memory and in the
        accelerator's; `device` is empty on a CPU.
    """

    process: str
    count: int
    phase: str
    host: dict[str, int]
    device: dict[str, int] = field(default_factory=dict)

    @property
    def host_bytes(self) -> int:
        """Machine's memory of one such process."""
        return sum(self.host.values())

    @property
    def device_bytes(self) -> int:
        """Accelerator's memory of one such process."""
        return sum(self.device.values())


@dataclass(frozen=True, slots=True)
class Estimate:
    """Peak of a run, on one machine.

    Attributes
    ----------
    needs : tuple of Need
    device : str
        Where models run.
    unknown : tuple of str
        Models whose configuration is not on this machine; they are not counted.
    """

    needs: tuple[Need, ...]
    device: str
    unknown: tuple[str, ...] = ()

    @property
    def host_bytes(self) -> int:
        """Machine's memory of all processes."""
        return FLOWER_BYTES + sum(need.count * need.host_bytes for need in self.needs)

    @property
    def device_bytes(self) -> int:
        """Accelerator's memory of all processes."""
        return sum(need.count * need.device_bytes for need in self.needs)

    def lines(self) -> Iterator[str]:
        """Yield what each process needs and all of them together, as estimates."""
        for need in self.needs:
            times = f"{need.count} x " if need.count > 1 else ""
            parts = need.device or need.host
            whole = need.device_bytes or need.host_bytes
            shown = ", ".join(
                f"{name} {gigabytes(size)}"
                for name, size in sorted(parts.items(), key=lambda part: -part[1])
                if size >= 5_000_000
            )
            yield (f"{need.process}, {need.phase}: {times}{gigabytes(whole)} ({shown})")
        if self.device_bytes:
            yield f"all together on {self.device}: {gigabytes(self.device_bytes)}"
        yield f"all together in the machine's memory: {gigabytes(self.host_bytes)}"
        for name in self.unknown:
            yield f"without {name}, whose configuration is not on this machine"

    def as_dict(self) -> dict[str, Any]:
        """Return everything in bytes, for JSON."""
        return {
            "device": self.device,
            "host_bytes": self.host_bytes,
            "device_bytes": self.device_bytes,
            "other_processes_bytes": FLOWER_BYTES,
            "processes": [
                {
                    **dataclasses.asdict(need),
                    "host_bytes": need.host_bytes,
                    "device_bytes": need.device_bytes,
                }
                for need in self.needs
            ],
            "unknown": list(self.unknown),
        }

    def remedy(self) -> str:
        """Return what to change if that is too much, the largest need first."""
        worst = max(
            self.needs, key=lambda n: n.count * (n.device_bytes or n.host_bytes)
        )
        if worst.process == "server":
            return (
                "lower teacher-batch-size or max-new-tokens, set "
                "teacher-dtype=bfloat16 or teacher-quantization, or use an endpoint"
            )
        is_full = any(name.endswith(TUNED) for name in (*worst.host, *worst.device))
        change = {
            "training": "batch-size or max-sequence-tokens, set "
            "gradient-checkpointing=true or tuning=lora"
            if is_full
            else "batch-size or max-sequence-tokens, set "
            "gradient-checkpointing=true, student-dtype=bfloat16 or "
            "student-quantization",
            "private training": "max-sequence-tokens or lora-r, set "
            "student-dtype=bfloat16 or student-quantization",
        }.get(worst.phase, "evaluation-batch-size or max-sequence-tokens")
        fewer = ", or run fewer clients at once" if worst.count > 1 else ""
        return f"lower {change}{fewer}"


def together(own: Need, other: Need) -> Need:
    """Return a process that holds what two do, each at its peak: an upper bound."""

    def added(ones: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
        mine = {f"{own.phase}: {name}": size for name, size in ones.items()}
        theirs = {k: v for k, v in others.items() if k != PROCESS}
        return mine | {f"{other.phase}: {k}": v for k, v in theirs.items()}

    return dataclasses.replace(
        own,
        phase=f"{own.phase} and {other.phase}",
        host=added(own.host, other.host),
        device=added(own.device, other.device),
    )


def gigabytes(size: float) -> str:
    """Show bytes, in units of 10^9."""
    return f"{size / 1e9:.2f} GB"

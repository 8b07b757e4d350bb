"""What is installed, what a run would use, and what is wrong.

Nothing is changed and nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcot import __version__
from fedcot.config import RunConfig
from fedcot.errors import FedcotError
from fedcot.launch import nodes_of
from fedcot.provenance import code_hash, versions
from fedcot.runs import default_root
from fedcot.settings import RECORDED
from fedcot.teacher_source import is_local

_FREE_BYTES: Final = 2_000_000_000
_SCRIPTS: Final = ("flwr", "flower-superlink", "flower-superexec", "flwr-simulation")
_BESIDE_VERSIONS: Final = ("dp_accounting", "matplotlib", "jinja2", "typer")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `remedy` says what to do when it is not ok."""

    name: str
    found: str
    ok: bool = True
    remedy: str = ""


def examine(config: RunConfig) -> list[Check]:
    """Return every finding for a run with these settings."""
    checks: list[Check] = []
    parts: tuple[Callable[[], Iterator[Check]], ...] = (
        _software,
        _machine,
        lambda: _models(config),
        lambda: _plan(config),
        lambda: _memory(config),
    )
    for part in parts:
        checks.extend(_guarded(part))
    return checks


def _guarded(part: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Turn an error that a user can act on into a finding."""
    try:
        yield from part()
    except (FedcotError, ImportError, OSError) as error:
        text = " ".join(str(error).split())
        yield Check("error", text, ok=False, remedy="see the message")


def _software() -> Iterator[Check]:
    yield Check("fedcot", f"{__version__} in {Path(__file__).parent}")
    for name, version in versions().items():
        if name == "fedcot":  # a checkout has no installed version
            continue
        missing = version == "not installed"
        yield Check(name, version, not missing, f"pip install {name}")
    for name in _BESIDE_VERSIONS:
        found = importlib.util.find_spec(name) is not None
        yield Check(
            name, "installed" if found else "missing", found, "pip install fedcot"
        )
    folder = Path(sys.executable).parent
    for script in _SCRIPTS:
        found = (folder / script).is_file()
        shown = str(folder / script) if found else "missing"
        yield Check(script, shown, found, "pip install 'flwr[simulation]'")
    for module in ("server_app", "client_app", "strategies", "fedcot_weights"):
        spec = importlib.util.find_spec(module)
        found = spec is not None
        shown = "missing" if spec is None else str(spec.origin or "a folder")
        yield Check(module, shown, found, "install fedcot, or start in its checkout")
    yield Check("code", code_hash()[:16])


def _machine() -> Iterator[Check]:
    import torch

    yield Check("processors", str(os.cpu_count() or 1))
    cuda = torch.cuda.is_available()
    yield Check("accelerator", torch.cuda.get_device_name(0) if cuda else "none (CPU)")
    temporary = Path(tempfile.gettempdir())
    for name, folder in (("temporary folder", temporary), ("current folder", Path())):
        free = shutil.disk_usage(folder).free
        shown = f"{folder.absolute()}, {free / 1e9:.1f} GB free"
        yield Check(name, shown, free > _FREE_BYTES, "free some space")
    root = default_root()
    place = next(path for path in (root, *root.parents) if path.exists())
    yield Check("runs go to", str(root), os.access(place, os.W_OK), "pass --run-dir")


def _models(config: RunConfig) -> Iterator[Check]:
    from fedcot.models.sources import Role, model_folder

    def found(source: str, role: Role) -> str:
        return str(model_folder(source, role, fetch=False))

    if config.teacher == RECORDED:
        yield Check("teacher", "recorded: what the dataset carries")
    elif is_local(config.teacher):
        yield Check("teacher", found(config.teacher, "teacher"))
    else:
        yield Check("teacher", f"endpoint {config.teacher}, which was not asked")
    yield Check("student", found(config.student, "student"))
    yield Check("public language model", found("builtin", "public-lm"))


def _plan(config: RunConfig) -> Iterator[Check]:
    from fedcot.artefacts import with_artefacts
    from fedcot.budget import arm_lines, plan_arms, plan_run, world_channel

    with tempfile.TemporaryDirectory(prefix="fedcot-doctor-") as folder:
        config = with_artefacts(config, Path(folder))
        planned = plan_run(config, world_channel(config))
    yield Check("arms", config.arms)
    for line in (*planned.lines(), *arm_lines(plan_arms(config, planned))):
        yield Check("privacy", " ".join(line.split()))
    within = planned.is_within_limit
    shown = "a prompt fits" if within else "no prompt fits, every release is refused"
    yield Check("record limit", shown, within, "raise record-epsilon")


def _memory(config: RunConfig) -> Iterator[Check]:
    """Estimate the peak; say what to change where it is too much."""
    from fedcot.memory import estimate, machine_bytes, shortage
    from fedcot.memory_needs import gigabytes

    needed = estimate(config, num_supernodes=nodes_of(config, None))
    lines = [f"{line} (estimate)" for line in needed.lines()]
    for line in lines:
        yield Check("memory", line)
    problem = shortage(needed)
    shown = problem or f"the machine has {gigabytes(machine_bytes())}"
    yield Check("memory limit", shown, not problem, needed.remedy())

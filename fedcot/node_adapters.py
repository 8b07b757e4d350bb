"""A node's trained adapters: one folder per round, which is there whole or not at all.

Adapters that may be sent and adapters that must not lie in different folders, and what
is sent is read from the former only. A student that was tuned in full is kept the same
way, as a whole model.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from fedcot.node_state import read_json
from fedcot.privacy.secret import sync_folder
from fedcot.runs import part_of, write_json
from fedcot.student.base import Base, TrainingSettings
from fedcot.student.files import weights_of
from fedcot.student.training import load_adapter, save_adapter

OUTCOME: Final = "outcome.json"
IDENTITY: Final = "identity"
SHARED, PERSONAL = "shared", "personal"

Tensors = Mapping[str, torch.Tensor]


class AdapterStore:
    """What one arm's training gave, round by round.

    Parameters
    ----------
    folder : Path
        This run's folder inside the node's state folder.
    arm : str
        One of `fedcot.config.ARMS`.
    is_shared : bool
        Whether the arm's adapters leave the node in this run.
    """

    def __init__(self, folder: Path, arm: str, *, is_shared: bool) -> None:
        kind = SHARED if is_shared else PERSONAL
        self._folder = folder / "rounds" / kind / arm

    def identity(self) -> str:
        """Return 16 hex digits that this store got when it was made, and keeps.

        A store that was deleted comes back with others.
        """
        place = self._folder / IDENTITY
        if not place.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            drawn = secrets.token_hex(8)
            part = self._folder / f".part-{os.getpid()}-{drawn}"
            part.write_text(drawn, encoding="ascii")
            _sync(part)
            # Of two processes the first one's stays.
            with contextlib.suppress(FileExistsError):
                place.hardlink_to(part)
            part.unlink()
            sync_folder(self._folder)
        return place.read_text(encoding="ascii")

    def outcome(self, server_round: int) -> dict[str, Any] | None:
        """Return what was noted of a round's training; None if it never ended."""
        found: dict[str, Any] | None = read_json(
            self.round_folder(server_round) / OUTCOME, default=None
        )
        return found

    def load(self, server_round: int) -> dict[str, torch.Tensor] | None:
        """Return the adapter of this very round; None if there is none."""
        folder = self.round_folder(server_round)
        return load_adapter(folder) if weights_of(folder) else None

    def newest(self, *, before: int) -> dict[str, torch.Tensor] | None:
        """Return the adapter of the last round before one; None if there is none."""
        numbers = sorted(
            int(path.name.removeprefix("round-"))
            for path in self._folder.glob("round-*")
            if weights_of(path)
        )
        earlier = [number for number in numbers if number < before]
        return self.load(earlier[-1]) if earlier else None

    def commit(
        self,
        server_round: int,
        outcome: Mapping[str, Any],
        *,
        base: Base,
        adapter: Tensors | None,
        settings: TrainingSettings,
    ) -> None:
        """Keep adapter and outcome together, durably.

        A crash leaves an unfinished folder that nothing reads, so a message that is
        delivered again trains from where this training started. If another process was
        faster with the same message, what it kept stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".part-{os.getpid()}-{secrets.token_hex(4)}"
        part.mkdir()
        if adapter is not None:
            save_adapter(base, adapter, settings, part)
        write_json(part / OUTCOME, outcome)
        for file in part.rglob("*"):
            _sync(file)
        sync_folder(part)
        try:
            part.rename(self.round_folder(server_round))
        except OSError:
            if self.outcome(server_round) is None:
                raise
            shutil.rmtree(part)
        sync_folder(self._folder)

    def round_folder(self, server_round: int) -> Path:
        """Return the folder of a round, whether or not it is there."""
        return self._folder / f"round-{server_round}"


def publish(source: Path, target: Path) -> None:
    """Copy an adapter to where its owner looks for it; no node reads it from there."""
    if not weights_of(source):
        return
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        if file.name != OUTCOME:
            # Some tokenizers keep templates in a folder of their own.
            place.parent.mkdir(parents=True, exist_ok=True)
            part = part_of(place)
            shutil.copyfile(file, part)
            part.replace(place)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

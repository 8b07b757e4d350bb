"""What has to be as it was for a run to go on.

Records belong to ledgers by partition, and a release is stored under its record. If
the split, the data or the mechanism changed between two starts, a record could be drawn
a second time and the charge of the first time not be seen.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.node_runs import NEUTRAL_SETTINGS
from fedcot.settings import WORLD

NEUTRAL = frozenset(name.replace("_", "-") for name in NEUTRAL_SETTINGS)


def check_resuming(config: RunConfig) -> None:
    """Refuse to go on with a run that releases noised sums or private votes.

    What was sent before the run ended would be noised and sent once more.

    Raises
    ------
    ConfigError
        It does.
    """
    for key, noise in (
        ("server-noise-multiplier", config.server_noise_multiplier),
        ("noise-multiplier", config.noise_multiplier),
        ("vote-epsilon", config.vote_epsilon),
    ):
        if noise > 0:
            raise ConfigError(
                f"`{key}` must be 0 in a run that goes on after it ended early, found "
                f"{noise}: what was drawn with noise would be released twice; start a "
                "new run."
            )


def check_same_run(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings, code, artefacts or data.

    Parameters
    ----------
    before, after : mapping
        `config.json` of the first start, and what would be written to it.

    Raises
    ------
    ConfigError
        They differ in more than what is measured or where files lie.
    """
    old, new = before["run_config"], after["run_config"]
    differing = [
        key
        for key in sorted(old.keys() | new.keys())
        if key not in NEUTRAL and old.get(key) != new.get(key)
    ]
    for part in ("code_hash", "artefacts"):
        if before.get(part) != after.get(part):
            differing.append(part)
    if differing:
        raise ConfigError(
            f"`resume` must have what the run was started with, found another "
            f"`{differing[0]}`; start a new run, or restore it."
        )


def data_hash(config: RunConfig) -> str:
    """Return the SHA-256 over a dataset's records; empty where they are not here.

    The server of a deployment has none. The built-in world follows from the settings.
    """
    if config.dataset == WORLD:
        return ""
    from fedcot.data.loading import load_dataset

    try:
        loaded = load_dataset(config)
    except ConfigError:
        return ""
    digest = hashlib.sha256()
    for records in (loaded.train, loaded.test, loaded.public):
        rows = [(record.parts, record.answer) for record in records]
        digest.update(json.dumps(rows).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()

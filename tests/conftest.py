"""What every test starts from: one thread, no network, the data folder if named."""

import os
from pathlib import Path

import pytest

# Before torch is imported: two threads on busy cores are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings

# Times on a busy machine say nothing about an example.
settings.register_profile("fedcot", deadline=None, derandomize=True)
settings.load_profile("fedcot")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of public data that `FEDCOT_DATA` names, or skip."""
    named = os.environ.get("FEDCOT_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("FEDCOT_DATA does not name a folder of public data")
    return Path(named)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return Path(__file__).resolve().parent.parent

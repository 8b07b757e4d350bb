"""What of Flower is at work on this machine."""

from pathlib import Path

import psutil


def flower_homes() -> set[str]:
    """Return the Flower homes that some process of ours still works in."""
    homes = set()
    for process in psutil.process_iter():
        try:
            home = process.environ().get("FLWR_HOME", "")
        except psutil.Error:
            continue
        if Path(home).name.startswith("fedcot-"):
            homes.add(home)
    return homes

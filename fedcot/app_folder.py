"""The folder that `flwr run` gets: exactly the code that is imported here."""

import shutil
from pathlib import Path

from fedcot import provenance
from fedcot.config import app_pyproject
from fedcot.errors import FedcotError


def assemble_app(target: Path) -> Path:
    """Copy the imported code and its `pyproject.toml` into a folder for `flwr run`.

    The copy, and not the checkout, is what runs: editing a file during a run, or
    starting from another folder, cannot mix two versions of the code.

    Raises
    ------
    FedcotError
        A part of the app cannot be imported.
    """
    app = target / "fedcot-app"
    found = dict(provenance.code_files())
    for name in ("server_app.py", "client_app.py", "strategies/__init__.py"):
        if name not in found:
            raise FedcotError(
                f"the Flower app's `{name}` must be importable, found no such file; "
                "install fedcot or start in its checkout."
            )
    for name, path in found.items():
        copy = app / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(app_pyproject(), app / "pyproject.toml")
    return app

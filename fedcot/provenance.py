"""Which code, libraries and commit made a result.

A simulated client may import another checkout's code than the server (Flower's
background SuperLink keeps its first folder), so both sides hash what they really
imported and a client with another hash refuses.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

COMMIT_VARIABLE: Final = "FEDCOT_GIT_COMMIT"
CODE_PATTERNS: Final = ("*.py", "mappings/*.toml")
CODE_ROOTS: Final = ("fedcot", "strategies", "server_app", "client_app")
LIBRARIES: Final = (
    "fedcot",
    "flwr",
    "ray",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "numpy",
)


@cache
def code_hash() -> str:
    """Return the SHA-256, in hex, of the files of this app as imported.

    The hash does not depend on where the files lie or how their lines end. A root
    that cannot be imported counts as absent, so that it differs from a present one.
    Cached: what a process runs is what it imported, not what was edited since.
    """
    digest = hashlib.sha256()
    for name, path in code_files():
        digest.update(f"{name}\n".encode())
        for line in path.read_bytes().splitlines():
            digest.update(line + b"\n")
        digest.update(b"\x00")
    return digest.hexdigest()


def code_files() -> Iterator[tuple[str, Path]]:
    """Yield each file of the app by its place in the app, in a fixed order.

    Python files, and the mappings: templates decide what a model reads.
    """
    for root in CODE_ROOTS:
        yield from _files_of(root)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """Return the git commit of the imported code; a `+` says that files differ.

    Code that was installed from a checkout counts as that checkout's when every file
    is the same. An app bundle lies in no checkout; whoever packed it names the commit
    in `COMMIT_VARIABLE`. None where nothing is known.
    """
    if handed_on := os.environ.get(COMMIT_VARIABLE):
        return handed_on
    checkout = _checkout()
    if checkout is None:
        return None
    for name, path in code_files():
        original = checkout / name
        if not original.is_file() or original.read_bytes() != path.read_bytes():
            return None
    top = _git(checkout, "rev-parse", "--show-toplevel")
    commit = _git(checkout, "rev-parse", "HEAD")
    # A virtual environment may lie inside someone else's checkout.
    if not top or not commit or Path(top).resolve() != checkout:
        return None
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _checkout() -> Path | None:
    """Return the checkout that the code lies in, or that pip installed it from."""
    beside = Path(__file__).resolve().parent.parent
    if (beside / "pyproject.toml").is_file():
        return beside
    try:
        record = importlib.metadata.distribution("fedcot").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(record)["url"]) if record else None
    return Path(unquote(url.path)).resolve() if url and url.scheme == "file" else None


def _files_of(root: str) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each file of a package or module, in name order."""
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        yield f"{root}.py", origin
        return
    folder = origin.parent
    files = [path for pattern in CODE_PATTERNS for path in folder.rglob(pattern)]
    for path in sorted(files, key=lambda item: item.as_posix()):
        if "__pycache__" not in path.parts:
            yield f"{root}/{path.relative_to(folder).as_posix()}", path


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

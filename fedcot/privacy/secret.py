"""The node's secret: it turns a record's content into a key that tells nothing."""

import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedcot.errors import LedgerError

SECRET_BYTES = 32
SECRET_NAME = "node.secret"
UNFINISHED_NAME = "node.secret.unfinished"


def write_secret(folder: Path) -> bytes:
    """Write a new secret durably under a name that nothing reads yet, and return it.

    Readable by its owner only. The caller holds a lock that keeps other processes from
    doing the same, commits the fingerprint, and only then calls `finish_secret`. So a
    secret under its own name always has a fingerprint in the database.
    """
    unfinished = folder / UNFINISHED_NAME
    # A crash before the commit leaves one behind that has keyed nothing.
    unfinished.unlink(missing_ok=True)
    secret = secrets.token_bytes(SECRET_BYTES)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return secret


def finish_secret(folder: Path, known: str) -> None:
    """Give the secret its name if it has none yet, under the caller's lock.

    Parameters
    ----------
    folder : Path
        The node's ledger folder.
    known : str
        The fingerprint that was committed; another secret is left where it is.
    """
    unfinished, finished = folder / UNFINISHED_NAME, folder / SECRET_NAME
    if finished.exists() or not unfinished.exists():
        return
    if fingerprint(unfinished.read_bytes()) == known:
        unfinished.rename(finished)
        sync_folder(folder)


def read_secret(folder: Path) -> bytes:
    """Return the secret of a node.

    Raises
    ------
    LedgerError
        If the file is missing, damaged, or readable by other users.
    """
    path = folder / SECRET_NAME
    try:
        mode = path.stat().st_mode & 0o777
        secret = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"The node's secret {path} cannot be read; restore it, since without it "
            "the ledger cannot recognise its records."
        ) from error
    if mode & 0o077:
        raise LedgerError(
            f"{path} must have mode 0600, found {mode:04o}; run chmod 600 on it."
        )
    if len(secret) != SECRET_BYTES:
        raise LedgerError(
            f"{path} must hold {SECRET_BYTES} bytes, found {len(secret)}; restore it."
        )
    return secret


def fingerprint(secret: bytes) -> str:
    """Return what tells whether a secret is still the same one."""
    return hmac.new(secret, b"fingerprint", hashlib.sha256).hexdigest()


def keys_of(secret: bytes, contents: Sequence[str]) -> list[str]:
    """Return a key for each record: HMAC of its content and its occurrence number.

    Parameters
    ----------
    secret : bytes
        The node's.
    contents : sequence of str
        Private; equal contents are told apart by how many came before.

    Returns
    -------
    list of str
        64 hexadecimal digits each, all distinct.
    """
    occurrences: Counter[str] = Counter()
    keys = []
    for content in contents:
        # A prefix of fixed width keeps number and content apart. No content may fail
        # to encode: the error would carry it.
        encoded = content.encode(errors="surrogatepass")
        message = occurrences[content].to_bytes(8, "big") + encoded
        keys.append(hmac.new(secret, b"record" + message, hashlib.sha256).hexdigest())
        occurrences[content] += 1
    return keys


def pseudonyms_of(secret: bytes, record_keys: Sequence[str], *, run: str) -> list[str]:
    """Return a name for each record that only its own run knows.

    Parameters
    ----------
    secret : bytes
        The node's.
    record_keys : sequence of str
        As `keys_of` returns them.
    run : str
        Names the run.

    Returns
    -------
    list of str
        64 hexadecimal digits each, distinct for distinct keys.
    """
    # A key per run, so that run and record key cannot run into each other.
    run_key = hmac.new(secret, b"run" + run.encode(), hashlib.sha256).digest()
    return [
        hmac.new(run_key, key.encode(), hashlib.sha256).hexdigest()
        for key in record_keys
    ]


def make_folder(folder: Path) -> None:
    """Make a folder and make its name durable, up to the root of the file system.

    To be called before anything is made in it: what is found there then says that its
    names are durable.

    Raises
    ------
    LedgerError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A power cut must not take away the folder with all that it accounts for, and
        # whoever made its parents may have died before their names were durable.
        for parent in folder.absolute().parents:
            if os.access(parent, os.R_OK):
                sync_folder(parent)
    except OSError as error:
        raise LedgerError(f"The folder {folder} cannot be made: {error}.") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, so that a new file survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Find a model: the built-in ones, a local folder or a Hugging Face id."""

import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from fedcot.errors import ConfigError

Role = Literal[
    "teacher",
    "student",
    "public-lm",
    "in-context-teacher",
    "in-context-student",
    # Settings that name a model that is not built in.
    "client-model",
    "prompted-student",
]

BUILTIN = "builtin"
# What decides how a model reads and writes; no model has all of them.
_HASHED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)
_FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
# Copies of the same weights for other programs.
_NOT_FETCHED = ("*/*", "consolidated*")


def builtin_folder() -> Path:
    """Return the folder of the built-in weights.

    Raises
    ------
    ConfigError
        If the data package `fedcot_weights` is not installed.
    """
    specification = importlib.util.find_spec("fedcot_weights")
    if specification is None or specification.origin is None:
        raise ConfigError(
            "the built-in models must come from the package `fedcot_weights`, found "
            "none on the import path; install fedcot with `pip install .`."
        )
    return Path(specification.origin).parent


def model_folder(source: str, role: Role, *, fetch: bool = True) -> Path:
    """Return the local folder of a model.

    Parameters
    ----------
    source : str
        ``builtin``, a local folder, or a Hugging Face id (``owner/name``, with
        ``@revision`` if wanted), which is looked up in the local cache and then
        downloaded.
    role : str
        Which built-in model is meant; also names the setting in errors.
    fetch : bool
        Whether a model that is not in the local cache may be downloaded.

    Raises
    ------
    ConfigError
        If there is no such folder, or it holds no model.
    """
    if source == BUILTIN:
        folder = builtin_folder() / role.replace("-", "_")
    elif is_hub_id(source):
        folder = _snapshot(source, role, fetch)
    else:
        folder = Path(source).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if source == BUILTIN:
        raise ConfigError(
            f"the built-in model `{role}` must lie in the folder of the package "
            f"`fedcot_weights`, found no {folder.name}/config.json there; install "
            "fedcot with `pip install .`, or build it with `fedcot pretrain --output`."
        )
    raise ConfigError(
        f"`{role}` must be `builtin`, a folder with a config.json or a Hugging Face "
        f"id, found no such model folder: {source!r}; check the path, or pass "
        f"`-c {role}=builtin`."
    )


def split_revision(source: str) -> tuple[str, str | None]:
    """Return the name and the revision of a Hugging Face id; None: the newest."""
    name, marker, revision = source.partition("@")
    return name, revision if marker else None


def is_hub_id(source: str) -> bool:
    """Whether a source is looked up at Hugging Face: no folder, and ``owner/name``."""
    name, revision = split_revision(source)
    parts = name.split("/")
    plain = all(part and not part.startswith((".", "~")) for part in parts)
    return len(parts) == 2 and plain and revision != "" and not Path(source).exists()


@cache
def _snapshot(source: str, role: Role, fetch: bool) -> Path:
    """Find a model once per process, so that all of a run has the same revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, revision = split_revision(source)
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(_FETCHED),
                ignore_patterns=list(_NOT_FETCHED),
                local_files_only=not fetch,
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ConfigError(
            f"`{role}` must be a model that can be found, found no such model folder "
            f"and no such Hugging Face model: {source!r} ({type(error).__name__}); "
            "check the name, or download the model and pass its folder."
        ) from error


@cache
def _file_hash(path: Path, _modified: int) -> str:
    return file_hash(path)


def file_hash(path: Path) -> str:
    """Return the SHA-256, in hex, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def artefact_hash(source: str, role: Role) -> str:
    """Return the SHA-256 over configuration, tokenizer and weights of a model.

    Raises
    ------
    ConfigError
        As `model_folder`.
    """
    folder = model_folder(source, role)
    names = [name for name in _HASHED if (folder / name).is_file()]
    names += sorted(path.name for path in folder.glob("*.safetensors"))
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        digest.update(f"{name} {_file_hash(path, path.stat().st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def check_weights(folder: Path, role: Role) -> None:
    """Refuse a model folder without weights, or with a file that is cut off.

    Raises
    ------
    ConfigError
        There are none, or one cannot be opened.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files and not list(folder.glob("pytorch_model*.bin")):
        raise ConfigError(
            f"`{role}` must be a folder with weights, found no *.safetensors in "
            f"{str(folder)!r}; download or save the model again."
        )
    for path in files:
        try:
            # Reads the header alone and compares it with the size of the file.
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ConfigError(
                f"`{role}` must have whole weights, found `{path.name}` broken in "
                f"{str(folder)!r}; download or save the model again."
            ) from error


def public_name(source: object) -> str:
    """Return how a model or dataset may be named to others: never by a path."""
    text = str(source or "unknown")
    if "://" in text:
        return "an OpenAI-compatible endpoint"
    is_path = Path(text).is_absolute() or text.startswith((".", "~")) or "\\" in text
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if is_path else text

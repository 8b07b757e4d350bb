"""A tiny random model in a folder, so that a real process can load it by path."""

from pathlib import Path

from tests.tiny import tiny_base


def save_tiny_model(folder: Path) -> Path:
    """Write model and tokenizer as Hugging Face does."""
    base = tiny_base()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder

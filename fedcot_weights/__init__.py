"""Weights of the built-in models: a data-only package, found by import.

It stands apart from `fedcot` because Flower's app bundle carries no weights.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

"""Federated chain-of-thought distillation with an honest privacy account."""

__version__ = "0.1.0"

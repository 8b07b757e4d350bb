"""Server-side strategies."""

from strategies.accounting import PromptAccountant
from strategies.aggregation import weighted_mean
from strategies.fedcot import FedCoT
from strategies.phased import PhasedStrategy
from strategies.requests import Public
from strategies.results import Results
from strategies.state import RoundState

__all__ = [
    "FedCoT",
    "PhasedStrategy",
    "PromptAccountant",
    "Public",
    "Results",
    "RoundState",
    "weighted_mean",
]

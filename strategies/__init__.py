"""Server-side strategies."""

from strategies.accounted import AccountedStrategy
from strategies.accounting import PrivacyAccountant
from strategies.aggregation import weighted_mean
from strategies.events import AggregateEvent, PromptsEvent, TrainingEvent
from strategies.fedcot import FedCoT
from strategies.phased import PhasedStrategy
from strategies.requests import Public
from strategies.results import Results
from strategies.state import RoundState

__all__ = [
    "AccountedStrategy",
    "AggregateEvent",
    "FedCoT",
    "PhasedStrategy",
    "PrivacyAccountant",
    "PromptsEvent",
    "Public",
    "Results",
    "RoundState",
    "TrainingEvent",
    "weighted_mean",
]

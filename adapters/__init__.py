"""How da-compose finds a new domain's few numbers: strategies, starts, label-free selection.

A backbone is never changed here: only copies of a domain move, and no label of a target is read
but in `labelled` and `transfer`, whose names and notes say so.
"""

from adapters.adapt import adapt
from adapters.adaptation import Adaptation, load_adaptation
from adapters.config import AUTO, AdaptConfig
from adapters.guard import GuardConfig
from adapters.labelled import adapt_with_labels
from adapters.many import adapt_many
from adapters.start import StartConfig
from adapters.strategies import (
    STRATEGIES,
    Adversarial,
    ClassifierDiscrepancy,
    InformationMaximization,
    MomentMatching,
    Shot,
    Tent,
)
from adapters.strategies.contract import AdaptationTask, Strategy
from adapters.streaming import StreamConfig, StreamUpdate
from adapters.transfer import Transfer, transfer

__all__ = [
    "AUTO",
    "STRATEGIES",
    "AdaptConfig",
    "Adaptation",
    "AdaptationTask",
    "Adversarial",
    "ClassifierDiscrepancy",
    "GuardConfig",
    "InformationMaximization",
    "MomentMatching",
    "Shot",
    "StartConfig",
    "Strategy",
    "StreamConfig",
    "StreamUpdate",
    "Tent",
    "Transfer",
    "adapt",
    "adapt_many",
    "adapt_with_labels",
    "load_adaptation",
    "transfer",
]

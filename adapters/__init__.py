"""How a new domain's few numbers are found: strategies, losses, starts, label-free selection."""

from adapters.adapt import adapt
from adapters.adaptation import Adaptation, load_adaptation
from adapters.config import AUTO, STRATEGIES, AdaptConfig
from adapters.labelled import adapt_with_labels
from adapters.many import adapt_many
from adapters.transfer import Transfer, transfer

__all__ = [
    "AUTO",
    "STRATEGIES",
    "AdaptConfig",
    "Adaptation",
    "Transfer",
    "adapt",
    "adapt_many",
    "adapt_with_labels",
    "load_adaptation",
    "transfer",
]

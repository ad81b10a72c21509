"""How a target's few numbers are learned: a strategy a file, its losses pure functions.

A new one is a file with one class that keeps `contract.Strategy`, and a row in `STRATEGIES` here.
A user's own class needs neither: `adapt` takes an instance.
"""

from collections.abc import Mapping

from adapters.strategies.adversarial import Adversarial
from adapters.strategies.classifier_discrepancy import ClassifierDiscrepancy
from adapters.strategies.contract import Strategy
from adapters.strategies.information_maximization import InformationMaximization
from adapters.strategies.moment_matching import MomentMatching
from adapters.strategies.shot import Shot
from adapters.strategies.tent import Tent

STRATEGIES: Mapping[str, type[Strategy]] = {
    "adversarial": Adversarial,
    "moment_matching": MomentMatching,
    "classifier_discrepancy": ClassifierDiscrepancy,
    "information_maximization": InformationMaximization,
    "tent": Tent,
    "shot": Shot,
}

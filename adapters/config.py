"""How an adaptation goes: strategies by name, what may be trained, and all options."""

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.start import NEAREST
from adapters.strategies.adversarial import Adversarial
from adapters.strategies.classifier_discrepancy import ClassifierDiscrepancy
from adapters.strategies.contract import Strategy
from adapters.strategies.information_maximization import InformationMaximization
from adapters.strategies.moment_matching import MomentMatching

STRATEGIES: Mapping[str, type[Strategy] | None] = {
    "source_only": None,  # a source's statistics, nothing learned
    "batch_norm": None,  # AdaBN (Li et al. 2017): the target's statistics, nothing learned
    "chosen_start": None,  # what the others start from: see `adapters.start.best_start`
    "adversarial": Adversarial,
    "moment_matching": MomentMatching,
    "classifier_discrepancy": ClassifierDiscrepancy,
    "information_maximization": InformationMaximization,
}
AUTO = "auto"  # the first of these that learns what the guard trusts
AUTO_TRIES = ("information_maximization", "moment_matching")
TRAINS = ("mixture_weights", "input_adapter")
BASELINES = {"source_only": 0.0, "batch_norm": 1.0}  # share of the target's own statistics
LEARNING_RATES = {"mixture_weights": 0.1, "input_adapter": 0.003}
STEPS = {"mixture_weights": 100, "input_adapter": 400}


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How long and how to adapt; defaults were chosen on development targets, see the README."""

    strategy: str = "information_maximization"
    trains: str = "mixture_weights"
    start: str = NEAREST  # or "mean", or a domain of the backbone
    steps: int | None = None  # None: as many as what is trained takes
    batch_size: int = 128
    learning_rate: float | None = None  # None: the strategy's own for what it trains
    check_every: int = 20  # steps between label-free checks; the best iterate is kept
    check_images: int = 1000
    start_images: int = 400  # of them, to choose the start with
    guard: bool = True  # go back to the start where the outcome is not to be trusted
    bfloat16: bool = False  # steps compute blocks in it: faster on a GPU or a CPU that has it
    cuda_graph: bool = False  # record a step once and replay it; for a backbone on a GPU
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in (*STRATEGIES, AUTO):
            choices = ", ".join((*STRATEGIES, AUTO))
            raise ValueError(f"no strategy {self.strategy!r}; choose from {choices}")
        if self.strategy == AUTO and not self.guard:
            raise ValueError(f"{AUTO} chooses by the guard; leave it on, or name a strategy")
        if self.trains not in TRAINS:
            raise ValueError(f"cannot train {self.trains!r}; choose from {', '.join(TRAINS)}")
        for name in ("steps", "batch_size", "check_every", "check_images", "start_images"):
            if getattr(self, name) is not None:
                check_whole(self, name, 1)
        check_whole(self, "seed", 0)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")

    @property
    def num_steps(self) -> int:
        """Steps that are asked for, or else as many as what is trained takes."""
        return STEPS[self.trains] if self.steps is None else self.steps


def check_whole(config: object, name: str, least: int) -> None:
    """Raise ValueError where an option is no int, which notes can hold, of at least `least`."""
    value = getattr(config, name)
    if not isinstance(value, int):
        raise ValueError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")

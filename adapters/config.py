"""How an adaptation goes: which strategy, what may be trained, and all options."""

from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from math import inf
from numbers import Real
from typing import Any, TypeVar

from adapters.guard import GuardConfig
from adapters.parts import ADAPTED, MIXED, STEPS, check_parts, usual_of
from adapters.start import NEAREST, StartConfig
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import Strategy
from da_compose import Network
from da_compose.options import make_whole

# What learns nothing: a source's statistics; the target's, AdaBN (Li et al. 2017); what all others
# start from (`adapters.start.best_start`); prototypes, by no gradient (`adapters.prototypes`)
T3A = "t3a"
UNLEARNED = ("source_only", "batch_norm", "chosen_start", T3A)
BASELINES = {"source_only": 0.0, "batch_norm": 1.0}  # share of the target's own statistics
OUTCOME = "adapted"  # as scores and estimates name it, beside those and the start
AUTO = "auto"  # the first of these that learns what the guard trusts
CHOICES = (*UNLEARNED, *STRATEGIES, AUTO)  # names that `strategy` may be
Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How long and how to adapt; defaults were chosen on development targets, docs/adaptation.md.

    strategy: one of `CHOICES`, or an instance with its own options; None: what is usual for the
    kind of network, information_maximization, or chosen_start where it is pretrained; there
    consensus, where another field says how to learn (trains, steps, batch_size, learning_rate).
    trains: mixture_weights, input_adapter or batch_norm (gamma and beta of every batch norm).
    """

    strategy: str | Strategy | None = None
    trains: str = "mixture_weights"
    start: str = NEAREST  # or "mean", or a domain of the backbone
    steps: int | None = None  # None: as many as what is trained takes
    batch_size: int | None = None  # images a step; None: what is usual for the kind of network
    learning_rate: float | None = None  # None: the strategy's own for what it trains
    check_every: int = 20  # steps between label-free checks; the best iterate is kept
    check_images: int = 1000
    start_images: int | None = None  # of them, to choose the start with; None: what is usual
    centroids: bool = True  # the start heeds those of its classes: `da_compose.centroids`
    prior_images: int = 100  # the start weighs like so many images of the target
    guard: bool = True  # go back to the start where the outcome is not to be trusted
    guard_config: GuardConfig = field(default_factory=GuardConfig)
    start_config: StartConfig = field(default_factory=StartConfig)
    bfloat16: bool = False  # steps compute blocks in it: faster on a GPU or a CPU that has it
    cuda_graph: bool = False  # record a step once and replay it; for a backbone on a GPU
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.strategy, str):
            if self.strategy not in CHOICES:
                raise ValueError(f"no strategy {self.strategy!r}{nearest(self.strategy, CHOICES)}")
        elif self.strategy is not None and (
            isinstance(self.strategy, type)
            or not all(hasattr(self.strategy, method) for method in ("prepare", "step"))
        ):
            raise ValueError(
                f"strategy must be a name ({', '.join(CHOICES)}) or an instance such as "
                f"MomentMatching(), with prepare and step, got {self.strategy!r}"
            )
        if self.strategy == AUTO and not self.guard:
            raise ValueError(f"{AUTO} chooses by the guard; leave it on, or name a strategy")
        check_parts([str(self.trains)], ADAPTED)
        for name in ("steps", "batch_size", "check_every", "check_images", "start_images"):
            if getattr(self, name) is not None:
                make_whole(self, **{name: 1})
        make_whole(self, seed=0, prior_images=0)
        for name in ("centroids", "guard", "bfloat16", "cuda_graph"):
            if not isinstance(getattr(self, name), bool):  # "no" would mean yes
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, Real) and 0 < rate < inf):
            raise ValueError(f"learning_rate must be above 0, got {rate!r}")

    def on(self, network: Network) -> "AdaptConfig":
        """The same with all said that is as usual for this network."""
        usual, strategy = usual_of(network), self.strategy
        if strategy is None:
            strategy = usual.tries[0] if self.asks_to_learn else usual.strategy
        return replace(
            self,
            strategy=strategy,
            steps=usual.steps[self.trains] if self.steps is None else self.steps,
            batch_size=usual.batch_size if self.batch_size is None else self.batch_size,
            start_images=usual.start_images if self.start_images is None else self.start_images,
        )

    @property
    def asks_to_learn(self) -> bool:
        """Whether what is said is of use to a strategy that learns alone."""
        how = (self.steps, self.batch_size, self.learning_rate)
        return self.trains != AdaptConfig.trains or any(one is not None for one in how)

    @property
    def method(self) -> str | Strategy:
        """The strategy that is asked for, or else what is usual where weights are mixed."""
        return MIXED.strategy if self.strategy is None else self.strategy

    @property
    def num_steps(self) -> int:
        """Steps, likewise: as many as what is trained takes."""
        return STEPS[self.trains] if self.steps is None else self.steps

    @property
    def num_images(self) -> int:
        """Images a step, likewise."""
        return MIXED.batch_size if self.batch_size is None else self.batch_size

    @property
    def num_start_images(self) -> int:
        """Images to compare starts on, likewise."""
        return MIXED.start_images if self.start_images is None else self.start_images

    @property
    def baseline(self) -> str | None:
        """The strategy, where it is one of `BASELINES`."""
        return self.method if isinstance(self.method, str) and self.method in BASELINES else None

    @property
    def strategy_name(self) -> str:
        """The strategy as notes and tables name it: of a user's own, its class."""
        if isinstance(self.method, str):
            return self.method
        names = {kind: name for name, kind in STRATEGIES.items()}
        return names.get(type(self.method), type(self.method).__name__)


def with_options(config: Config, options: dict[str, Any]) -> Config:
    """The configuration with some fields changed; ValueError for a name that is none of them."""
    names = [one.name for one in fields(config)]  # pyright: ignore[reportArgumentType]
    for name in options:
        if name not in names:
            raise ValueError(f"no option {name!r}{nearest(name, names)}")
    return replace(config, **options)  # pyright: ignore[reportArgumentType]


def nearest(name: str, names: Any) -> str:
    """The end of an error about a name that is none of `names`: the likeliest, and all."""
    close = get_close_matches(name, names, n=1)
    return f"{f', did you mean {close[0]!r}?' if close else ';'} choose from {', '.join(names)}"

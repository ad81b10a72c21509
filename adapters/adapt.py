"""`adapt`: from a backbone and unlabelled images of a new domain to a few learned numbers."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapters.adversarial import Adversarial
from adapters.classifier_discrepancy import ClassifierDiscrepancy
from adapters.guard import judge
from adapters.information_maximization import InformationMaximization
from adapters.moment_matching import MomentMatching
from adapters.selection import Scores, predict_logits, score
from adapters.start import NEAREST, best_start, check_start, make_start, plain_start_name
from adapters.strategy import AdaptationTask, Strategy
from adapters.targets import read_images
from da_compose import Backbone, Domain, load_adapter, probabilities, save_adapter
from da_compose.images import to_input
from da_compose.mixture import MixtureWeights

STRATEGIES: Mapping[str, type[Strategy] | None] = {
    "source_only": None,  # the start as it is: a source's statistics, nothing learned
    "batch_norm": None,  # AdaBN (Li et al. 2017): the target's statistics, nothing learned
    "adversarial": Adversarial,
    "moment_matching": MomentMatching,
    "classifier_discrepancy": ClassifierDiscrepancy,
    "information_maximization": InformationMaximization,
}
TRAINS = ("mixture_weights", "input_adapter")
BASELINES = {"source_only": 0.0, "batch_norm": 1.0}  # share of the target's own statistics
LEARNING_RATES = {"mixture_weights": 0.1, "input_adapter": 0.003}


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How long and how to adapt; the defaults are what the digits benchmark measured best."""

    strategy: str = "information_maximization"
    trains: str = "mixture_weights"
    start: str = NEAREST  # or "mean", or a domain of the backbone
    steps: int = 100
    batch_size: int = 128
    learning_rate: float | None = None  # None: the strategy's own for what it trains
    check_every: int = 20  # steps between label-free checks; the best iterate is kept
    check_images: int = 1000
    start_images: int = 400  # of them, to choose the start with
    guard: bool = True  # go back to the start where the outcome is not to be trusted
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"no strategy {self.strategy!r}; choose from {', '.join(STRATEGIES)}")
        if self.trains not in TRAINS:
            raise ValueError(f"cannot train {self.trains!r}; choose from {', '.join(TRAINS)}")
        for name in ("steps", "batch_size", "check_every", "check_images", "start_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")


@dataclass
class Adaptation:
    """The result: one domain on a backbone, what was learned, and how it went."""

    backbone: Backbone
    domain: Domain
    learned_parameters: int
    scores: dict[str, Scores]  # label-free: source_only, batch_norm, start, adapted
    history: list[dict[str, float]] = field(default_factory=list)
    last: Domain | None = None  # the domain after the last step, whether kept or not
    notes: dict[str, Any] = field(default_factory=dict)

    def predict(self, images: Any) -> tuple[Tensor, Tensor]:
        """Classes (M,) and confidences in [0, 1] (M,) of images of any kind `adapt` takes."""
        prediction = self.predict_probabilities(images)
        confidence, labels = prediction.max(dim=1)
        return labels, confidence

    def predict_probabilities(self, images: Any) -> Tensor:
        """Class probabilities (M, N) of images of any kind `adapt` takes."""
        pixels = read_images(images, self.backbone.network.config.image_size)
        return probabilities(predict_logits(self.backbone.network, self.domain, pixels))

    def save(self, path: str | Path) -> None:
        """Write the adapter file: xi, statistics and any part of the domain's own."""
        save_adapter(path, self.backbone, self.domain, self.notes)


def load_adaptation(path: str | Path, backbone: Backbone) -> Adaptation:
    """An adapter file as an `Adaptation`, ready to predict; refused on another backbone."""
    domain, notes = load_adapter(path, backbone)
    return Adaptation(backbone, domain, notes.get("learned_parameters", 0), {}, notes=notes)


def adapt(
    backbone: Backbone,
    images: Any,
    strategy: str = "information_maximization",
    *,
    name: str = "target",
    **options: Any,
) -> Adaptation:
    """Adapt a frozen backbone to unlabelled images of a new domain.

    images: see `adapters.targets.read_images`; labels in them are never looked at.
    options: fields of `AdaptConfig`, such as trains="input_adapter", steps=200, seed=1.
    The backbone is left bit-identical. Raises ValueError for wrong options or images.
    """
    run = prepare(backbone, images, name, AdaptConfig(strategy=strategy, **options))
    method = STRATEGIES[strategy]
    if method is not None:
        learn(run, method)
    return run.result()


def learn(run: "Run", method: Callable[[AdaptationTask], Strategy]) -> None:
    """Take all steps; end at the checked iterate whose predictions carry the most information.

    Or at the start, where the guard does not trust that one.
    """
    strategy = method(run.task())
    for step in range(run.config.steps):
        run.before(step)
        run.after(strategy.step(run.batch()))
    run.keep_best()


@dataclass
class Run:
    """One adaptation under way: what it has, the iterate kept so far, the figures of each step.

    Batch norm uses stored statistics throughout, so a step's gradient is that of the predictions.
    """

    config: AdaptConfig
    backbone: Backbone
    target: Domain
    trained: list[nn.Parameter]
    rate: float
    start: Tensor  # logits of both heads on the checked images, before anything is learned
    generator: torch.Generator
    pixels: NDArray[np.uint8]
    checked: NDArray[np.uint8]  # those of them that iterates are compared on, without labels
    scores: dict[str, Scores]
    notes: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    started: list[Tensor] = field(init=False)  # what is trained, at the start
    best: float = float("-inf")
    kept: list[Tensor] = field(default_factory=list)
    last: Domain | None = None
    optimizer: torch.optim.Optimizer | None = None

    def __post_init__(self) -> None:
        self.started = self.values()

    def task(self) -> AdaptationTask:
        """What a strategy is given, with a new optimizer."""
        self.optimizer = torch.optim.Adam(self.trained, lr=self.rate)
        return AdaptationTask(
            self.backbone,
            self.target,
            self.trained,
            self.optimizer,
            self.config.batch_size,
            self.generator,
        )

    def batch(self) -> Tensor:
        """A random batch of the target's images (B, 3, S, S), on the backbone's device."""
        network, size = self.backbone.network, (self.config.batch_size,)
        chosen = torch.randint(len(self.pixels), size, generator=self.generator)
        batch = to_input(self.pixels[chosen.numpy()], network.config.image_channels)
        return batch.to(network.device)

    def before(self, step: int) -> None:
        """Check the iterate where it is due, and set the learning rate of this step."""
        if step % self.config.check_every == 0:
            self.check(step)
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = self.rate * 0.5 * (1 + cos(pi * step / self.config.steps))

    def after(self, figures: Mapping[str, float]) -> None:
        """Note a step's figures."""
        self.history.append({"step": len(self.history) + 1, **figures, "checked": self.best})

    def check(self, step: int) -> None:
        """Keep the iterate if its predictions carry more information than any before."""
        found = score(predict_logits(self.backbone.network, self.target, self.checked))
        if found.information > self.best:
            self.best, self.notes["kept_step"] = found.information, step
            self.kept = self.values()

    def keep_best(self) -> None:
        """After the last step: check it too, and go back to the best iterate.

        Or to the start, where the guard does not trust that one.
        """
        self.check(self.config.steps)
        self.last = deepcopy(self.target)
        self.go_back(self.kept)
        if self.config.guard:
            kept = predict_logits(self.backbone.network, self.target, self.checked)
            verdict = judge(self.start, kept)
            self.notes["guard"] = asdict(verdict)
            if not verdict.trusted:
                self.go_back(self.started)
                self.notes["kept_step"] = 0

    def values(self) -> list[Tensor]:
        """A copy of what is trained, as it stands."""
        return [parameter.detach().clone() for parameter in self.trained]

    @torch.no_grad()
    def go_back(self, values: Sequence[Tensor]) -> None:
        """Give what is trained the values it had."""
        for parameter, value in zip(self.trained, values, strict=True):
            parameter.copy_(value)

    def result(self) -> Adaptation:
        """The adaptation as it stands."""
        last = self.last or self.target
        logits = predict_logits(self.backbone.network, self.target, self.checked)
        self.scores["adapted"] = score(logits)
        for domain in (self.target, last):
            domain.requires_grad_(False)
        learned = sum(parameter.numel() for parameter in self.trained)
        self.notes |= {
            "learned_parameters": learned,
            "trains": self.config.trains,
            "seed": self.config.seed,
        }
        return Adaptation(
            self.backbone, self.target, learned, self.scores, self.history, last, self.notes
        )


def prepare(backbone: Backbone, images: Any, name: str, config: AdaptConfig) -> Run:
    """Read the images, choose the start, and make what the strategy needs."""
    check_start(backbone, config.start)
    network = backbone.network
    pixels = read_images(images, network.config.image_size)
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(pixels), generator=generator).numpy()
    checked = pixels[order[: config.check_images]]

    plain = make_start(backbone, plain_start_name(backbone), name, checked)
    scores = {}
    for baseline, share in BASELINES.items():
        plain.use_statistics(share)
        scores[baseline] = score(predict_logits(network, plain.target, checked))
    method = STRATEGIES[config.strategy]
    if method is None:
        start = plain
        start.use_statistics(BASELINES[config.strategy])
    else:
        start = best_start(backbone, config.start, name, checked, config.start_images)
    logits = predict_logits(network, start.target, checked)
    scores["start"] = score(logits)
    notes = {"strategy": config.strategy, "start": start.name, "target_share": start.share}

    trained: list[nn.Parameter] = []
    rate = config.learning_rate or LEARNING_RATES[config.trains]
    if method is not None:
        trained = trainable_parameters(backbone, start.target, config.trains)
        rate *= 1.0 if config.learning_rate else method.RATE
    return Run(
        config=config,
        backbone=backbone,
        target=start.target,
        trained=trained,
        rate=rate,
        start=logits,
        generator=generator,
        pixels=pixels,
        checked=checked,
        scores=scores,
        notes=notes,
    )


def trainable_parameters(backbone: Backbone, target: Domain, trains: str) -> list[nn.Parameter]:
    """Parameters of the target that may move; an input adapter becomes the target's own copy."""
    if trains == "input_adapter":
        target.input_adapter = deepcopy(backbone.network.input_adapter)
        trained = list(target.input_adapter.parameters())
    elif isinstance(target.mixture, MixtureWeights):
        trained = [target.mixture.xi]
    else:
        raise ValueError(
            "this backbone is an unshared network: it has no mixture weights to train; "
            'use trains="input_adapter", or a compositional backbone'
        )
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained

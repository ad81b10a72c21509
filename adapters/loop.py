"""One adaptation from its start over all steps to what is kept."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from math import cos, pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from adapters.adaptation import Adaptation
from adapters.config import AUTO, BASELINES, LEARNING_RATES, STRATEGIES, AdaptConfig
from adapters.guard import judge_learning
from adapters.replay import replayed
from adapters.selection import Scores, score
from adapters.start import best_start, check_start, make_start, plain_start_name
from adapters.strategies.contract import AdaptationTask, Strategy, draw
from adapters.strategies.losses import class_frequencies, information
from da_compose import Backbone, Domain, probabilities
from da_compose.images import to_pixels
from da_compose.inference import predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.reading import read_images
from da_compose.statistics import shrunk_share

PRIOR_IMAGES = 100  # the start weighs like so many images of the target
MOST_RESIDENT = 0.25  # of a GPU's free memory, for images


def learn(run: "Run", method: Callable[[AdaptationTask], Strategy]) -> None:
    """Take all steps; end near the checked iterate whose predictions carry the most information.

    How near, see `Run.keep_best`: at the start, where the guard does not trust the outcome.
    """
    strategy = method(run.task())
    precision = torch.bfloat16 if run.config.bfloat16 else None

    def advance() -> Mapping[str, Tensor]:
        with run.backbone.network.computing(precision):
            return strategy.step(run.batch())

    if run.config.cuda_graph:
        advance = replayed(advance, run.draws, strategy.WARM_UP)
    for step in range(run.config.num_steps):
        run.before(step)
        run.after(advance())
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
    draws: torch.Generator  # of batches and source samples, on the backbone's device
    pixels: NDArray[np.uint8] | Tensor  # a tensor where they lie on the backbone's device
    checked: NDArray[np.uint8]  # those of them that iterates are compared on, without labels
    scores: dict[str, Scores]
    notes: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)  # figures may be tensors
    started: list[Tensor] = field(init=False)  # what is trained, at the start
    expected: Tensor = field(init=False)  # class frequencies (N,), by the start's predictions
    best: float = float("-inf")
    kept: list[Tensor] = field(default_factory=list)
    last: Domain | None = None
    optimizer: torch.optim.Optimizer | None = None

    def __post_init__(self) -> None:
        self.started = self.values()
        self.expected = class_frequencies(probabilities(self.start))

    def task(self) -> AdaptationTask:
        """What a strategy is given, with a new optimizer."""
        recorded = self.config.cuda_graph
        rate = torch.tensor(self.rate, device=self.draws.device) if recorded else self.rate
        self.optimizer = Adam(self.trained, lr=rate, capturable=recorded)
        return AdaptationTask(
            self.backbone,
            self.target,
            self.trained,
            self.optimizer,
            self.config.batch_size,
            self.draws,
            expected=self.expected.to(self.draws.device),
            recorded=recorded,
        )

    def batch(self) -> Tensor:
        """A random batch of the target's images (B, 3, S, S), on the backbone's device."""
        network = self.backbone.network
        chosen = draw(len(self.pixels), self.config.batch_size, self.draws)
        if isinstance(self.pixels, Tensor):
            return to_pixels(self.pixels[chosen])
        batch = to_pixels(self.pixels[chosen.cpu().numpy()])
        return batch.to(network.device)

    def before(self, step: int) -> None:
        """Check the iterate where it is due, and set the learning rate of this step."""
        if step % self.config.check_every == 0:
            self.check(step)
        rate = self.rate * 0.5 * (1 + cos(pi * step / self.config.num_steps))
        for group in self.optimizer.param_groups if self.optimizer else ():
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a recorded step reads it there
            else:
                group["lr"] = rate

    def after(self, figures: Mapping[str, float | Tensor]) -> None:
        """Note a step's figures, without waiting for those that are tensors."""
        self.history.append({"step": len(self.history) + 1, **figures, "checked": self.best})

    def check(self, step: int) -> None:
        """Keep the iterate if its predictions carry more information than any before."""
        logits = predict_logits(self.backbone.network, self.target, self.checked)
        found = information(probabilities(logits), self.expected).item()
        if found > self.best:
            self.best, self.notes["kept_step"] = found, step
            self.kept = self.values()

    def keep_best(self) -> None:
        """After the last step: check it too, and go most of the way from the start to the best.

        The fewer images, the less of it (`PRIOR_IMAGES`). And nothing of it where the guard does
        not trust the outcome.
        """
        self.check(self.config.num_steps)
        self.last = deepcopy(self.target)
        self.keep(shrunk_share(len(self.pixels), PRIOR_IMAGES))
        if self.config.guard:
            kept = predict_logits(self.backbone.network, self.target, self.checked)
            verdict = judge_learning(self.start, kept)
            self.notes["guard"] = asdict(verdict)
            if not verdict.trusted:
                self.keep(0.0)
                self.notes["kept_step"] = 0

    def keep(self, share: float) -> None:
        """Go this share of the way from the start to the best iterate."""
        ways = zip(self.started, self.kept, strict=True)
        self.go_back([start.lerp(kept, share) for start, kept in ways])
        self.notes["kept_share"] = share

    def restart(self, strategy: str) -> None:
        """Back to the start, for a strategy at its own rate; as if nothing had been learned."""
        self.go_back(self.started)
        self.rate, self.best = rate_of(self.config, strategy), float("-inf")
        self.history, self.last = [], None

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
        history = as_numbers(self.history)
        return Adaptation(
            self.backbone,
            self.target,
            learned_parameters=learned,
            scores=self.scores,
            history=history,
            last=last,
            notes=self.notes,
        )


def as_numbers(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The figures of all steps as numbers, from their device in one transfer."""
    tensors = [f for entry in history for f in entry.values() if isinstance(f, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [
        {name: next(numbers) if isinstance(f, Tensor) else f for name, f in entry.items()}
        for entry in history
    ]


def on_device(pixels: NDArray[np.uint8], device: torch.device) -> NDArray[np.uint8] | Tensor:
    """The images on a GPU, if they take no more than `MOST_RESIDENT` of what it has free."""
    if device.type != "cuda" or pixels.nbytes > MOST_RESIDENT * torch.cuda.mem_get_info(device)[0]:
        return pixels
    return torch.from_numpy(np.array(pixels)).to(device)


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
    if config.strategy in BASELINES:
        start = plain
        start.use_statistics(BASELINES[config.strategy])
    else:
        start = best_start(backbone, config.start, name, checked, config.start_images)
    logits = predict_logits(network, start.target, checked)
    if not logits.isfinite().all():
        raise ValueError(
            "the backbone's predictions are not finite, so it is damaged or its pretraining "
            "diverged; pretrain it again"
        )
    scores["start"] = score(logits)
    notes = {"strategy": config.strategy, "start": start.name, "target_share": start.share}

    learns = config.strategy == AUTO or STRATEGIES[config.strategy] is not None
    trained = trainable_parameters(backbone, start.target, config.trains) if learns else []
    device = network.device
    on_gpu = device.type == "cuda"
    draws = torch.Generator(device).manual_seed(config.seed) if on_gpu else generator
    held = on_device(pixels, device)
    if config.cuda_graph and not isinstance(held, Tensor):
        where = "the images do not fit on it" if on_gpu else f"this backbone is on {device}"
        raise ValueError(f"cuda_graph replays steps on a GPU, and {where}; leave it out")
    return Run(
        config=config,
        backbone=backbone,
        target=start.target,
        trained=trained,
        rate=rate_of(config, config.strategy),
        start=logits,
        draws=draws,
        pixels=held,
        checked=checked,
        scores=scores,
        notes=notes,
    )


def rate_of(config: AdaptConfig, strategy: str) -> float:
    """Peak learning rate of a strategy: the one asked for, or its own for what it trains."""
    method = STRATEGIES.get(strategy)
    usual = LEARNING_RATES[config.trains] * (1.0 if method is None else method.RATE)
    return config.learning_rate or usual


def trainable_parameters(backbone: Backbone, target: Domain, trains: str) -> list[nn.Parameter]:
    """Parameters of the target that may move; an input adapter becomes the target's own copy."""
    if trains == "input_adapter":
        target.input_adapter = deepcopy(backbone.network.input_adapter)
        trained = list(target.input_adapter.parameters())
    elif isinstance(target.mixture, MixtureWeights):
        trained = [target.mixture.xi]
    else:
        raise ValueError(
            "this backbone has a fixed signature, as an unshared network does, and no mixture "
            "weights to train; "
            'use trains="input_adapter", or a compositional backbone'
        )
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained

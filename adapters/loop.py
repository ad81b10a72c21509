"""The steps of one strategy from a start, and the iterate that is kept of them."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import cos, pi
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from adapters.config import AdaptConfig
from adapters.parts import unlock, usual_of
from adapters.prepare import Ready
from adapters.replay import replayed
from adapters.strategies.contract import (
    AdaptationTask,
    Strategy,
    begun,
    draw,
    is_taught,
    rate_of,
    warm_up_of,
)
from adapters.strategies.losses import information, teaching
from da_compose import Domain, Network, probabilities
from da_compose.images import to_pixels
from da_compose.inference import predict_logits
from da_compose.progress import phase

MOST_RESIDENT = 0.25  # of a GPU's free memory, for images


@dataclass(frozen=True)
class Learned:
    """What a strategy made of a start: values of what it trains, at three places of its way.

    started, best, last: at the start, at the checked iterate whose predictions carry the most
    information, after the last step. history: the figures of each step.
    """

    target: Domain
    started: Sequence[Tensor]
    best: Sequence[Tensor]
    last: Sequence[Tensor]
    best_step: int
    history: list[dict[str, float]] = field(repr=False)
    places: Sequence[str] = field(repr=False)  # names of what is trained, in the target

    def between(self, share: float, end: Sequence[Tensor] | None = None) -> Domain:
        """The domain this share of the way from the start to the best iterate, or to `end`."""
        domain = deepcopy(self.target).requires_grad_(False)
        ends = self.best if end is None else end
        for place, start, value in zip(self.places, self.started, ends, strict=True):
            domain.get_parameter(place).copy_(start.lerp(value, share))
        return domain

    @property
    def num_parameters(self) -> int:
        """How many numbers were trained."""
        return sum(value.numel() for value in self.started)


class Loop:
    """One adaptation under way: what is trained, the best iterate so far, the figures of each step.

    Batch norm uses stored statistics throughout, so a step's gradient is that of the predictions.
    """

    def __init__(self, ready: Ready, strategy: Strategy, expected: Tensor | None = None) -> None:
        self.ready, self.config, self.backbone = ready, ready.config, ready.backbone
        self.expected = ready.expected if expected is None else expected
        self.target = deepcopy(ready.target)
        self.trained = unlock(self.backbone.network, self.target, self.config.trains)
        self.started = self.values()
        self.rate = learning_rate(self.config, strategy, self.backbone.network)
        device = self.backbone.network.device
        self.draws = torch.Generator(device if device.type == "cuda" else "cpu")
        if device.type == "cuda":
            self.draws.manual_seed(self.config.seed)
        else:
            self.draws.set_state(ready.drawn)
        self.consensus = ready.consensus.to(device) if is_taught(strategy) else None
        pixels = ready.pixels
        if self.consensus is not None:  # on the images that starts were compared on alone
            pixels = ready.checked[: len(self.consensus)]
        self.pixels = on_device(pixels, device)
        if self.config.cuda_graph and not isinstance(self.pixels, Tensor):
            on_gpu = device.type == "cuda"
            where = "the images do not fit on it" if on_gpu else f"this backbone is on {device}"
            raise ValueError(f"cuda_graph replays steps on a GPU, and {where}; leave it out")
        recorded = self.config.cuda_graph
        rate = torch.tensor(self.rate, device=device) if recorded else self.rate
        self.optimizer: torch.optim.Optimizer = Adam(self.trained, lr=rate, capturable=recorded)
        self.history: list[dict[str, Any]] = []  # figures may be tensors
        self.best, self.best_step, self.best_values = float("-inf"), 0, self.started

    def task(self, extra: Callable[[AdaptationTask], Tensor] | None = None) -> AdaptationTask:
        """What a strategy is given."""
        task = AdaptationTask(
            self.backbone,
            self.target,
            self.trained,
            self.optimizer,
            self.config.num_images,
            self.draws,
            expected=self.expected.to(self.backbone.network.device),
            recorded=self.config.cuda_graph,
        )
        return task if extra is None else task.adding(extra)

    def batch(self) -> Tensor:
        """A random batch of the target's pixels (B, 1 or 3, S, S), on the backbone's device."""
        return self.inputs()[0]

    def inputs(self) -> tuple[Tensor, ...]:
        """What a step is given: a batch, and where the strategy is taught the consensus on it."""
        chosen = draw(len(self.pixels), self.config.num_images, self.draws)
        if isinstance(self.pixels, Tensor):
            pixels = to_pixels(self.pixels[chosen])
        else:
            pixels = to_pixels(self.pixels[chosen.cpu().numpy()]).to(self.backbone.network.device)
        return (pixels,) if self.consensus is None else (pixels, self.consensus[chosen])

    def before(self, step: int) -> None:
        """Check the iterate where it is due, and set the learning rate of this step."""
        if step % self.config.check_every == 0:
            self.check(step)
        rate = self.rate * 0.5 * (1 + cos(pi * step / self.config.num_steps))
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a recorded step reads it there
            else:
                group["lr"] = rate

    def after(self, figures: Mapping[str, float | Tensor]) -> None:
        """Note a step's figures, without waiting for those that are tensors."""
        self.history.append({"step": len(self.history) + 1, **figures, "checked": self.best})

    def check(self, step: int) -> None:
        """Keep the iterate if its predictions carry more information than any before.

        Where there is a teacher: more information, less the cross-entropy to it.
        """
        logits = self.ready.logits  # of the start
        if step > 0:
            logits = predict_logits(self.backbone.network, self.target, self.ready.checked)
        found = information(probabilities(logits), self.expected).item()
        if self.consensus is not None:
            taught = logits[:, : len(self.consensus)]
            found -= teaching(probabilities(taught), self.ready.consensus).item()
        if found > self.best:
            self.best, self.best_step, self.best_values = found, step, self.values()

    def values(self) -> list[Tensor]:
        """A copy of what is trained, as it stands."""
        return [parameter.detach().clone() for parameter in self.trained]

    def end(self) -> Learned:
        """After the last step: check it too."""
        self.check(self.config.num_steps)
        named = {id(parameter): name for name, parameter in self.target.named_parameters()}
        return Learned(
            target=self.target,
            started=self.started,
            best=self.best_values,
            last=self.values(),
            best_step=self.best_step,
            history=as_numbers(self.history),
            places=[named[id(parameter)] for parameter in self.trained],
        )


def learn(
    ready: Ready,
    strategy: Strategy,
    *,
    expected: Tensor | None = None,
    extra: Callable[[AdaptationTask], Tensor] | None = None,
) -> Learned:
    """Take all steps of a strategy from a start, which stays as it is.

    expected: class frequencies (N,), in place of those that the start predicts.
    extra: a loss that is added to that of every step, given the task.
    """
    loop = Loop(ready, strategy, expected)
    own = begun(strategy, loop.task(extra))
    precision = torch.bfloat16 if ready.config.bfloat16 else None

    def advance() -> Mapping[str, Tensor]:
        with ready.backbone.network.computing(precision):
            return cast(Any, own).step(*loop.inputs())  # those that are taught take two

    if ready.config.cuda_graph:
        advance = replayed(advance, loop.draws, warm_up_of(own))
    with phase(f"adapting to {ready.target.name}", ready.config.num_steps) as adapting:
        for step in range(ready.config.num_steps):
            loop.before(step)
            loop.after(advance())
            adapting.advance()
    return loop.end()


def learning_rate(config: AdaptConfig, strategy: Strategy, network: Network) -> float:
    """Peak learning rate: the one asked for, or the strategy's own for what it trains."""
    return config.learning_rate or usual_of(network).rates[config.trains] * rate_of(strategy)


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

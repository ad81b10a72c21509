"""A stream of a domain's images: the domain follows it, but never far from the adapted one."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapters.guard import judge
from adapters.parts import LEARNING_RATES
from adapters.selection import score
from adapters.strategies.contract import AdaptationTask, begun
from adapters.strategies.information_maximization import InformationMaximization
from adapters.strategies.losses import class_frequencies
from da_compose import Backbone, Domain, probabilities
from da_compose.evidence import TINY
from da_compose.inference import batches, predict_logits
from da_compose.model.mixture import LearnedMixture
from da_compose.model.norms import EPSILON
from da_compose.options import make_whole
from da_compose.statistics import blend_statistics, estimate_statistics, shrunk_share


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How fast a stream is followed, and how far at most."""

    chunk: int = 64  # images the domain moves by: fewer wait, more are cut
    memory: int = 256  # last images, for the steps and for the guard
    least_diversity: float = 0.5  # of predictions on them (`Scores`), or nothing moves
    prior_images: int = 256  # the statistics so far weigh like so many images
    statistics_radius: float = 0.25  # most a channel may move, in its adapted standard deviations
    # Of information maximization a chunk; 0: statistics alone. Adam begins anew each chunk, so the
    # first of them moves every number by its rate, up or down: how steep the loss is counts little
    steps: int = 1
    rate: float = 0.1  # learning rate, as a multiple of `adapt`'s
    radius: float = 0.1  # most that what is trained may move, over its adapted length

    def __post_init__(self) -> None:
        make_whole(self, chunk=2, memory=2, prior_images=1, steps=0)
        for name in ("least_diversity", "statistics_radius", "rate", "radius"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class StreamUpdate:
    """What one call of `Stream.update` did, and where the domain stands."""

    moves: int  # chunks that the domain followed
    refused: int  # chunks that it did not
    waiting: int  # images kept until they make a chunk
    changed: float  # share of the last images whose class is not the adapted domain's, 0 to 1
    statistics_drift: float  # root mean square over channels, in adapted standard deviations
    drift: float  # of what is trained, over its adapted length
    reason: str  # what the guard said of the last chunk


class Stream:
    """Follows a stream from an adapted domain; that domain and the backbone are left alone.

    Images are taken in by chunks of one size: how the stream is cut into calls does not matter,
    and single images are as good as any batch. A chunk moves the batch-norm statistics by a
    running average, then xi (or the domain's own input adapter) by steps of information
    maximization on the last images; both stay in a ball around the adapted ones. Where predictions
    on the last images lack diversity, nothing moves. Where the guard does not trust the outcome
    against the adapted domain, the move is taken back; where it does not trust what was before
    either, the domain is the adapted one again. Nothing is drawn at random.
    """

    def __init__(self, backbone: Backbone, adapted: Domain, config: StreamConfig) -> None:
        self.backbone, self.adapted, self.config = backbone, adapted, config
        self.domain = deepcopy(adapted)
        self.trained, self.rate = _trained(self.domain) if config.steps else ([], 0.0)
        self.started = self._values()
        network = backbone.network.config
        colours = (3,) if network.image_channels > 1 else ()
        self.memory = np.empty((0, network.image_size, network.image_size, *colours), np.uint8)
        self.waiting = self.memory
        num_classes = len(backbone.class_names_of(adapted))
        self.before = torch.empty(2, 0, num_classes)  # adapted domain's logits on `memory`
        self.last = StreamUpdate(0, 0, 0, 0.0, 0.0, 0.0, "no chunk yet")
        self.changed, self.reason = self.last.changed, self.last.reason

    def update(self, pixels: NDArray[np.uint8]) -> StreamUpdate:
        """Take in unlabelled images, one or more: uint8 (M, S, S) or (M, S, S, 3).

        Where an error or ctrl-C ends it, nothing of it has happened.
        """
        kept, values = dict(vars(self)), self._values()
        try:
            return self._take_in(pixels)
        except BaseException:
            vars(self).update(kept)
            self._go_to(values)
            self.domain.requires_grad_(False)
            raise

    def _take_in(self, pixels: NDArray[np.uint8]) -> StreamUpdate:
        if pixels.ndim < self.waiting.ndim:
            pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        followed = []
        while len(pixels):
            room = self.config.chunk - len(self.waiting)
            self.waiting = np.concatenate([self.waiting, pixels[:room]])
            pixels = pixels[room:]
            if len(self.waiting) == self.config.chunk:
                chunk, self.waiting = self.waiting, self.memory[:0]
                followed.append(self._follow(chunk))
        mean, var, *trained = self.started
        shift = (self.domain.mean - mean) / var.clamp_min(EPSILON).sqrt()
        self.last = StreamUpdate(
            moves=sum(followed),
            refused=len(followed) - sum(followed),
            waiting=len(self.waiting),
            changed=self.changed,
            statistics_drift=shift.square().mean().sqrt().item() if len(shift) else 0.0,
            drift=_length(_apart(self.trained, trained)) / max(_length(trained), TINY),
            reason=self.reason,
        )
        return self.last

    def _follow(self, chunk: NDArray[np.uint8]) -> bool:
        """Move by one chunk; says whether the move was kept."""
        network, size = self.backbone.network, self.config.memory
        self.memory = np.concatenate([self.memory, chunk])[-size:]
        before = predict_logits(network, self.adapted, chunk)
        self.before = torch.cat([self.before, before], dim=1)[:, -size:]
        diversity = score(self.before).diversity
        tried, moved = [self._values(), self.started], None
        if diversity < self.config.least_diversity:
            self.reason = f"nothing moves: diversity of predictions is {diversity:.2f}"
        else:
            self._move(chunk)
            moved = self._values()
            tried.insert(0, moved)
        for values in tried:
            self._go_to(values)
            verdict = judge(self.before, predict_logits(network, self.domain, self.memory))
            self.changed = verdict.changed
            if values is moved:
                self.reason = verdict.reason
            if verdict.trusted:
                return values is moved
        return False

    def _move(self, chunk: NDArray[np.uint8]) -> None:
        """Statistics toward the chunk's, then what is trained by the memory; each in its ball."""
        network, domain, config = self.backbone.network, self.domain, self.config
        mean, var, *trained = self.started
        own = estimate_statistics(network, domain, batches(network, chunk, len(chunk)))
        share = shrunk_share(len(chunk), config.prior_images)
        moved = blend_statistics((domain.mean, domain.var), own, share)
        most = config.statistics_radius * var.clamp_min(EPSILON).sqrt()
        factor = (1 + config.statistics_radius) ** 2
        domain.set_statistics(
            moved[0].clamp(mean - most, mean + most), moved[1].clamp(var / factor, var * factor)
        )
        if not self.trained:
            return
        domain.requires_grad_(False)
        for parameter in self.trained:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(self.trained, lr=self.rate * config.rate)
        size = len(self.memory)
        expected = class_frequencies(probabilities(self.before)).to(network.device)
        task = AdaptationTask(
            self.backbone, domain, self.trained, optimizer, size, torch.Generator(), expected
        )
        method = begun(InformationMaximization(), task)
        for images in config.steps * list(batches(network, self.memory, size)):
            method.step(images)
        domain.requires_grad_(False)
        apart = _apart(self.trained, trained)
        kept = min(1.0, config.radius * _length(trained) / max(_length(apart), TINY))
        ends = (start + kept * move for start, move in zip(trained, apart, strict=True))
        self._go_to([domain.mean, domain.var, *ends])

    def _values(self) -> list[Tensor]:
        held = (self.domain.mean, self.domain.var, *self.trained)
        return [tensor.detach().clone() for tensor in held]

    @torch.no_grad()
    def _go_to(self, values: Sequence[Tensor]) -> None:
        held = (self.domain.mean, self.domain.var, *self.trained)
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)


def _trained(domain: Domain) -> tuple[list[nn.Parameter], float]:
    """What a stream may train, and at which rate: parts of its own, or else xi, or nothing."""
    if domain.input_adapter is not None:
        return list(domain.input_adapter.parameters()), LEARNING_RATES["input_adapter"]
    if domain.gamma is not None and domain.beta is not None:
        return [domain.gamma, domain.beta], LEARNING_RATES["batch_norm"]
    xi = [domain.mixture.xi] if isinstance(domain.mixture, LearnedMixture) else []
    return [one for one in xi if one.numel()], LEARNING_RATES["mixture_weights"]


def _apart(values: Sequence[Tensor], starts: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach() - start for value, start in zip(values, starts, strict=True)]


def _length(values: Sequence[Tensor]) -> float:
    """Euclidean length of all values together."""
    return sum(value.square().sum().item() for value in values) ** 0.5

"""Pretraining on labelled sources: a mixture and statistics a domain, shared templates."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from da_compose.images import ImageSet, with_channels
from da_compose.model.contract import Network
from da_compose.model.domain import POOLED, Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.parallel import copy_from_process_0, rank, sum_figures, sum_gradients, world
from da_compose.statistics import estimate_statistics
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.picture_augmentation import PictureAugmentation
from da_compose.training.regularizers import Regularization
from da_compose.training.sampling import Sampler, seeded


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How long and how to pretrain. Defaults: recipe `paper`, about 5 minutes on one CPU core."""

    steps: int = 700
    batch_size: int = 48  # images of each domain a step, of all processes together
    learning_rate: float = 3e-3  # peak of the one-cycle schedule
    xi_rate: float = 3.0  # learning rate of xi, as a multiple
    weight_decay: float = 0.05  # of kernels only
    clip: float = 5.0  # largest gradient norm
    augmentation: AugmentationConfig | PictureAugmentation | None = None
    bfloat16: bool = False  # matrix products in bfloat16: faster on GPUs, weights stay float32
    balanced: bool = False  # every class of a source equally often, however few its images
    pooled: bool = False  # also train a domain `pooled` on all sources together
    domains_a_step: int | None = None  # so many, drawn anew each step; None: all
    size_power: float | None = None  # they are drawn by number of images ** this; None: all alike
    regularization: Regularization | None = None  # of mixture weights and templates
    statistics_batches: int = 60  # batches a domain for its final batch-norm statistics
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2), ("statistics_batches", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.domains_a_step is not None and self.domains_a_step < 1:
            raise ValueError(f"domains_a_step must be at least 1, got {self.domains_a_step}")


class Pretrainer:
    """Trains a network on labelled sources; a step is a function of its number alone.

    Domains that the network lacks are added to it, or lie in `domains` alone where that is given.
    What does not require a gradient stays as it is; batch-norm statistics of the sources do not.

    Where a process group is initialized, each of its W processes makes a trainer and calls the same
    methods: each works on its share of every batch, and all get the network and the figures that
    one process gets of the whole, within float tolerance.
    """

    def __init__(
        self,
        network: Network,
        sources: Mapping[str, ImageSet],
        config: PretrainConfig,
        domains: Mapping[str, Domain] | None = None,
    ) -> None:
        if not sources:
            raise ValueError("pretraining needs at least one labelled source domain")
        if config.pooled and POOLED in sources:
            raise ValueError(
                f"a source is named {POOLED!r}, as is the domain of all sources together; "
                "rename the source or pretrain without `pooled`"
            )
        if config.regularization is not None and not isinstance(network, CompositionalNetwork):
            raise ValueError(
                f"regularization is of templates that are mixed, a {type(network).__name__} has "
                "none; leave it out"
            )
        self.network = network
        self.config = config
        self.sources = dict(sources)
        self.samplers = {
            name: Sampler(
                data, config.batch_size, config.seed * 1000 + position, balanced=config.balanced
            )
            for position, (name, data) in enumerate(self.sources.items())
        }
        self._check_shares()
        self.domains = dict(domains or self._of_network())
        self._check_labels()
        copy_from_process_0(network)
        parts = [*self.domains.values()]
        xi = [p for domain in parts for p in domain.mixture.parameters()]
        known = {id(p) for p in xi}
        own = [p for domain in parts for p in domain.parameters() if id(p) not in known]
        others = [p for p in (*network.shared_parameters(), *own) if p.ndim <= 2]
        kernels = [p for p in (*network.shared_parameters(), *own) if p.ndim > 2]
        rate = config.learning_rate
        groups = [
            {"params": kernels, "lr": rate, "weight_decay": config.weight_decay},
            {"params": others, "lr": rate, "weight_decay": 0.0},
            {"params": xi, "lr": rate * config.xi_rate, "weight_decay": 0.0},
        ]
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step_number = 0

    def _of_network(self) -> dict[str, Domain]:
        """The network's domain of every source, made where it lacks one."""
        for name in self.domain_names():
            if name not in self.network.domains:
                self.network.domains.add(self.network.new_domain(name))
        return {name: self.network.domains[name] for name in self.domain_names()}

    def _check_labels(self) -> None:
        for name, data in self.sources.items():
            classes = len(self.domains[name].class_names or range(self.network.config.num_classes))
            lowest, highest = int(data.labels.min()), int(data.labels.max())
            if lowest < 0 or highest >= classes:
                raise ValueError(
                    f"labels of {name} must be in 0..{classes - 1}, "
                    f"got {lowest}..{highest}; relabel it or build the network with more classes"
                )

    def domain_names(self) -> tuple[str, ...]:
        return (*self.sources, POOLED) if self.config.pooled else tuple(self.sources)

    def members(self, name: str) -> tuple[list[str], int]:
        """Sources in a domain's batch, and images of each: `pooled` has equal parts of all."""
        all_together = self.config.pooled and name == POOLED
        names = list(self.samplers) if all_together else [name]
        return names, max(1, self.config.batch_size // len(names))

    def batch_size(self, name: str) -> int:
        """Images in a domain's batch, of all processes together."""
        names, part = self.members(name)
        return len(names) * part

    def _check_shares(self) -> None:
        batch_size, processes = self.config.batch_size, world()
        if batch_size % processes:
            raise ValueError(
                f"batch_size {batch_size} cannot be divided equally among {processes} processes; "
                f"take a multiple of {processes}, or start a number of processes that divides it"
            )
        names, part = self.members(POOLED)
        if self.config.pooled and part < processes:
            raise ValueError(
                f"a batch of {POOLED!r} holds {part} of each source's images, too few for "
                f"{processes} processes; start {part} at most, or take a batch_size of "
                f"{len(names) * processes} or more"
            )

    def domain_batch(self, name: str, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, S, S) and labels (B,) of one domain, a function of the step alone.

        A batch of `pooled` holds an equal share of every source's, augmented anew. Of W processes,
        process r gets images r, r + W, r + 2 W, ... of the whole batch.
        """
        generator = seeded(self.config.seed, step, self.domain_names().index(name))
        names, part = self.members(name)
        inputs, labels = [], []
        for position, member in enumerate(names):
            rows = slice((rank() - position * part) % world(), part, world())
            pixels, all_labels = self.samplers[member].batch(step)
            pixels = pixels[:part]
            if self.config.augmentation is None:
                pixels = pixels[rows]
            else:
                pixels = self.config.augmentation.apply(pixels, generator, rows)
            inputs.append(with_channels(pixels, self.network.config.image_channels))
            labels.append(all_labels[rows])
        device = self.network.device
        return torch.cat(inputs).to(device), torch.cat(labels).to(device)

    def step(self) -> dict[str, float]:
        """One optimizer step over a batch of every domain: cross-entropy of both heads."""
        fraction = self.step_number / self.config.steps
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * one_cycle(fraction)
        self.optimizer.zero_grad()
        names = self._drawn(self.step_number)
        total_loss, correct, seen = 0.0, 0, 0
        for name in names:
            inputs, labels = self.domain_batch(name, self.step_number)
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.bfloat16):
                logits = self.network(inputs, self._training(name))  # (2, B, N)
            if self.config.bfloat16:
                logits = logits.float()
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
            loss = loss + self._penalty(self.domains[name])
            loss = loss * (len(labels) / self.batch_size(name))  # parts of the whole batch's mean
            (loss / len(names)).backward()
            total_loss += loss.item() / len(names)
            correct += int((logits.detach().sum(0).argmax(-1) == labels).sum())
            seen += len(labels)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        sum_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, self.config.clip)
        self.optimizer.step()
        self.step_number += 1
        device = self.network.device
        total_loss, correct, seen = sum_figures(total_loss, correct, seen, device=device)
        return {"loss": total_loss, "accuracy": 100 * correct / seen, "images": int(seen)}

    def _penalty(self, domain: Domain) -> Tensor | float:
        """What regularization adds to a domain's loss."""
        if self.config.regularization is None:
            return 0.0
        assert isinstance(self.network, CompositionalNetwork)  # checked at the start
        return self.config.regularization.loss(domain.mixture(), self.network.templates)

    def _drawn(self, step: int) -> list[str]:
        """The domains of one step, a function of the step alone."""
        names, count = self.domain_names(), self.config.domains_a_step
        if count is None or count >= len(names):
            return list(names)
        sizes = [sum(len(self.sources[n]) for n in self.members(name)[0]) for name in names]
        weights = torch.tensor(sizes, dtype=torch.float64) ** (self.config.size_power or 0.0)
        generator = seeded(self.config.seed, step, len(names))
        chosen = torch.multinomial(weights, count, generator=generator)
        return [names[position] for position in sorted(chosen.tolist())]

    def _training(self, name: str) -> Domain:
        """The domain in training mode, with batch norm over the batch of all processes."""
        domain = self.domains[name].use_batch_statistics()
        domain.synchronized = world() > 1
        return domain

    def finish(self) -> None:
        """Replace the running batch-norm statistics by estimates under the final weights."""
        steps = range(self.config.statistics_batches)
        for name in self.domain_names():
            domain = self._training(name)
            batches = (self.domain_batch(name, step)[0] for step in steps)
            domain.set_statistics(*estimate_statistics(self.network, domain, batches))
            domain.use_batch_statistics(False)
            domain.synchronized = False


def one_cycle(fraction: float, warm: float = 0.2) -> float:
    """Multiplier of the peak learning rate: linear warm-up, then cosine to nearly zero."""
    if fraction < warm:
        return 0.05 + 0.95 * fraction / warm
    progress = torch.tensor((fraction - warm) / (1 - warm))
    return float(0.001 + 0.999 * 0.5 * (1 + torch.cos(torch.pi * progress)))

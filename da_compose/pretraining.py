"""Pretraining on labelled sources: a mixture and statistics a domain, shared templates."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from da_compose.augmentation import AugmentationConfig
from da_compose.domain import Domain
from da_compose.images import ImageSet, normalize, to_pixels
from da_compose.network import CompositionalNetwork
from da_compose.parallel import copy_from_process_0, rank, sum_figures, sum_gradients, world
from da_compose.picture_augmentation import PictureAugmentation
from da_compose.statistics import estimate_statistics

POOLED = "pooled"  # name of the domain that is trained on all sources together


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
    statistics_batches: int = 60  # batches a domain for its final batch-norm statistics
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 2), ("statistics_batches", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class Sampler:
    """Endless seeded permutations of one image set; a batch is a function of the step alone.

    balanced: in each permutation every class comes equally often, rare ones again and again.
    """

    def __init__(
        self, data: ImageSet, batch_size: int, seed: int, *, balanced: bool = False
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.balanced = balanced
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.data))
        if epoch != self._epoch:
            self._order = self._permutation(seeded(self.seed, epoch))
            self._epoch = epoch
        return int(self._order[offset])

    def _permutation(self, generator: torch.Generator) -> Tensor:
        """Indices of one epoch (M,)."""
        order = torch.randperm(len(self.data), generator=generator)
        if not self.balanced:
            return order
        labels = torch.from_numpy(self.data.labels)[order]
        classes = labels.unique()
        share = -(-len(order) // len(classes))  # of each class, rounded up
        chosen = torch.cat(
            [repeated(order[labels == label], share, generator) for label in classes]
        )
        return chosen[torch.randperm(len(chosen), generator=generator)[: len(order)]]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels in [0, 1] (B, 1 or 3, S, S) and labels (B,) of one step."""
        first = step * self.batch_size
        chosen = [self._index(first + offset) for offset in range(self.batch_size)]
        return to_pixels(self.data.images[chosen]), torch.from_numpy(self.data.labels[chosen])


def repeated(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the values (M,), each as often as any other, or once more."""
    rounds = -(-count // len(values))
    orders = [torch.randperm(len(values), generator=generator) for _ in range(rounds)]
    return values[torch.cat(orders)[:count]]


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on all of the numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 0x9E3779B9) % (1 << 62)
    return torch.Generator().manual_seed(mixed)


class Pretrainer:
    """Trains a network on labelled sources; a step is a function of its number alone.

    Where a process group is initialized, each of its W processes makes a trainer and calls the same
    methods: each works on its share of every batch, and all get the network and the figures that
    one process gets of the whole, within float tolerance.
    """

    def __init__(
        self,
        network: CompositionalNetwork,
        sources: Mapping[str, ImageSet],
        config: PretrainConfig,
    ) -> None:
        if not sources:
            raise ValueError("pretraining needs at least one labelled source domain")
        if config.pooled and POOLED in sources:
            raise ValueError(
                f"a source is named {POOLED!r}, as is the domain of all sources together; "
                "rename the source or pretrain without `pooled`"
            )
        for name, data in sources.items():
            lowest, highest = int(data.labels.min()), int(data.labels.max())
            if lowest < 0 or highest >= network.config.num_classes:
                raise ValueError(
                    f"labels of {name} must be in 0..{network.config.num_classes - 1}, "
                    f"got {lowest}..{highest}; relabel it or build the network with more classes"
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
        for name in self.domain_names():
            if name not in network.domains:
                network.domains.add(network.new_domain(name))
        copy_from_process_0(network)
        xi = [p for domain in network.domains for p in domain.parameters()]
        kernels = [p for p in network.shared_parameters() if p.ndim > 2]
        others = [p for p in network.shared_parameters() if p.ndim <= 2]
        rate = config.learning_rate
        groups = [
            {"params": kernels, "lr": rate, "weight_decay": config.weight_decay},
            {"params": others, "lr": rate, "weight_decay": 0.0},
            {"params": xi, "lr": rate * config.xi_rate, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step_number = 0

    def domain_names(self) -> tuple[str, ...]:
        return (*self.sources, POOLED) if self.config.pooled else tuple(self.sources)

    def members(self, name: str) -> tuple[list[str], int]:
        """Sources in a domain's batch, and images of each: `pooled` has equal parts of all."""
        names = list(self.samplers) if name == POOLED else [name]
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
        """Network input (B, 3, S, S) and labels (B,) of one domain, a function of the step alone.

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
            inputs.append(normalize(pixels, self.network.config.image_channels))
            labels.append(all_labels[rows])
        device = self.network.device
        return torch.cat(inputs).to(device), torch.cat(labels).to(device)

    def step(self) -> dict[str, float]:
        """One optimizer step over a batch of every domain: cross-entropy of both heads."""
        fraction = self.step_number / self.config.steps
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * one_cycle(fraction)
        self.optimizer.zero_grad()
        names = self.domain_names()
        total_loss, correct, seen = 0.0, 0, 0
        for name in names:
            inputs, labels = self.domain_batch(name, self.step_number)
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.bfloat16):
                logits = self.network(inputs, self._training(name))  # (2, B, N)
            if self.config.bfloat16:
                logits = logits.float()
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
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

    def _training(self, name: str) -> Domain:
        """The domain in training mode, with batch norm over the batch of all processes."""
        domain = self.network.domains[name].train()
        domain.synchronized = world() > 1
        return domain

    def finish(self) -> None:
        """Replace the running batch-norm statistics by estimates under the final weights."""
        steps = range(self.config.statistics_batches)
        for name in self.domain_names():
            domain = self._training(name)
            batches = (self.domain_batch(name, step)[0] for step in steps)
            domain.set_statistics(*estimate_statistics(self.network, domain, batches))
            domain.eval()
            domain.synchronized = False


def one_cycle(fraction: float, warm: float = 0.2) -> float:
    """Multiplier of the peak learning rate: linear warm-up, then cosine to nearly zero."""
    if fraction < warm:
        return 0.05 + 0.95 * fraction / warm
    progress = torch.tensor((fraction - warm) / (1 - warm))
    return float(0.001 + 0.999 * 0.5 * (1 + torch.cos(torch.pi * progress)))

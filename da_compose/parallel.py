"""Several processes that train one network, a share of every batch each (torchrun).

Sums over processes make all figures, gradients and statistics those of the whole batch, so that
W processes do what one does, within float tolerance. With one process nothing here does anything.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

PATIENCE = timedelta(hours=1)  # while process 0 downloads data, or writes the backbone


def world() -> int:
    """How many processes train together: W, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0..W-1; process 0 writes and prints."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, where there are several, and leave them at the end.

    Yields the device of this process: `cpu` (gloo), or of `cuda` the GPU of its own (nccl).
    Raises ValueError for another device, or where a process would have no GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
    elif device == "cuda":
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {count}; "
                f"start {count} processes, or take --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=torch.device(device))
    else:
        raise ValueError(f"several processes train on cpu or cuda, a GPU each, got {device!r}")
    try:
        yield device
        dist.barrier()  # none leaves while another still works
    finally:
        dist.destroy_process_group()


@contextmanager
def process_0_first() -> Iterator[None]:
    """Process 0 does what is inside before the others do: prepare files that all then find."""
    if rank() > 0:
        dist.barrier()
    try:
        yield
    finally:  # the others go on, and fail in the same way, where process 0 failed
        if world() > 1 and rank() == 0:
            dist.barrier()


def as_process_0_says(answer: bool, device: torch.device) -> bool:
    """The answer of process 0, for all: a file that one sees another may not see yet."""
    if world() == 1:
        return answer
    said = torch.tensor(int(answer), device=device)
    dist.broadcast(said, 0)
    return bool(said)


def copy_from_process_0(network: nn.Module) -> None:
    """Make every process's parameters and buffers those of process 0."""
    if world() > 1:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.detach(), 0)


def sum_figures(*figures: float, device: torch.device) -> list[float]:
    """Sums over processes of a few numbers."""
    if world() == 1:
        return list(figures)
    sums = torch.tensor(figures, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sums over processes, in one message.

    Not DistributedDataParallel: a step has one backward pass a domain over shared weights, and the
    wrapper would send at every one of them, to hide the sending behind computing. That is not worth
    it for fewer than 100,000 weights (digits): one message, once a step.
    """
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    sums = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(sums)
    pieces = sums.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view(gradient.shape))


def synchronized_batch_norm(
    features: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    momentum: float,
    eps: float,
) -> Tensor:
    """`functional.batch_norm(training=True)` over the batches of all processes together.

    features: (B, C, ...), where B may differ among processes, and there are at least two values a
    channel in all. mean, var: running statistics (C,), updated in place; var is unbiased.
    torch.nn.SyncBatchNorm does the same, but on GPU only.
    """
    batch_mean, batch_var, count = batch_statistics(features)
    mean.lerp_(batch_mean, momentum)
    var.lerp_(batch_var * (count / (count - 1)), momentum)
    return _Normalize.apply(features, gamma, beta, batch_mean, batch_var, count, eps)


@torch.no_grad()
def batch_statistics(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) and number of values () of features (B, C, ...) everywhere.

    Of each process's own mean and squared deviations from it (Chan et al. 1979): sums of squares
    would lose the digits of a variance that is small against the mean.
    """
    channels = features.shape[1]
    own_mean = features.mean(_all_but_channels(features))
    deviations = (features - _per_channel(own_mean, features)).square()
    own_count = own_mean.new_full((1,), features.numel() // channels)
    own_squares = deviations.sum(_all_but_channels(features))
    rows = _gather(torch.cat([own_count, own_mean, own_squares]))
    counts, means, squares = rows.split([1, channels, channels], dim=1)  # (W, 1), (W, C), (W, C)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    return mean, (squares + counts * (means - mean).square()).sum(0) / count, count


class _Normalize(torch.autograd.Function):
    """Normalization by statistics of all processes' features, which its gradient goes through.

    With y = gamma z + beta and z = (x - mean) / deviation over n values a channel (Ioffe, Szegedy
    2015): dx = gamma / deviation (dy - sum(dy) / n - z sum(dy z) / n), sums over all processes.
    Gradients of gamma and beta are left as this process's parts: `sum_gradients` adds them up.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, gamma: Tensor, beta: Tensor,
        mean: Tensor, var: Tensor, count: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(features, gamma, mean, (var + eps).rsqrt(), count)
        return functional.batch_norm(features, mean, var, gamma, beta, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        features, gamma, mean, scale, count = ctx.saved_tensors
        normalized = (features - _per_channel(mean, features)) * _per_channel(scale, features)
        own_beta = gradient.sum(_all_but_channels(gradient))
        own_gamma = (gradient * normalized).sum(_all_but_channels(gradient))
        means = _gather(torch.stack([own_beta, own_gamma])).sum(0) / count  # of dy, dy z
        by_mean, by_scale = (_per_channel(part, features) for part in means)
        centred = gradient - by_mean - normalized * by_scale
        own = centred * _per_channel(gamma * scale, features)
        return own, own_gamma, own_beta, None, None, None, None


def _gather(values: Tensor) -> Tensor:
    """Every process's values (W, ...): of so few, in half the time of a sum by gloo."""
    rows = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(rows, values)
    return torch.stack(rows)


def _all_but_channels(features: Tensor) -> list[int]:
    return [axis for axis in range(features.ndim) if axis != 1]


def _per_channel(values: Tensor, features: Tensor) -> Tensor:
    """Values (C,) in a shape that broadcasts over features (B, C, ...)."""
    return values.view(-1, *[1] * (features.ndim - 2))

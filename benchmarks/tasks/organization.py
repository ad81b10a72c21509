"""Self-organization: which tasks share which layers (paper, section 4.3 and Figure 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mixture_distances(mixtures: Tensor) -> Tensor:
    """How far apart every two tasks are at each layer: mixtures (D, L, K) -> (L, D, D).

    Total variation distance of their weights: 0 where they use templates alike, 1 where they have
    none in common.
    """
    if mixtures.ndim != 3:
        raise ValueError(
            f"mixtures must have shape (tasks, layers, templates), got {tuple(mixtures.shape)}"
        )
    by_layer = mixtures.transpose(0, 1)  # (L, D, K)
    differences = by_layer[:, :, None] - by_layer[:, None]  # (L, D, D, K)
    return (differences.abs().sum(dim=-1) / 2).clamp_max(1)  # weights sum to 1 but for rounding


def agreement(distances: Tensor, groups: Sequence[str]) -> Tensor:
    """How much more tasks of one group share each layer: distances (L, D, D) -> (L,).

    Mean distance of two tasks of different groups minus that of two of the same group, from -1 to
    1; above 0 where tasks of one group share the layer more than others do. `groups` names the
    group of each task. Raises ValueError where no two tasks are, or all are, of one group.
    """
    num_tasks = distances.shape[-1]
    if len(groups) != num_tasks:
        raise ValueError(f"{len(groups)} groups named for {num_tasks} tasks; name one for each")
    pairs = torch.ones(num_tasks, num_tasks, device=distances.device).triu(diagonal=1).bool()
    same = torch.tensor([[one == other for other in groups] for one in groups], device=pairs.device)
    within, across = pairs & same, pairs & ~same
    if not (within.any() and across.any()):
        raise ValueError(
            "agreement compares pairs of tasks within a group with pairs across groups, and needs "
            f"both; got the groups {', '.join(groups)}"
        )
    return distances[:, across].mean(dim=1) - distances[:, within].mean(dim=1)


def early_and_late(values: Tensor) -> tuple[float, float]:
    """Means over the first and the second half of the layers: values (L,), L at least 2.

    The middle one of an odd number of layers belongs to neither.
    """
    half = len(values) // 2
    if half == 0:
        raise ValueError(f"two halves take at least 2 layers, got {len(values)}")
    return float(values[:half].mean()), float(values[-half:].mean())

"""Classifiers of a domain that are its backbone's but for one map of low precision, as that map.

Those that heed centroids are (`da_compose.centroids`); a file of them takes a fourth of the bytes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from da_compose.storage.schema import check_tensors

OFFSET = "heads.offset"
Tensors = Mapping[str, Tensor]


def packed(tensors: Tensors, heads: nn.ModuleList) -> Tensors:
    """A domain's tensors with one offset for its classifiers' weights, where that is exact."""
    shared = _weights(heads)
    own = {name: tensors[name] for name in shared if name in tensors}
    if not own or any(own[name].shape != shared[name].shape for name in shared):
        return tensors
    offset = next(own[name] - shared[name] for name in shared).to(torch.float16)
    if not all(torch.equal(shared[name] + offset, own[name]) for name in shared):
        return tensors
    return {name: value for name, value in tensors.items() if name not in own} | {OFFSET: offset}


def unpacked(tensors: Tensors, heads: nn.ModuleList) -> Tensors:
    """What `packed` was given; raises ValueError for an offset that does not fit."""
    if OFFSET not in tensors:
        return tensors
    shared, offset = _weights(heads), tensors[OFFSET]
    one = next(iter(shared.values()))
    check_tensors({OFFSET: offset}, {OFFSET: torch.empty_like(one, dtype=torch.float16)})
    rest = {name: value for name, value in tensors.items() if name != OFFSET}
    return rest | {name: weight + offset.to(weight.device) for name, weight in shared.items()}


def _weights(heads: nn.ModuleList) -> dict[str, Tensor]:
    """Weights of the classifiers under their names in a domain."""
    found = heads.state_dict(prefix="heads.")
    return {name: value for name, value in found.items() if name.endswith(".weight")}

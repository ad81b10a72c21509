"""Which modules can be cut into stem, blocks and head, and what is said of others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.tracing import find_blocks
from tests.tiny_modules import CLASSES, SIZE, TinyConv, tiny_module


class Branching(TinyConv):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Skipping(TinyConv):
    def embed(self, x: Tensor) -> Tensor:
        start = torch.relu(self.norm(self.conv(x)))
        return self.pool(self.last(self.blocks(start) + start)).flatten(1)


class Twice(TinyConv):
    def embed(self, x: Tensor) -> Tensor:
        return super().embed(self.norm(self.norm(x.repeat(1, 2, 1, 1)))[:, :3])


class Listless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        return self.linear(x.mean(dim=(2, 3)))


class TwoOutputs(Listless):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = tiny_module().blocks

    def forward(self, x: Tensor) -> Any:
        return x, self.blocks(x.repeat(1, 2, 1, 1))


def pruned() -> nn.Module:
    module = TinyConv()
    prune.random_unstructured(module.last, "weight", 0.5)
    return module


def hooked() -> nn.Module:
    module = TinyConv()
    module.norm.register_forward_hook(lambda *given: 2 * given[-1])
    return module


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pruned, "TinyConv cannot be copied, as weights of it are computed anew by hooks"),
        (hooked, "a batch norm of TinyConv has hooks, which would not run"),
        (Branching, "Branching cannot be traced by torch.fx"),
        (Skipping, "cannot be cut at the last block: 2 values pass there"),
        (Twice, "uses batch norm norm more than once"),
        (TwoOutputs, "returns a tuple, expected one tensor"),
        (Listless, "no blocks found in Listless; name them"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(kind: Callable[[], nn.Module], said: str):
    with pytest.raises(ValueError, match=said) as error:
        PretrainedNetwork.of(kind(), num_classes=CLASSES, image_size=SIZE)
    assert "\n" not in str(error.value)


def test_blocks_may_be_named():
    network = PretrainedNetwork.of(
        tiny_module(), num_classes=CLASSES, image_size=SIZE, blocks=["blocks.1", "blocks.2"]
    )
    assert network.config.num_layers == 2
    with pytest.raises(ValueError, match=r"has no part block\.9"):
        PretrainedNetwork.of(
            tiny_module(), num_classes=CLASSES, image_size=SIZE, blocks=["block.9"]
        )


def test_blocks_are_found_in_stages():
    stages = nn.Sequential(
        nn.Sequential(*tiny_module().blocks), nn.Sequential(tiny_module().blocks[0])
    )
    assert find_blocks(stages) == ("0.0", "0.1", "0.2", "1.0")

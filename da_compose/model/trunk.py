"""A frozen torchvision network in front of the compositional one, cut where it still has a map.

Its weights are buffers: saved and fingerprinted with the rest, while nothing that trains, unfreezes
or counts parameters finds them. It stays in evaluation, under batch-norm statistics of its own.
"""

import re
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from da_compose.images import PIXEL_MEAN, PIXEL_STD

# Transformers of one sequence have no map; the other two normalize once more when they have weights
UNFIT = re.compile("vit_|googlenet|inception_v3")


class Trunk(nn.Module):
    """Frozen features: network input (B, 3, H, W) -> map (B, Ct, h, w), whatever the domain.

    name: a torchvision model and the last of its modules that is kept, such as `resnet18.layer3`.
    Weights are random until `load_trunk_weights`. Raises ValueError for an unknown name, and where
    images of `image_size` pixels have no map that patches of `patch_size` divide.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, image_size: int, patch_size: int = 1) -> None:
        # Takes as long to import as the rest of this package together
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.model_name, _, last = name.partition(".")
        known = [model for model in models.list_models(module=models) if not UNFIT.match(model)]
        if self.model_name not in known:
            raise ValueError(
                f"no trunk {name!r}: expected MODEL.MODULE of torchvision, such as "
                f"'resnet18.layer3', got model {self.model_name!r}{_close(self.model_name, known)}"
            )
        whole = models.get_model(self.model_name, weights=None).eval()
        modules = [module for module, _ in whole.named_modules() if module]
        if last not in modules:
            raise ValueError(
                f"no trunk {name!r}: {self.model_name} has no module {last!r}"
                f"{_close(last, modules)}; its parts: {', '.join(dict(whole.named_children()))}"
            )
        self.whole_names = frozenset(whole.state_dict())
        extractor = create_feature_extractor(whole, {last: "map"}, suppress_diff_warning=True)
        # Not the extractor itself: a deep copy of it switches to training mode
        self.model = GraphModule(extractor, extractor.graph)
        for module in self.model.modules():
            for parameter, value in list(module.named_parameters(recurse=False)):
                delattr(module, parameter)
                module.register_buffer(parameter, value.detach())
        published = models.get_model_weights(self.model_name)["DEFAULT"].transforms()
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in (published.mean, published.std))
        self.register_buffer("scale", PIXEL_STD / std, persistent=False)
        self.register_buffer("shift", (PIXEL_MEAN - mean) / std, persistent=False)
        self.eval()
        self.channels = self._map_channels(name, image_size, patch_size)

    def train(self, mode: bool = True) -> "Trunk":
        """Stay in evaluation, whatever the network does."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Undo our normalization, apply that of the published weights, compute the map."""
        return self.model(images * self.scale + self.shift)["map"]

    @torch.no_grad()
    def _map_channels(self, name: str, image_size: int, patch_size: int) -> int:
        """Ct, after a dry run."""
        try:
            shape = tuple(self(torch.zeros(1, 3, image_size, image_size)).shape)
        except RuntimeError as error:
            raise ValueError(
                f"trunk {name!r} does not fit images of {image_size} pixels ({error}); "
                "take larger images, or an earlier module"
            ) from error
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(
                f"trunk {name!r} gives {shape} for an image, expected a map (1, C, h, h); "
                "take an earlier module"
            )
        if shape[2] % patch_size:
            raise ValueError(
                f"trunk {name!r} makes {shape[2]}x{shape[2]} of {image_size} pixels, expected a "
                f"multiple of patch_size {patch_size}; 1 is usual on a trunk"
            )
        return shape[1]


def _close(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names)
    return f" (did you mean {' or '.join(close)}?)" if close else ""

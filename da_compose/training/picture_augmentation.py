"""Label-preserving changes of photographs and drawings, for sources while pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from da_compose.context import Drawing

if TYPE_CHECKING:
    from torchvision.transforms import v2

ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class PictureAugmentation:
    """Random resized crop, flip, colour jitter, grey: as in DomainBed (Gulrajani, Lopez-Paz 2021).

    But for the hue: turning it costs as much time as all the others.
    """

    crop: float = 0.7  # least share of the area that a crop keeps; 1: no crop
    flip: float = 0.5  # share of pictures that are mirrored left to right
    jitter: float = 0.3  # scale of brightness, contrast and saturation changes
    hue: float = 0.0  # largest turn of the hue; 0.5 is half a circle
    grey: float = 0.1  # share of pictures that lose their colour

    def __post_init__(self) -> None:
        limits = {"crop": (0.01, 1), "hue": (0, 0.5)}
        for name, value in vars(self).items():
            least, most = limits.get(name, (0, 1))
            if not least <= value <= most:
                raise ValueError(f"{name} must be between {least} and {most}, got {value}")

    def apply(self, pixels: Tensor, generator: torch.Generator, rows: slice = ALL) -> Tensor:
        """Change the pictures `rows` of a batch: pixels in [0, 1] (B, C, S, S) -> those rows.

        Each picture has a seed of its own, so its change does not depend on the others.
        """
        seeds = torch.randint(2**62, (len(pixels),), generator=generator)[rows]
        transform = self._transform(pixels.shape[-1], colour=pixels.shape[1] == 3)
        changed = []
        for picture, seed in zip(pixels[rows], seeds.tolist(), strict=True):
            with Drawing(seed):  # torchvision takes no generator
                changed.append(transform(picture))
        return torch.stack(changed).clamp(0, 1) if changed else pixels[rows]

    def _transform(self, size: int, colour: bool) -> v2.Transform:
        from torchvision.transforms import v2  # takes seconds to import

        saturation, hue = (self.jitter, self.hue) if colour else (0, 0)
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(self.crop, 1), antialias=True),
                v2.RandomHorizontalFlip(self.flip),
                v2.ColorJitter(self.jitter, self.jitter, saturation, hue),
                *([v2.RandomGrayscale(self.grey)] if colour else []),
            ]
        )

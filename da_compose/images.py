"""Images as the network sees them: uint8 pixels in, normalized float batches out."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

PIXEL_MEAN = 0.5  # the one place where normalization is written down, on pixels in [0, 1]
PIXEL_STD = 0.5
RESIZED_AT_ONCE = 2_000


@dataclass(frozen=True)
class ImageSet:
    """Images of one domain with labels: uint8 (M, S, S) or (M, S, S, 3), int64 (M,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)):
            raise ValueError(
                "images must be uint8 of shape (M, S, S) or (M, S, S, 3), "
                f"got {self.images.dtype} {shape}"
            )
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            raise ValueError(
                "labels must be int64 of shape (M,), "
                f"got {self.labels.dtype} {self.labels.shape}; convert them with astype"
            )
        if len(self.images) != len(self.labels) or len(self.images) == 0:
            raise ValueError(
                f"expected as many labels as images and at least one, "
                f"got {len(self.images)} images and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.images)


def to_pixels(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 (B, S, S) or (B, S, S, 3) -> float pixels in [0, 1], (B, 1 or 3, S, S).

    A tensor stays on its device.
    """
    held = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images, order="C"))
    pixels = held.float() / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def normalize(pixels: Tensor, channels: int = 3) -> Tensor:
    """Pixels in [0, 1] (B, 1 or `channels`, S, S) -> network input (B, channels, S, S)."""
    normalized = (pixels - PIXEL_MEAN) / PIXEL_STD
    if normalized.shape[1] == 1 and channels > 1:
        normalized = normalized.expand(-1, channels, -1, -1)
    return normalized.contiguous(memory_format=torch.channels_last)


def to_input(images: NDArray[np.uint8] | Tensor, channels: int = 3) -> Tensor:
    """uint8 (B, S, S) or (B, S, S, 3) -> network input (B, channels, S, S)."""
    return normalize(to_pixels(images), channels)


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Images (M, H, W) or (M, H, W, 3) at size x size, bilinear with antialiasing."""
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, *images.shape[3:]), dtype=np.uint8)
    for start in range(0, len(images), RESIZED_AT_ONCE):
        part = images[start : start + RESIZED_AT_ONCE]
        channels_first = np.moveaxis(part[..., None] if part.ndim == 3 else part, -1, 1)
        pixels = torch.from_numpy(channels_first.astype(np.float32))  # (B, C, H, W)
        pixels = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        whole = pixels.round().clamp(0, 255).byte().movedim(1, -1).numpy()
        resized[start : start + RESIZED_AT_ONCE] = whole.reshape(len(part), *resized.shape[1:])
    return resized

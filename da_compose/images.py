"""Images as uint8 arrays and as pixels in [0, 1], the one form that everything here takes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

# On pixels in [0, 1]; pretrained networks alone have their own
PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
OVERSHOOT, MOST_BEYOND = 0.25, 0.1  # of bicubic resizing: how far, how many values; they are cut
ROUNDING = 1e-3
NEARLY_BLACK = 32  # of 255: if no pixel is brighter, a word is said
AT_ONCE = 2**23  # values that are converted or resized in one go


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
                f"labels must be int64 of shape (M,), got {self.labels.dtype} {self.labels.shape}; "
                "convert them: labels.reshape(-1).astype(np.int64)"
            )
        if len(self.images) != len(self.labels) or len(self.images) == 0:
            raise ValueError(
                f"expected as many labels as images and at least one, "
                f"got {len(self.images)} images and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of images and labels."""
        digest = hashlib.sha256(f"{self.images.shape}".encode())
        for array in (self.images, self.labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def to_pixels(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 (B, S, S) or (B, S, S, 3) -> pixels: float in [0, 1], (B, 1 or 3, S, S).

    A tensor stays on its device. Networks take pixels, and normalize them themselves.
    """
    held = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images, order="C"))
    pixels = held.float() / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def normalize(
    pixels: Tensor,
    channels: int = 3,
    mean: float | Tensor = PIXEL_MEAN,
    std: float | Tensor = PIXEL_STD,
) -> Tensor:
    """Pixels in [0, 1] (B, 1 or `channels`, S, S) -> normalized (B, channels, S, S).

    mean, std: numbers, or tensors (channels, 1, 1). The first thing that a network does; nothing
    outside of one calls it.
    """
    normalized = with_channels((pixels - mean) / std, channels)
    return normalized.contiguous(memory_format=torch.channels_last)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """(B, 1 or `channels`, S, S) -> (B, channels, S, S): grey as so many equal channels."""
    grey = images.shape[1] == 1 and channels > 1
    return images.expand(-1, channels, -1, -1) if grey else images


def of_floats(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Floats in [0, 1] as uint8; a little outside, as resizing leaves some, is cut.

    Raises ValueError, with the range that was seen and what to do, for any other range.
    """
    low, high = float(values.min()), float(values.max())  # NaN where there is any
    beyond = sum(int(((p < -ROUNDING) | (p > 1 + ROUNDING)).sum()) for p in _parts(values))
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT) or beyond > MOST_BEYOND * values.size:
        if not np.isfinite([low, high]).all():
            remedy = "leave out the images with pixels that are not finite"
        elif high > 1 and low >= 0:
            remedy = "divide by the largest value a pixel may have, such as 16, 255, 4095 or 65535"
        else:
            remedy = "undo the normalization: the backbone applies its own"
        raise ValueError(
            f"float images must be finite and lie in [0, 1], got {low:.4g} to {high:.4g}; {remedy}"
        )
    converted = np.empty(values.shape, dtype=np.uint8)
    for part, place in zip(_parts(values), _parts(converted), strict=True):
        place[:] = (part.clip(0, 1) * 255).round()
    return converted


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Images (M, H, W) or (M, H, W, 3) at size x size, bilinear with antialiasing."""
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, *images.shape[3:]), dtype=np.uint8)
    start = 0
    for part in _parts(images):
        channels_first = np.moveaxis(part[..., None] if part.ndim == 3 else part, -1, 1)
        pixels = torch.from_numpy(channels_first.astype(np.float32))  # (B, C, H, W)
        pixels = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        whole = pixels.round().clamp(0, 255).byte().movedim(1, -1).numpy()
        resized[start : start + len(part)] = whole.reshape(len(part), *resized.shape[1:])
        start += len(part)
    return resized


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array along its first axis, `AT_ONCE` values at a time, so that copies stay small."""
    rows = max(1, AT_ONCE * len(array) // max(array.size, 1))
    return (array[start : start + rows] for start in range(0, len(array), rows))

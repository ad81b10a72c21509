"""Image transforms that make new tasks of known images: edges and blur.

Images are uint8 (N, H, W) grey or (N, H, W, 3) colour of any size; each colour channel is filtered
for itself, and beyond the border the nearest pixel goes on. Nothing here is random.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating]

BLUR_SIGMA = 1.5  # pixels of an image of 28 x 28; other sizes are blurred in proportion
BLUR_SIDE = 28
SOBEL_STEP = 4  # Sobel's answer to a straight step of height 1
CHUNK = 1_000_000  # values; keeps the working memory below 30 MB


def edges(images: Bytes) -> Bytes:
    """Gradient magnitude by Sobel: a straight step from black to white is white, a plain 0."""
    from scipy.ndimage import correlate1d  # its own sobel would also smooth along N

    def slope(part: Bytes, axis: int) -> Floats:
        difference = correlate1d(part, (-1, 0, 1), axis, np.float32, "nearest")
        return correlate1d(difference, (1, 2, 1), 3 - axis, mode="nearest")

    def magnitude(part: Bytes) -> Floats:
        return np.hypot(slope(part, 1), slope(part, 2)) / SOBEL_STEP

    return _in_chunks(images, magnitude)


def blur(images: Bytes) -> Bytes:
    """Gaussian whose sigma is `BLUR_SIGMA` pixels in 28, along height and width."""
    from scipy.ndimage import gaussian_filter

    def smooth(part: Bytes) -> Floats:
        sigmas = [BLUR_SIGMA * side / BLUR_SIDE for side in part.shape[1:3]]
        return gaussian_filter(part, sigmas, axes=(1, 2), output=np.float32, mode="nearest")

    return _in_chunks(images, smooth)


FILTERS: Mapping[str, Callable[[Bytes], Bytes]] = {"edges": edges, "blur": blur}


def _in_chunks(images: Bytes, apply: Callable[[Bytes], Floats]) -> Bytes:
    """What `apply` makes of the images, rounded and clipped to 0..255."""
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)):
        raise ValueError(
            f"expected uint8 images (N, H, W) or (N, H, W, 3), got {images.dtype} {shape}; "
            "filter whole batches as published, before they become network input"
        )
    filtered = np.empty_like(images)
    length = max(1, CHUNK // prod(shape[1:]))
    for start in range(0, len(images), length):
        part = slice(start, start + length)
        filtered[part] = np.clip(np.rint(apply(images[part])), 0, 255)
    return filtered

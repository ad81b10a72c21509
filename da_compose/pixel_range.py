"""How bright the sources' images are, so that a domain of another range is said to be one."""

import warnings
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from da_compose.images import NEARLY_BLACK

LOOKED_AT = 256  # images, evenly spread
FEWEST = 16  # images that say something of a domain
FAR = 0.3  # ratio of two domains' ranges; one site at half the contrast of another is usual
TAIL = 0.002  # of the values, at either end of a range
Range = tuple[float, float, float]  # low, mean, high: of 0 to 255


def pixel_range(images: NDArray[np.uint8]) -> Range:
    """Low and high percentile, and between them the mean, of images (M, ...)."""
    chosen = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
    counts = sum(np.bincount(images[n].reshape(-1), minlength=256) for n in chosen)
    share = np.cumsum(counts) / np.sum(counts)
    low, high = (int(np.searchsorted(share, tail)) for tail in (TAIL, 1 - TAIL))
    return float(low), round(float(counts @ np.arange(256) / np.sum(counts)), 1), float(high)


def warn_of_range(sources: Iterable[Range | None], images: NDArray[np.uint8]) -> None:
    """Warn where images have a range far from that of all sources; old files do not know theirs.

    Few images say nothing, nor do nearly black ones, of which reading them has warned.
    """
    known = [one for one in sources if one is not None]
    if not known or len(images) < FEWEST or images.max() < NEARLY_BLACK:
        return
    low, mean, high = found = pixel_range(images)
    if all(_far(found, source) for source in known):
        said = "; ".join(f"{one[0]:.0f} to {one[2]:.0f}, mean {one[1]:.0f}" for one in known[:3])
        warnings.warn(
            f"pixels here go from {low:.0f} to {high:.0f} of 255, mean {mean:.0f}; those of the "
            f"sources: {said}. Are they scaled alike?",
            stacklevel=4,
        )


def _far(one: Range, other: Range) -> bool:
    widths = sorted(high - low for low, _, high in (one, other))
    apart = one[0] > other[2] or other[0] > one[2]
    return apart or widths[0] < FAR * widths[1]

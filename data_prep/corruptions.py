"""Three corruptions of MNIST-C (Mu and Gilmer 2019): shot noise, shear and scale, at 28 x 28.

Images are uint8 (N, 28, 28); each corruption takes a severity 1..5 and a NumPy generator. The
affine maps keep the centre (13.5, 13.5) fixed, sample bilinearly and see black outside the image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SIDE = 28
CENTRE = (SIDE - 1) / 2
CHUNK = 2_000  # images; keeps the working memory below 30 MB

PHOTONS = (60, 25, 12, 5, 3)  # shot noise: expected count at a white pixel
SHEAR_ANGLES = (0.2, 0.4, 0.6, 0.8, 1.0)  # radians
SCALES = (1 / 0.9, 1 / 0.8, 1 / 0.7, 1 / 0.6, 1 / 0.5)  # input pixels per output pixel


def shot_noise(images: Bytes, severity: int, generator: np.random.Generator) -> Bytes:
    """clip(Poisson(c x) / c, 0, 1) for x in [0, 1]: photon noise of a dim exposure."""
    photons = PHOTONS[_row(images, severity)]
    noisy = np.empty_like(images)
    for part in _chunks(len(images)):
        counts = generator.poisson(images[part] * (photons / 255))
        noisy[part] = np.rint(np.minimum(counts / photons, 1) * 255)
    return noisy


def shear(images: Bytes, severity: int, generator: np.random.Generator) -> Bytes:
    """Shear by an angle whose sign is drawn for each image; the matrix is the released data's."""
    angle = SHEAR_ANGLES[_row(images, severity)]
    left = generator.random(len(images)) < 0.5  # (N,)
    sheared = np.empty_like(images)
    for side, sign in ((left, -1), (~left, 1)):
        matrix = np.array([[1, -np.sin(sign * angle)], [0, np.cos(sign * angle)]])
        sheared[side] = warp(images[side], matrix)
    return sheared


def scale(images: Bytes, severity: int, generator: np.random.Generator) -> Bytes:
    """Shrink the digit to 90, 80, 70, 60 or 50 % of its size; nothing here is random."""
    del generator  # the three share one signature
    return warp(images, np.eye(2) * SCALES[_row(images, severity)])


def warp(images: Bytes, matrix: NDArray[np.float64]) -> Bytes:
    """Sample each output pixel at `matrix` (2, 2) times its (x, y) offset from the centre."""
    neighbours, weights = _bilinear(matrix)
    warped = np.empty_like(images)
    for part in _chunks(len(images)):
        flat = images[part].reshape(-1, SIDE * SIDE)
        values = sum(flat[:, neighbours[i]] * weights[i] for i in range(4))
        warped[part] = np.rint(values).reshape(-1, SIDE, SIDE)
    return warped


class Corruption(NamedTuple):
    """A corruption and the severity MNIST-C uses for it."""

    apply: Callable[[Bytes, int, np.random.Generator], Bytes]
    severity: int


CORRUPTIONS = {
    "shot_noise": Corruption(shot_noise, severity=5),
    "shear": Corruption(shear, severity=2),
    "scale": Corruption(scale, severity=3),
}


def _bilinear(matrix: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Flat indices (4, P) of the four input neighbours of each output pixel, and their weights."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    x, y = matrix @ (np.stack([columns, rows]) - CENTRE) + CENTRE  # each (P,)
    neighbours, weights = [], []
    for column in (np.floor(x), np.floor(x) + 1):
        for row in (np.floor(y), np.floor(y) + 1):
            inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
            weights.append((1 - abs(x - column)) * (1 - abs(y - row)) * inside)
            neighbours.append(np.where(inside, row * SIDE + column, 0))
    return np.array(neighbours, dtype=np.intp), np.array(weights, dtype=np.float32)


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


def _row(images: Bytes, severity: int) -> int:
    """Index of the severity in the tables above, once the arguments are found sound."""
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"expected uint8 images (N, {SIDE}, {SIDE}), got {images.dtype} {images.shape}; "
            "corrupt MNIST before resizing it"
        )
    if severity not in range(1, 6):
        raise ValueError(f"expected a severity in 1..5, got {severity}; 5 is the strongest")
    return severity - 1

"""Random crops and colours of a whole batch of pictures at once: cheap beside a network's step."""

import torch
from torch import Generator, Tensor
from torch.nn import functional

LEAST_AREA = 0.6  # of a crop
ASPECT = 0.1  # largest log of width over height
GAIN, CHANNEL_GAIN = 0.3, 0.15  # largest log, of all channels and of one
SHIFT, CHANNEL_SHIFT = 0.1, 0.0375  # largest


def crop_and_colour(pixels: Tensor, generator: Generator, size: int | None = None) -> Tensor:
    """Crops, mirroring, brightness, contrast and tint, one draw a picture.

    Pixels in [0, 1], (B, 3, S, S) -> the same, or of `size` pixels a side.
    """
    count, (height, width) = len(pixels), (size, size) if size else pixels.shape[-2:]

    def uniform(*shape: int) -> Tensor:
        """Numbers in [-1, 1), (B, *shape)."""
        return 2 * torch.rand(count, *shape, generator=generator) - 1

    side = (LEAST_AREA + (1 - LEAST_AREA) * (uniform() + 1) / 2).sqrt()
    ratio = (ASPECT * uniform()).exp()
    across, along = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    matrix = torch.zeros(count, 2, 3)  # output position -> input position
    matrix[:, 0, 0] = torch.where(uniform() < 0, -across, across)
    matrix[:, 1, 1] = along
    matrix[:, 0, 2], matrix[:, 1, 2] = uniform() * (1 - across), uniform() * (1 - along)
    grid = functional.affine_grid(matrix, [count, 3, height, width], align_corners=False)
    found = functional.grid_sample(
        pixels, grid.to(pixels), padding_mode="reflection", align_corners=False
    )
    gain = (CHANNEL_GAIN * uniform(3, 1, 1) + GAIN * uniform(1, 1, 1)).exp()
    shift = CHANNEL_SHIFT * uniform(3, 1, 1) + SHIFT * uniform(1, 1, 1)
    return ((found - 0.5) * gain.to(pixels) + 0.5 + shift.to(pixels)).clamp(0, 1)

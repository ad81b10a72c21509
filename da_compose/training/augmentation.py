"""Label-preserving changes of digit images, for sources while pretraining (recipe `strong`)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Ranges of the random changes; every image draws its own. All zero: nothing changes."""

    log_scale: float = 0.35  # zoom by e^(+-log_scale), both axes together
    log_aspect: float = 0.15  # and by e^(+-log_aspect), one axis against the other
    rotation: float = 0.2  # radians
    shear: float = 0.2  # pixels a pixel
    shift: float = 0.12  # half image widths
    blur: float = 0.0  # share of images that are blurred by a 3x3 or 5x5 binomial kernel
    thickness: float = 0.0  # share of images whose strokes are thickened or thinned by a pixel
    contrast: float = 0.0  # scale of contrast and brightness changes
    noise: float = 0.0  # largest deviation of added Gaussian noise, pixels in [0, 1]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            most = 1 if name in ("blur", "thickness") else float("inf")
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be between 0 and {most}, got {value}")

    def apply(self, pixels: Tensor, generator: torch.Generator, rows: slice = ALL) -> Tensor:
        """See `augment`."""
        return augment(pixels, self, generator, rows)


@dataclass(frozen=True)
class Draws:
    """Random numbers for all `count` images of a batch; those of the images `rows` are given out.

    So an image's change does not depend on which other images are worked on here.
    """

    generator: torch.Generator
    count: int
    rows: slice

    def fraction(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (rows, *shape)."""
        return torch.rand(self.count, *shape, generator=self.generator)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [-1, 1), (rows, *shape)."""
        return 2 * self.fraction(*shape) - 1

    def normal(self, *shape: int) -> Tensor:
        """Numbers of the standard normal distribution, (rows, *shape)."""
        return torch.randn(self.count, *shape, generator=self.generator)[self.rows]


def augment(
    pixels: Tensor, config: AugmentationConfig, generator: torch.Generator, rows: slice = ALL
) -> Tensor:
    """Change the images `rows` of a batch at random: pixels in [0, 1] (B, C, S, S) -> those rows.

    They are changed as they would be among all others: whatever `rows`, draws are for the batch.
    """
    draws = Draws(generator, len(pixels), rows)
    pixels = random_affine(pixels[rows], config, draws)
    if config.thickness:
        pixels = random_thickness(pixels, config.thickness, draws)
    if config.blur:
        pixels = random_blur(pixels, config.blur, draws)
    if config.contrast:
        gain = 1 + config.contrast * draws.uniform()
        offset = 0.5 * config.contrast * draws.uniform()
        pixels = (pixels - 0.5) * _per_image(gain) + 0.5 + _per_image(offset)
    if config.noise:
        deviation = config.noise * draws.fraction()
        pixels = pixels + _per_image(deviation) * draws.normal(*pixels.shape[1:])
    return pixels.clamp(0, 1)


def random_affine(pixels: Tensor, config: AugmentationConfig, draws: Draws) -> Tensor:
    """Zoom, stretch, rotate, shear and shift each image; edges are continued outward."""
    count = len(pixels)
    zoom = (config.log_scale * draws.uniform()).exp()
    aspect = (config.log_aspect * draws.uniform()).exp()
    angle = config.rotation * draws.uniform()
    shear = config.shear * draws.uniform()
    matrix = torch.zeros(count, 2, 3)  # output position -> input position
    matrix[:, 0, 0] = angle.cos() * zoom * aspect
    matrix[:, 0, 1] = (shear * angle.cos() - angle.sin()) * zoom
    matrix[:, 1, 0] = angle.sin() * zoom * aspect
    matrix[:, 1, 1] = (shear * angle.sin() + angle.cos()) * zoom / aspect
    matrix[:, :, 2] = config.shift * draws.uniform(2)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def random_thickness(pixels: Tensor, share: float, draws: Draws) -> Tensor:
    """Grey dilation or erosion by a plus-shaped neighbourhood, blended at random strength."""
    draw = draws.uniform()
    strength = _per_image((draws.fraction() < share) * draw.abs())
    thicker = _plus_maximum(pixels)
    thinner = -_plus_maximum(-pixels)
    changed = torch.where(_per_image(draw) > 0, thicker, thinner)
    return pixels + strength * (changed - pixels)


def _plus_maximum(pixels: Tensor) -> Tensor:
    rows = functional.max_pool2d(pixels, (3, 1), 1, (1, 0))
    columns = functional.max_pool2d(pixels, (1, 3), 1, (0, 1))
    return torch.maximum(rows, columns)


def random_blur(pixels: Tensor, share: float, draws: Draws) -> Tensor:
    """Binomial blur, once or twice, blended at random strength."""
    channels = pixels.shape[1]
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (row[:, None] * row).expand(channels, 1, 5, 5)
    padded = functional.pad(pixels, (2, 2, 2, 2), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=channels)
    chosen = draws.fraction() < share
    strength = _per_image(chosen * draws.fraction())
    return pixels + strength * (blurred - pixels)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]

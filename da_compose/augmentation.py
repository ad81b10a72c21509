"""Label-preserving changes of digit images, for sources while pretraining (recipe `strong`)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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


def augment(pixels: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Change every image of a batch at random: pixels in [0, 1] (B, C, S, S), same shape out."""
    pixels = random_affine(pixels, config, generator)
    if config.thickness:
        pixels = random_thickness(pixels, config.thickness, generator)
    if config.blur:
        pixels = random_blur(pixels, config.blur, generator)
    if config.contrast:
        gain = 1 + config.contrast * _uniform(len(pixels), generator)
        offset = 0.5 * config.contrast * _uniform(len(pixels), generator)
        pixels = (pixels - 0.5) * _per_image(gain) + 0.5 + _per_image(offset)
    if config.noise:
        deviation = config.noise * torch.rand(len(pixels), generator=generator)
        pixels = pixels + _per_image(deviation) * torch.randn(pixels.shape, generator=generator)
    return pixels.clamp(0, 1)


def random_affine(pixels: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Zoom, stretch, rotate, shear and shift each image; edges are continued outward."""
    count = len(pixels)
    zoom = (config.log_scale * _uniform(count, generator)).exp()
    aspect = (config.log_aspect * _uniform(count, generator)).exp()
    angle = config.rotation * _uniform(count, generator)
    shear = config.shear * _uniform(count, generator)
    matrix = torch.zeros(count, 2, 3)  # output position -> input position
    matrix[:, 0, 0] = angle.cos() * zoom * aspect
    matrix[:, 0, 1] = (shear * angle.cos() - angle.sin()) * zoom
    matrix[:, 1, 0] = angle.sin() * zoom * aspect
    matrix[:, 1, 1] = (shear * angle.sin() + angle.cos()) * zoom / aspect
    matrix[:, :, 2] = config.shift * (2 * torch.rand(count, 2, generator=generator) - 1)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def random_thickness(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Grey dilation or erosion by a plus-shaped neighbourhood, blended at random strength."""
    draw = _uniform(len(pixels), generator)
    strength = _per_image((torch.rand(len(pixels), generator=generator) < share) * draw.abs())
    thicker = _plus_maximum(pixels)
    thinner = -_plus_maximum(-pixels)
    changed = torch.where(_per_image(draw) > 0, thicker, thinner)
    return pixels + strength * (changed - pixels)


def _plus_maximum(pixels: Tensor) -> Tensor:
    rows = functional.max_pool2d(pixels, (3, 1), 1, (1, 0))
    columns = functional.max_pool2d(pixels, (1, 3), 1, (0, 1))
    return torch.maximum(rows, columns)


def random_blur(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Binomial blur, once or twice, blended at random strength."""
    channels = pixels.shape[1]
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (row[:, None] * row).expand(channels, 1, 5, 5)
    padded = functional.pad(pixels, (2, 2, 2, 2), mode="replicate")
    blurred = functional.conv2d(padded, kernel, groups=channels)
    chosen = torch.rand(len(pixels), generator=generator) < share
    strength = _per_image(chosen * torch.rand(len(pixels), generator=generator))
    return pixels + strength * (blurred - pixels)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1  # in [-1, 1)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]

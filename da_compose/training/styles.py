"""Styles: label-preserving changes of how pictures look, one draw for all of a batch.

A batch in a random style stands for a domain that was never seen. All are pure functions of pixels
in [0, 1], (B, 3, S, S), and a generator; the values that they return may leave [0, 1], `restyle`
clamps them. S is at least 8 pixels.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

Style = Callable[[Tensor, Generator], Tensor]
LUMINANCE = (0.3, 0.59, 0.11)
SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def restyle(pixels: Tensor, number: int, generator: Generator) -> Tensor:
    """`number` different random styles after one another, of one draw for all pictures."""
    for index in torch.randperm(len(STYLES), generator=generator)[:number].tolist():
        pixels = STYLES[index](pixels, generator).clamp(0, 1)
    return pixels


def random_convolution(pixels: Tensor, generator: Generator) -> Tensor:
    """One random kernel of 1 to 7 pixels, new brightness and contrast, up to half kept as it was.

    Xu et al. 2021, "Robust and generalizable visual representation learning via random
    convolutions".
    """
    width = 2 * _whole(0, 3, generator) + 1
    kernel = torch.randn(3, 3, width, width, generator=generator).to(pixels)
    found = functional.conv2d(_reflected(pixels - 0.5, width // 2), kernel)
    found = found - found.mean(dim=(1, 2, 3), keepdim=True)
    found = found / (found.std(dim=(1, 2, 3), keepdim=True) + 1e-4)
    found = found * _between(0.175, 0.375, generator) + _between(0.35, 0.65, generator)
    return torch.lerp(found, pixels, _between(0, 0.5, generator))


def grey(pixels: Tensor, generator: Generator) -> Tensor:
    """No colour; nothing is drawn."""
    return _luminance(pixels)


def negative(pixels: Tensor, generator: Generator) -> Tensor:
    """Dark is bright; nothing is drawn."""
    return 1 - pixels


def mixed_channels(pixels: Tensor, generator: Generator) -> Tensor:
    """Channels permuted, each with a scale and a shift of its own."""
    order = torch.randperm(3, generator=generator).to(pixels.device)
    scale = 0.4 + torch.rand(1, 3, 1, 1, generator=generator)
    shift = 0.4 * (torch.rand(1, 3, 1, 1, generator=generator) - 0.5)
    return (pixels[:, order] - 0.5) * scale.to(pixels) + 0.5 + shift.to(pixels)


def blur(pixels: Tensor, generator: Generator) -> Tensor:
    """A mean filter of 3 to 7 pixels."""
    width = 2 * _whole(1, 3, generator) + 1
    return functional.avg_pool2d(_reflected(pixels, width // 2), width, 1)


def noise(pixels: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise, of deviation 0.05 to 0.25."""
    deviation = _between(0.05, 0.25, generator)
    return pixels + deviation * torch.randn(pixels.shape, generator=generator).to(pixels)


def contrast(pixels: Tensor, generator: Generator) -> Tensor:
    """Grey, with 1.5 to 3.5 times the contrast."""
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    found = (_luminance(pixels) - middle) * _between(1.5, 3.5, generator)
    return found + 0.5 + _between(-0.15, 0.25, generator)


def outline(pixels: Tensor, generator: Generator) -> Tensor:
    """The size of the gradient, as dark lines on white, or one in four times the other way."""
    found = _luminance(pixels)[:, :1]
    if _between(0, 1, generator) < 0.6:
        found = functional.avg_pool2d(_reflected(found, 1), 3, 1)
    sobel = pixels.new_tensor(SOBEL).view(1, 1, 3, 3)
    found = _reflected(found, 1)
    across, along = functional.conv2d(found, sobel), functional.conv2d(found, sobel.mT)
    found = (across.square() + along.square()).sqrt()
    strong = found.flatten(1).quantile(_between(0.9, 0.98, generator), dim=1)
    found = found / (strong.view(-1, 1, 1, 1) + 1e-3)
    least, gain = _between(0, 0.3, generator), _between(1, 2, generator)
    found = ((found - least) * gain).clamp(0, 1)
    dark = _between(0, 1, generator) < 0.75
    return (1 - found if dark else found).expand(-1, 3, -1, -1)


def amplitudes(pixels: Tensor, generator: Generator) -> Tensor:
    """Fourier amplitudes mixed with those of another picture (FACT, Xu et al. 2021)."""
    spectrum = torch.fft.rfft2(pixels - 0.5)
    amplitude = spectrum.abs()
    other = amplitude[torch.randperm(len(pixels), generator=generator).to(pixels.device)]
    mixed = torch.lerp(amplitude, other, _between(0.4, 1, generator))
    return torch.fft.irfft2(torch.polar(mixed, spectrum.angle()), s=pixels.shape[-2:]) + 0.5


def posterize(pixels: Tensor, generator: Generator) -> Tensor:
    """Two to four levels a channel."""
    levels = _whole(2, 4, generator)
    return (pixels * levels - 1e-4).floor().clamp_min(0) / (levels - 1)


def saturate(pixels: Tensor, generator: Generator) -> Tensor:
    """1.8 to 4 times as colourful."""
    return torch.lerp(_luminance(pixels), pixels, _between(1.8, 4, generator))


def pixelate(pixels: Tensor, generator: Generator) -> Tensor:
    """A quarter to 0.6 of the resolution, as squares or smooth."""
    size = pixels.shape[-1]
    small = functional.interpolate(
        pixels, size=max(1, int(size * _between(0.25, 0.6, generator))), mode="area"
    )
    return functional.interpolate(
        small, size=size, mode=("nearest", "bilinear")[_whole(0, 1, generator)]
    )


def gamma(pixels: Tensor, generator: Generator) -> Tensor:
    """Middle tones darker or brighter."""
    return pixels.clamp_min(0).pow(math.exp(_between(-1.1, 1.1, generator)))


STYLES: tuple[Style, ...] = (
    random_convolution, grey, negative, mixed_channels, blur, noise, contrast, outline, amplitudes,
    posterize, saturate, pixelate, gamma,
)  # fmt: skip


def _between(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _whole(low: int, high: int, generator: Generator) -> int:
    """From low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _reflected(pixels: Tensor, border: int) -> Tensor:
    return functional.pad(pixels, (border,) * 4, mode="reflect")


def _luminance(pixels: Tensor) -> Tensor:
    weights = pixels.new_tensor(LUMINANCE).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)

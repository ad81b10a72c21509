"""How a block's output is laid out, and the same as a map (B, C, S, S), which strategies take."""

from typing import Literal

from torch import Tensor

Layout = Literal["map", "channels last", "tokens", "vector"]


def layout_of(features: Tensor) -> Layout:
    """Layout of features (B, C, S, S), (B, S, S, C), as of a Swin, (B, T, C) or (B, C)."""
    if features.ndim == 2:
        return "vector"
    if features.ndim == 3:
        return "tokens"
    if features.ndim == 4:
        _, first, second, third = features.shape
        return "channels last" if first == second != third else "map"
    raise ValueError(
        f"the last block gives {tuple(features.shape)}, expected (B, C, S, S), (B, S, S, C), "
        "(B, T, C) or (B, C); name other blocks"
    )


def as_map(features: Tensor, layout: Layout) -> Tensor:
    """A block's output as (B, C, S, S); T tokens become (B, C, T, 1), a vector (B, C, 1, 1)."""
    if layout == "vector":
        return features[..., None, None]
    if layout == "tokens":
        return features.transpose(1, 2)[..., None]
    return features.permute(0, 3, 1, 2) if layout == "channels last" else features


def from_map(features: Tensor, layout: Layout) -> Tensor:
    """What `as_map` made, as it was."""
    if layout == "vector":
        return features[..., 0, 0]
    if layout == "tokens":
        return features[..., 0].transpose(1, 2)
    return features.permute(0, 2, 3, 1) if layout == "channels last" else features

"""The inverted residual that a layer is, under batch statistics; `folded`: under stored ones."""

from torch import Tensor
from torch.nn import functional

from da_compose.model.norms import NormCursor
from da_compose.model.templates import BlockWeights


def isometric_block(features: Tensor, weights: BlockWeights, norms: NormCursor) -> Tensor:
    """Inverted residual with squeeze-excite, batch statistics: (B, C, S, S) -> (B, C, S, S)."""
    expanded, channels = weights.expand.shape[:2]
    sizes = [expanded, expanded, channels]
    affine = list(zip(weights.gamma.split(sizes), weights.beta.split(sizes), strict=True))
    hidden = functional.conv2d(features, weights.expand)
    hidden = functional.relu_(norms.norm(hidden, *affine[0]))
    hidden = functional.conv2d(hidden, weights.depthwise, padding=1, groups=expanded)
    hidden = functional.relu_(norms.norm(hidden, *affine[1]))
    gate = functional.linear(hidden.mean(dim=(2, 3)), weights.squeeze, weights.squeeze_bias)
    gate = functional.linear(gate.relu_(), weights.excite, weights.excite_bias).sigmoid()
    hidden = functional.conv2d(hidden * gate[:, :, None, None], weights.project)
    return features + norms.norm(hidden, *affine[2])

"""Rows of many domains in one pass: every domain's own weights as batched matrix products."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from da_compose.context import undisturbed
from da_compose.model.contract import Network, probabilities
from da_compose.model.domain import Domain
from da_compose.model.folded import FoldedWeights, fold
from da_compose.model.network import CompositionalNetwork
from da_compose.model.norms import EPSILON

SLACK = 0.1  # beyond [0, 1]: bicubic resizing overshoots
FEW_ROWS = 16  # up to so many rows a domain, one pass beats a pass a domain on CPU (measured)


@undisturbed()
def predict_rows(network: Network, images: Tensor, names: Sequence[str]) -> Tensor:
    """Class probabilities (M, N) of pixels in [0, 1] (M, 3, S, S), row m as of domain `names[m]`.

    Each prediction is what its domain alone gives, within float tolerance. Raises ValueError for
    an unknown domain, one with classes of its own, where names and images differ in number, and
    for values beyond [0, 1], as of normalized images.
    """
    if len(names) != len(images):
        raise ValueError(f"{len(images)} images and {len(names)} names of domains; give one a row")
    found = images.new_empty(len(images), network.config.num_classes)
    if not names:
        return found
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    if images.min() < -SLACK or images.max() > 1 + SLACK:
        raise ValueError(
            f"images must be pixels in [0, 1], got values from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}; the network normalizes them itself: leave that out"
        )
    domains = [network.domains[name] for name in rows_of]
    if own := [domain.name for domain in domains if domain.class_names is not None]:
        raise ValueError(
            f"{', '.join(own)}: classes of their own, so no table of probabilities holds all rows; "
            "predict each by itself"
        )
    most = max(map(len, rows_of.values()))
    with torch.no_grad():
        batched = isinstance(network, CompositionalNetwork)
        if batched and (images.is_cuda or most <= FEW_ROWS):
            padded = [rows + rows[:1] * (most - len(rows)) for rows in rows_of.values()]
            chosen = torch.tensor(padded, device=images.device)  # (D, B)
            together = probabilities(forward_many(network, domains, images[chosen]))  # (D, B, N)
            found[chosen.flatten()] = together.flatten(0, 1)
        else:
            for domain, rows in zip(domains, rows_of.values(), strict=True):
                found[rows] = probabilities(network(images[rows], domain))
    return found


def forward_many(network: Network, domains: Sequence[Domain], images: Tensor) -> Tensor:
    """Logits of both heads (2, D, B, N) of pixels (D, B, 3, S, S) under stored statistics.

    Of domains whose batch norm has the network's gamma and beta, as all that adaptation makes.
    """
    embedding = features_many(network, domains, images)[1]  # (D, B, F)
    logits = []
    for head in range(len(network.heads)):
        heads = [(domain.heads or network.heads)[head] for domain in domains]
        weight, bias = _stacked(heads, "weight"), _stacked(heads, "bias")
        logits.append(torch.baddbmm(bias[:, None], embedding, weight.mT))
    return torch.stack(logits)


def features_many(
    network: Network, domains: Sequence[Domain], images: Tensor
) -> tuple[Tensor, Tensor]:
    """Last block's output (D, B, C, S, S) and embedding (D, B, F) of pixels (D, B, 3, S, S).

    A compositional network computes all domains at once, any other one after another.
    """
    if not isinstance(network, CompositionalNetwork):
        pairs = zip(images, domains, strict=True)
        found = [network.features(pixels, domain) for pixels, domain in pairs]
        return torch.stack([block for block, _ in found]), torch.stack([e for _, e in found])
    if own := [domain.name for domain in domains if domain.gamma is not None]:
        raise ValueError(
            f"{', '.join(own)}: batch norm with gamma and beta of its own; use each by itself"
        )
    config, count, batch = network.config, len(domains), images.shape[1]
    mean = torch.stack([domain.mean for domain in domains])  # (D, statistics)
    var = torch.stack([domain.var for domain in domains])
    blocks = config.num_layers * config.block_statistics
    sizes = [config.channels, blocks, config.hidden, config.embedding]
    means, variances = mean.split(sizes, dim=1), var.split(sizes, dim=1)

    adapters = [network.input_adapter_of(domain) for domain in domains]
    convolutions = [adapter.conv for adapter in adapters]
    kernel, shift = _folded(
        _stacked(convolutions, "weight").flatten(2),
        _stacked(adapters, "gamma"), _stacked(adapters, "beta"),
        means[0] - _stacked(convolutions, "bias"), variances[0],
    )  # fmt: skip
    patches = functional.unfold(
        network.trunk(network.normalized(images.flatten(0, 1))),
        config.patch_size,
        stride=config.patch_size,
    ).mT  # (D * B, S * S, channels * patch * patch)
    features = _linear(patches.reshape(count, -1, patches.shape[2]), kernel, shift).relu_()

    mixture = torch.stack([domain.mixture() for domain in domains])  # (D, L, K)
    shape = (count, config.num_layers, config.block_statistics)
    weights = network.templates.mix(mixture)
    for block in fold(weights, means[1].view(shape), variances[1].view(shape)).layers(1):
        features = _block(features, block, batch)  # (D, B * S * S, C)

    output = network.output_adapter
    before = _folded(
        output.before.weight.flatten(1), output.before_gamma, output.before_beta,
        means[2], variances[2],
    )  # fmt: skip
    hidden = _linear(features, *before).relu_().view(count, batch, -1, config.hidden).mean(dim=2)
    after = _folded(
        output.after.weight, output.after_gamma, output.after_beta, means[3], variances[3]
    )
    size = int(patches.shape[1] ** 0.5)  # S
    block_features = features.view(count, batch, size, size, -1).permute(0, 1, 4, 2, 3)
    return block_features, _linear(hidden, *after).relu_()


def _block(features: Tensor, weights: FoldedWeights, batch: int) -> Tensor:
    """`folded_block` with weights (D, ...) for features (D, B * S * S, C)."""
    first = _linear(features, weights.expand, weights.expand_bias).relu_()  # (D, B * S * S, E)
    size = int((first.shape[1] // batch) ** 0.5)
    image = first.view(len(first), batch, size, size, -1)  # (D, B, S, S, E)
    second = _depthwise(image, weights.depthwise, weights.depthwise_bias).relu_().flatten(2, 3)
    pooled = second.mean(dim=2)  # (D, B, E)
    squeezed = _linear(pooled, weights.squeeze, weights.squeeze_bias).relu_()
    gate = _linear(squeezed, weights.excite, weights.excite_bias).sigmoid()
    gated = (second * gate[:, :, None]).flatten(1, 2)
    return features + _linear(gated, weights.project, weights.project_bias)


def _depthwise(image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """3x3 depthwise convolution of (D, B, S, S, E) with kernels (D, E, 1, 3, 3), a domain each.

    On GPU one grouped convolution; on CPU, where that is several times slower, one a domain.
    """
    if image.is_cuda:
        return depthwise_grouped(image, kernel, bias)
    found = [
        functional.conv2d(one.permute(0, 3, 1, 2), k, b, padding=1, groups=len(k))
        for one, k, b in zip(image, kernel, bias, strict=True)
    ]
    return torch.stack([one.permute(0, 2, 3, 1) for one in found])


def depthwise_grouped(image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """As one convolution whose groups are the channels of all domains."""
    count, batch, size, _, expanded = image.shape
    channels = image.permute(1, 0, 4, 2, 3).reshape(batch, count * expanded, size, size)
    found = functional.conv2d(
        channels, kernel.flatten(0, 1), bias.flatten(), padding=1, groups=count * expanded
    )
    return found.view(batch, count, expanded, size, size).permute(1, 0, 3, 4, 2).contiguous()


def _folded(
    kernel: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor]:
    """Kernel (D, out, in) or (out, in) and the shift (D, out) after the batch norm is folded in."""
    scale = gamma * (var + EPSILON).rsqrt()  # (D, out)
    return kernel * scale[..., None], beta - mean * scale


def _linear(rows: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Every domain's linear map: (D, rows, in), (D, out, in), (D, out) -> (D, rows, out)."""
    return torch.baddbmm(bias[:, None], rows, kernel.mT)


def _stacked(modules: Sequence[nn.Module], name: str) -> Tensor:
    """The parameter of this name of every module, (D, ...)."""
    return torch.stack([module.get_parameter(name) for module in modules])

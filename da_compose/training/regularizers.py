"""Penalties on mixtures that are not one-hot (paper, appendix A).

The appendix is known in outline only: what is defined here is our reading of it.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from da_compose.model.templates import TemplateBank

NORMS = ("gamma", "beta")
# Least mean square that a tensor's distance is divided by. Biases start at zero: ones that had
# hardly left it would be held there with a force of 1 / their size, a thousand times a kernel's.
LEAST_SCALE = 1e-3


def min_entropy(mixture: Tensor) -> Tensor:
    """Mean over layers of -log max_k weight, in nats: mixture (L, K) -> ().

    Our reading of the paper's entropy-type penalty on a largest weight below 1: the Rényi entropy
    of order infinity. From 0, exactly where every layer is one-hot, to log K. Templates have no
    part in it.
    """
    return -mixture.max(dim=1).values.log().mean()


def template_attraction(mixture: Tensor, bank: TemplateBank) -> Tensor:
    """Relative distance of generated weights from each layer's main template: (L, K) -> ().

    Our reading of the paper's penalty that pulls each template toward the generated weights that
    it contributes most to. With k*(l) = argmax_k mixture[l, k], over the T tensors of a block that
    are mixed (gamma and beta only in a bank of mixed batch norms):

        1/T sum_t mean_l ||theta_t[k*(l)] - sum_k mixture[l, k] theta_t[k]||^2 / n_t / scale_t

    n_t is the tensor's number of elements. scale_t, the mean square of the bank's tensor but at
    least LEAST_SCALE, takes away its unit; it has no gradient. Exactly 0 where every layer is
    one-hot; 0 too where templates coincide. Gradients reach the mixture and all templates.
    """
    generated = bank.mix(mixture)
    main = mixture.argmax(dim=1)  # (L,)
    distances: list[Tensor] = []
    for name, weights in generated._asdict().items():
        if name in NORMS and not bank.mixed_batch_norm:
            continue
        templates: Tensor = getattr(bank, name)  # (K, ...)
        scale = templates.detach().square().mean().clamp_min(LEAST_SCALE)
        distances.append((templates[main] - weights).square().mean() / scale)
    return torch.stack(distances).mean()


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """Weights of both penalties in a loss; 0 leaves a penalty out."""

    min_entropy: float = 0.0
    template_attraction: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not (isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} must be a weight of at least 0, got {weight}")

    def loss(self, mixture: Tensor, bank: TemplateBank) -> Tensor:
        """Weighted sum of the penalties: mixture (L, K) -> ()."""
        total = mixture.new_zeros(())
        if self.min_entropy:
            total = total + self.min_entropy * min_entropy(mixture)
        if self.template_attraction:
            total = total + self.template_attraction * template_attraction(mixture, bank)
        return total

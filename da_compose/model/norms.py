"""Batch norm whose statistics belong to a domain, while its place belongs to the network."""

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional

from da_compose.parallel import synchronized_batch_norm

EPSILON = 1e-5


class NormValues(Protocol):
    """What a domain holds of all batch norms, each tensor (F,) in network order."""

    mean: Tensor
    var: Tensor
    gamma: nn.Parameter | None
    beta: nn.Parameter | None
    momentum: float
    batch_statistics: bool
    synchronized: bool


class NormCursor:
    """Walks through a domain's batch norms in network order, slicing what it holds of them."""

    def __init__(self, domain: NormValues) -> None:
        self.domain = domain
        self.position = 0

    def skip(self, num_channels: int) -> None:
        """Leave out the next batch norms."""
        self.position += num_channels

    def look(self, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next batch norm's mean, variance, gamma and beta, each (C,); it stays the next.

        Mean and variance are views on the stored statistics; gamma and beta (C,) are the network's
        that are given, or the domain's own.
        """
        here = slice(self.position, self.position + len(gamma))
        domain = self.domain
        if domain.gamma is not None and domain.beta is not None:
            gamma, beta = domain.gamma[here], domain.beta[here]
        return domain.mean[here], domain.var[here], gamma, beta

    def take(self, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `look`, and go on to the one after."""
        values = self.look(gamma, beta)
        self.skip(len(gamma))
        return values

    def norm(
        self, features: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = EPSILON
    ) -> Tensor:
        """Batch-normalize features (B, C, ...) with what `take` gives."""
        mean, var, gamma, beta = self.take(gamma, beta)
        gamma, beta = gamma.to(mean.dtype), beta.to(mean.dtype)  # autocast mixes in bfloat16
        if self.domain.batch_statistics and self.domain.synchronized:
            return synchronized_batch_norm(
                features, mean, var, gamma, beta, momentum=self.domain.momentum, eps=epsilon
            )
        return functional.batch_norm(
            features,
            mean,
            var,
            gamma,
            beta,
            training=self.domain.batch_statistics,
            momentum=self.domain.momentum,
            eps=epsilon,
        )

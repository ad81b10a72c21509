"""Options on mixtures and signatures of commands that train a backbone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import click
from torch import Tensor

from da_compose import CompositionalNetwork, NetworkConfig
from da_compose.model.signature import SIGNATURES, parse_signature, signature_xi
from da_compose.training.regularizers import Regularization

START_SHARE = 0.7  # of each layer's template, where mixtures start near a signature
KINDS = f"{', '.join(SIGNATURES)}, or template numbers such as 1,2,2,3."


@dataclass(frozen=True, kw_only=True)
class MixtureOptions:
    """A signature that is fixed, or where learned mixtures start and what is penalized in them."""

    signature: str | None = None
    start_signature: str | None = None
    min_entropy: float = 0.0
    template_attraction: float = 0.0

    def __post_init__(self) -> None:
        if self.signature is not None and len(self.given) > 1:
            *_, other = self.given
            raise ValueError(
                "--signature fixes every layer and leaves no mixture to learn; leave out either "
                f"it or --{other.replace('_', '-')}"
            )

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: value for name, value in vars(self).items() if value}

    @property
    def regularization(self) -> Regularization | None:
        """The penalties on mixtures; None where there are none."""
        if not (self.min_entropy or self.template_attraction):
            return None
        return Regularization(
            min_entropy=self.min_entropy, template_attraction=self.template_attraction
        )

    def network_config(self, config: NetworkConfig, seed: int) -> NetworkConfig:
        """The configuration with the signature fixed, where one is; `seed`: of a random one."""
        if config.signature is not None and self.given:
            raise ValueError(
                "an unshared network has a template of its own in each layer, got "
                f"--{next(iter(self.given)).replace('_', '-')}; leave it out, or take the "
                "compositional network"
            )
        if self.signature is None:
            return config
        layers, templates = config.num_layers, config.num_templates
        return replace(config, signature=parse_signature(self.signature, layers, templates, seed))

    def first_xi(self, config: NetworkConfig, seed: int) -> Tensor | None:
        """Logits (L, K) that mixtures start from; None: random ones."""
        if self.start_signature is None:
            return None
        layers, templates = config.num_layers, config.num_templates
        signature = parse_signature(self.start_signature, layers, templates, seed)
        return signature_xi(signature, templates, START_SHARE)

    def network(self, config: NetworkConfig, seed: int) -> CompositionalNetwork:
        """A new network under these options."""
        return CompositionalNetwork(
            self.network_config(config, seed), seed, self.first_xi(config, seed)
        )


def mixture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `MixtureOptions`, which the command gets as `mixtures`."""

    @wraps(command)
    def collected(
        *,
        signature: str | None,
        start_signature: str | None,
        min_entropy: float,
        template_attraction: float,
        **others: Any,
    ) -> Any:
        mixtures = MixtureOptions(
            signature=signature,
            start_signature=start_signature,
            min_entropy=min_entropy,
            template_attraction=template_attraction,
        )
        return command(mixtures=mixtures, **others)

    for option in (
        click.option(
            "--template-attraction", type=float, default=0.0,
            help="Weight of a penalty that pulls templates to the weights they make up.",
        ),
        click.option(
            "--min-entropy", type=float, default=0.0,
            help="Weight of a penalty on mixtures that are not one-hot.",
        ),
        click.option(
            "--start-signature", metavar="SIGNATURE", help=f"Mixtures start near it: {KINDS}"
        ),
        click.option(
            "--signature", metavar="SIGNATURE", help=f"Fixed template of each layer: {KINDS}"
        ),
    ):  # fmt: skip
        collected = option(collected)
    return collected

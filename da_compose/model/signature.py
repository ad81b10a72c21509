"""Signatures: which template makes up each layer (paper, section 4.2).

A signature is a tuple of template numbers, one a layer: from 0 here and in
`NetworkConfig.signature`, from 1 in text, as the paper writes them.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain, groupby, repeat
from math import log

import torch
from torch import Tensor

from da_compose.model.domain import Domain
from da_compose.model.mixture import FixedSignature, MixtureWeights

SIGNATURES = ("sequential", "cyclic", "random", "progressive")
ONE_HOT_GAP = 1000.0  # between logits: exp(-1000) is 0 in float64, too


def make_signature(
    kind: str, num_layers: int, num_templates: int, seed: int = 0
) -> tuple[int, ...]:
    """A hand-made signature of one of the paper's kinds; `seed` matters to `random` alone.

    sequential: one run a template, of equal lengths, or 1 apart where K does not divide L.
    cyclic: all templates in turn, again and again.
    random: each layer's template drawn alone.
    progressive: one run a template, none shorter than the one before it; growth is linear.
    Raises ValueError on another kind, and where a progressive one has fewer layers than templates.
    """
    if num_layers < 1 or num_templates < 1:
        raise ValueError(
            f"expected at least 1 layer and 1 template, got {num_layers} and {num_templates}"
        )
    layers = range(num_layers)
    match kind:
        case "sequential":
            return tuple(layer * num_templates // num_layers for layer in layers)
        case "cyclic":
            return tuple(layer % num_templates for layer in layers)
        case "random":
            generator = torch.Generator().manual_seed(seed)
            return tuple(torch.randint(num_templates, (num_layers,), generator=generator).tolist())
        case "progressive":
            runs = enumerate(_growing_lengths(num_layers, num_templates))
            return tuple(chain.from_iterable(repeat(template, length) for template, length in runs))
    raise ValueError(f"no kind of signature {kind!r}; there are: {', '.join(SIGNATURES)}")


def _growing_lengths(total: int, count: int) -> list[int]:
    """Lengths of `count` runs, `total` in all: 1 each, and of the rest run k gets a share ~ k."""
    if total < count:
        raise ValueError(
            f"a progressive signature uses each of the {count} templates, which takes as many "
            f"layers, got {total}; take more layers or fewer templates"
        )
    shares = count * (count + 1) // 2
    lengths = [1 + run * (total - count) // shares for run in range(1, count + 1)]
    left_over = total - sum(lengths)  # fewer than `count`
    return [length + (run >= count - left_over) for run, length in enumerate(lengths)]


def parse_signature(
    text: str, num_layers: int, num_templates: int, seed: int = 0
) -> tuple[int, ...]:
    """A signature from a kind's name, or from a list such as `1,2,2,3` that counts from 1."""
    if text in SIGNATURES:
        return make_signature(text, num_layers, num_templates, seed)
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"signature {text!r} is neither one of {', '.join(SIGNATURES)} "
            "nor template numbers such as 1,2,2,3"
        ) from error
    if len(numbers) != num_layers:
        raise ValueError(
            f"signature {text!r} names {len(numbers)} templates, expected one for each of the "
            f"{num_layers} layers"
        )
    if wrong := [number for number in numbers if not 1 <= number <= num_templates]:
        raise ValueError(
            f"signature {text!r} names templates {wrong}, there are 1..{num_templates}"
        )
    return tuple(number - 1 for number in numbers)


def format_signature(signature: Sequence[int]) -> str:
    """The signature as the paper writes it, such as `1,2,2,3`; `parse_signature` reads it."""
    return ",".join(str(template + 1) for template in signature)


def num_runs(signature: Sequence[int]) -> int:
    """Number of contiguous runs of one template: K to L where every template is used."""
    return sum(1 for _ in groupby(signature))


def signature_of(mixture: Tensor) -> tuple[int, ...]:
    """The template of most weight in each layer, of several the first: mixture (L, K)."""
    return tuple(mixture.argmax(dim=1).tolist())


def sharpness(mixture: Tensor) -> Tensor:
    """Largest weight of each layer: mixture (L, K) -> (L,), from 1/K (uniform) to 1 (one-hot)."""
    return mixture.amax(dim=1)


def signature_xi(signature: Sequence[int], num_templates: int, share: float = 1.0) -> Tensor:
    """Logits xi (L, K) that give each layer's template weight `share`, all others equal parts.

    Share 1 is exactly one-hot, though logits are finite; there the softmax has no gradient, so
    that descent does not move such a xi. Raises ValueError unless 1/K < share <= 1.
    """
    one_hot = FixedSignature(signature, num_templates)()
    if share == 1:
        return ONE_HOT_GAP * one_hot
    if not 1 / num_templates < share < 1:
        raise ValueError(
            f"share must be above 1/K = {1 / num_templates:.3g}, else the signature does not show, "
            f"and at most 1, got {share}"
        )
    return log(share * (num_templates - 1) / (1 - share)) * one_hot


def harden(domain: Domain) -> Domain:
    """A copy of `domain` whose mixture is exactly one-hot at its signature.

    A learned mixture stays a `MixtureWeights`, saved and loaded as ever. Batch-norm statistics are
    those of the soft mixture: estimate them again (`statistics.estimate_statistics`) before use.
    """
    hardened = deepcopy(domain)
    if isinstance(hardened.mixture, MixtureWeights):
        with torch.no_grad():
            xi = hardened.mixture.xi
            xi.copy_(signature_xi(signature_of(hardened.mixture()), xi.shape[1]))
    return hardened

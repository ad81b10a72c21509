"""Networks that a user has fine-tuned, from files, modules and backbones, under common names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.pretrained_config import PretrainedConfig
from da_compose.storage.backbone import Backbone, load_backbone
from da_compose.storage.files import kind_of
from da_compose.storage.pretrained_weights import classifier_of, plain_state, read_state
from da_compose.storage.schema import in_words

ACCEPTED = (
    "a file of weights (.pth, .pt, .safetensors), a state dict, a module, or a backbone on a "
    "pretrained network"
)
Heads = Sequence[tuple[Tensor, Tensor]]  # weight (N, F) and bias (N,) of each of two


@dataclass(frozen=True)
class Expert:
    """An expert as it was given: weights by name, and what is known of it besides."""

    name: str
    origin: str
    state: Mapping[str, Tensor]
    module: nn.Module | None = None  # that it was
    heads: nn.ModuleList | None = None  # of a backbone; the others' classifier is in `state`
    class_names: tuple[str, ...] | None = None  # of a backbone
    config: PretrainedConfig | None = None  # of a backbone

    def __str__(self) -> str:
        return f"expert {self.name!r} ({self.origin})"


@dataclass(frozen=True)
class Fitted:
    """An expert under its network's names: all from the images to the embedding, and its heads."""

    state: Mapping[str, Tensor]
    heads: Heads


def open_expert(name: str, given: Any) -> Expert:
    """An expert from whatever it is given as; ValueError where that is none of `ACCEPTED`."""
    if isinstance(given, (str, Path)):
        path = Path(given)
        if kind_of(path) != "backbone":
            return Expert(name, path.name, read_state(path))
        given = load_backbone(path)
    if isinstance(given, Backbone):
        return _of_backbone(name, given)
    if isinstance(given, nn.Module):
        kind = type(given).__name__
        return Expert(name, kind, plain_state(given.state_dict(), kind), module=given)
    if isinstance(given, Mapping):
        return Expert(name, "state dict", plain_state(given, "state dict"))
    raise ValueError(f"expert {name!r} is a {type(given).__name__}, expected {ACCEPTED}")


def _of_backbone(name: str, backbone: Backbone) -> Expert:
    """The network as it is for a new domain, at xi = 0."""
    network = backbone.network
    if not isinstance(network, PretrainedNetwork):
        raise ValueError(
            f"expert {name!r} is a backbone on a {type(network).__name__}, expected one on a "
            "PretrainedNetwork, as of recipe lite0"
        )
    return Expert(
        name,
        f"backbone {backbone.fingerprint}",
        section_state(network),
        heads=network.heads,
        class_names=backbone.class_names,
        config=network.config,
    )


def section_state(network: PretrainedNetwork) -> dict[str, Tensor]:
    """Weights and statistics from the images to the embedding, by name in the module."""
    sections = network.input_adapter, network.body, network.output_adapter
    return {name: value for part in sections for name, value in part.state_dict().items()}


def fit_expert(expert: Expert, network: PretrainedNetwork, module: nn.Module) -> Fitted:
    """An expert's weights by the names of `network`, which is on a module such as `module`.

    Raises ValueError where it is of another network or number of classes, or not finite.
    """
    given, wanted = expert.state, section_state(network)
    classifier = classifier_of(module)
    unused = {n for n in module.state_dict() if n not in wanted and not n.startswith(classifier)}
    rest = {n: value for n, value in given.items() if n not in wanted and n not in unused}
    heads = _heads(expert, rest, network.config.embedding)
    wrong = {
        "missing": [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")],
        "unexpected": [] if heads else [*rest],
        "of another shape": [n for n in wanted if n in given and given[n].shape != wanted[n].shape],
    }
    if any(wrong.values()) or not heads:
        raise ValueError(
            f"{expert} is no {network.config.name} that ends in one linear map to the classes: "
            f"{in_words(wrong) or 'no such map'}; experts must be of one network: name theirs"
        )
    if (number := len(heads[0][1])) != network.config.num_classes:
        raise ValueError(
            f"{expert} has {number} classes, expected {network.config.num_classes}, one for each "
            "class name; experts must share all classes"
        )
    state = {name: _as_float(given[name]) for name in wanted if name in given}
    values = [*state.items(), *(("classifier", value) for head in heads for value in head)]
    if broken := [name for name, value in values if not value.isfinite().all()]:
        raise ValueError(
            f"{expert} has weights that are not finite, such as {broken[0]}; its training "
            "diverged: train it again, or leave it out"
        )
    return Fitted(state, heads)


def _heads(expert: Expert, rest: Mapping[str, Tensor], embedding: int) -> Heads:
    """Both heads of a backbone; else twice the linear map that is the rest of a state, or none."""
    if expert.heads is not None:
        heads = [head.state_dict() for head in expert.heads]
        return [(_as_float(head["weight"]), _as_float(head["bias"])) for head in heads]
    weights = [_as_float(value) for value in rest.values() if value.ndim == 2]
    biases = [_as_float(value) for value in rest.values() if value.ndim == 1]
    if len(weights) != 1 or len(biases) > 1 or len(weights) + len(biases) < len(rest):
        return []
    (weight,), bias = weights, biases[0] if biases else torch.zeros(len(weights[0]))
    fits = weight.shape[1] == embedding and len(bias) == len(weight)
    return [(weight, bias)] * 2 if fits else []


def _as_float(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() else value

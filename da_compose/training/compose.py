"""`compose`: networks that were fine-tuned at several sites become one backbone's templates."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from da_compose.context import undisturbed
from da_compose.model.domain import POOLED, Domain
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.pretrained_config import IMAGENET_MEAN, IMAGENET_STD
from da_compose.model.zoo import KNOWN, build_module, published
from da_compose.statistics import Statistics, average_statistics
from da_compose.storage.backbone import Backbone
from da_compose.storage.experts import Expert, Fitted, Heads, fit_expert, open_expert
from da_compose.storage.schema import in_order

IMAGE_SIZE = 224  # pixels a side, as is usual of published weights
ALL = "*"  # weights that move: from the first block to the embedding
TOLERANCE = 1e-3  # of logits, over the largest
ClassNames = Sequence[str] | Mapping[str, Sequence[str]]


@undisturbed()
def compose(
    experts: Mapping[str, Any],
    *,
    network: str | nn.Module,
    class_names: ClassNames | None = None,
    image_size: int | None = None,
    blocks: Sequence[str] | None = None,
) -> Backbone:
    """Make a backbone of networks that were fine-tuned from the same weights, its K templates.

    Layer l of the backbone has weights M_l + sum_k xi_lk (W_lk - M_l), where M is the mean of the
    experts W_k: at xi = 0 it is their average, at a one-hot xi expert k. Each expert is a domain,
    by its name, with batch-norm statistics, classifiers and, where they differ, a stem of its own.
    New domains have the average of these; their statistics come from their images in `adapt`, as
    those of experts fit no average. No picture of a source is needed, so none is known:
    strategies that need the sources refuse.

    experts: two or more, by name, each a file of weights (.pth, .pt, .safetensors), a state dict, a
    module, or a `Backbone` on a pretrained network, as object or file. They end in a linear map to
    the same classes. network: which one they are, `timm:NAME`, `torchvision:NAME` or a bare NAME of
    either; or a module of that kind, whose weights do not matter: then no file can hold the result.
    class_names: of all experts, the name of class 0 first; by expert, where their orders differ:
    the first's is kept. A backbone has its own. image_size: pixels a side; None: as of a backbone
    among the experts, else 224. They are normalized as published weights of the network expect
    (of a module: as ImageNet's, or as by a backbone). blocks: see `PretrainedNetwork.of`.

    Raises ValueError for an expert that is of another network or other classes, or not finite;
    OSError where its file is missing.
    Wortsman et al. 2022, "Model soups"; Yang et al. 2024, "AdaMerging".
    """
    if len(experts) < 2 or POOLED in experts:
        raise ValueError(
            f"expected 2 experts or more, none of them named {POOLED!r}, got {', '.join(experts)}; "
            "one alone is a `pretrained_network(NAME, weights=FILE)`"
        )
    opened = [open_expert(name, given) for name, given in experts.items()]
    orders = _class_names(opened, class_names)
    names = orders[0] if class_names is None or isinstance(class_names, Mapping) else class_names
    module, base = _base(opened, network, len(names), image_size, blocks)
    fitted = []
    for expert, order in zip(opened, orders, strict=True):
        found, places = fit_expert(expert, base, module), [order.index(name) for name in names]
        heads = [(weight[places], bias[places]) for weight, bias in found.heads]
        fitted.append(Fitted(found.state, heads))
    made = _composed(base, [expert.name for expert in opened], fitted)
    for expert, order in zip(opened, orders, strict=True):
        _check_same(made, expert, [order.index(name) for name in names])
    notes = {"experts": {expert.name: expert.origin for expert in opened}}
    return Backbone(made, tuple(names), {}, notes)


def _class_names(experts: Sequence[Expert], given: ClassNames | None) -> list[tuple[str, ...]]:
    """Each expert's class names in its own order; ValueError where they are not the same ones."""
    by_name = given if isinstance(given, Mapping) else {}
    common = None if given is None or isinstance(given, Mapping) else in_order(given)
    known = [expert.name for expert in experts]
    if unknown := [name for name in by_name if name not in known]:
        raise ValueError(
            f"class_names of {', '.join(unknown)}, expected of experts: {', '.join(known)}"
        )
    found: list[tuple[str, ...]] = []
    for expert in experts:
        names = expert.class_names or by_name.get(expert.name, common)
        if names is None:
            raise ValueError(
                f"the classes of {expert} are not known; give class_names=[...], the name of class "
                "0 first, or, where orders differ, such a list for each expert by name"
            )
        found.append(in_order(names))
        expected = tuple(common or found[0])
        if sorted(names) != sorted(set(expected)):
            raise ValueError(
                f"{expert} has classes {', '.join(names)}, expected {', '.join(expected)}, each "
                "once, in any order; experts must share all classes"
            )
    return found


def _base(
    experts: Sequence[Expert],
    network: str | nn.Module,
    num_classes: int,
    image_size: int | None,
    blocks: Sequence[str] | None,
) -> tuple[nn.Module, PretrainedNetwork]:
    """A module of the experts' network, and the same cut into layers, all of which may move."""
    configs = [expert.config for expert in experts if expert.config is not None]
    size = image_size or (configs[0].image_size if configs else IMAGE_SIZE)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if not isinstance(network, str):
        module, name = network, None
        mean, std = (configs[0].mean, configs[0].std) if configs else (mean, std)
    else:
        name = _full_name(network)
        module, (mean, std) = build_module(name, size), published(name)
    for config in configs:
        if (config.mean, config.std) != (mean, std) or (image_size or config.image_size) != size:
            raise ValueError(
                f"an expert takes {config.image_size} pixels, normalized by {config.mean} and "
                f"{config.std}; expected {size}, by {mean} and {std}. Say image_size, or name the "
                "network that all experts are"
            )
    base = PretrainedNetwork.of(
        module, num_classes=num_classes, image_size=size, name=name, blocks=blocks, mean=mean,
        std=std, displaced=(ALL,), weights="average of experts",
    )  # fmt: skip
    return module, base


def _full_name(network: str) -> str:
    """A bare name is torchvision's, where it has such, else timm's."""
    if ":" in network:
        return network
    return f"{'torchvision' if network in KNOWN['torchvision']() else 'timm'}:{network}"


@torch.no_grad()
def _composed(
    base: PretrainedNetwork, names: Sequence[str], experts: Sequence[Fitted]
) -> PretrainedNetwork:
    """The experts' average, from which directions lead to each, and a domain for each."""
    average = {key: _mean([one.state[key] for one in experts]) for key in experts[0].state}
    for section in (base.input_adapter, base.body, base.output_adapter):
        _write(section, average)
    of_head = zip(*(one.heads for one in experts), strict=True)
    _write_heads(
        base.heads, [(_mean([w for w, _ in h]), _mean([b for _, b in h])) for h in of_head]
    )
    moved = base.templates.names
    directions = [torch.cat([(e.state[n] - average[n]).flatten() for n in moved]) for e in experts]
    made = base.with_directions(torch.stack(directions))
    statistics = [_statistics(made, one) for one in experts]
    made.set_first_statistics(*average_statistics(statistics))
    for number, (name, one) in enumerate(zip(names, experts, strict=True)):
        made.domains.add(_domain(made, name, number, one, statistics[number]))
    return made


def _domain(
    network: PretrainedNetwork, name: str, number: int, expert: Fitted, statistics: Statistics
) -> Domain:
    """An expert as a domain: its template alone, statistics, heads, and stem where it moved."""
    xi = torch.zeros_like(network.get_buffer("first_xi"))
    xi[:, number] = 1
    domain = network.new_domain(name, xi)
    domain.set_statistics(*statistics)
    stem = dict(network.input_adapter.named_parameters())
    if any(not torch.equal(value, expert.state[key]) for key, value in stem.items()):
        domain.input_adapter = deepcopy(network.input_adapter)
        _write(domain.input_adapter, expert.state)
    domain.heads = deepcopy(network.heads)
    _write_heads(domain.heads, expert.heads)
    return domain


def _mean(values: Sequence[Tensor]) -> Tensor:
    """In double precision: of equal values exactly those; of whole numbers the first."""
    first, *_ = values
    return torch.stack([*values]).double().mean(0).float() if first.is_floating_point() else first


def _write(section: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = {name: state[name] for name in section.state_dict() if name in state}
    section.load_state_dict(own, strict=False)  # files of old have no count of batches


def _write_heads(heads: nn.ModuleList, values: Heads) -> None:
    for head, (weight, bias) in zip(heads, values, strict=True):
        head.load_state_dict({"weight": weight, "bias": bias})


def _statistics(network: PretrainedNetwork, expert: Fitted) -> Statistics:
    """Mean and variance (F,) of an expert's batch norms, in network order."""
    means, variances = [torch.empty(0)], [torch.empty(0)]
    for name, _ in network.norms():
        means.append(expert.state[f"{name}.running_mean"])
        variances.append(expert.state[f"{name}.running_var"])
    return torch.cat(means), torch.cat(variances)


@torch.no_grad()
def _check_same(network: PretrainedNetwork, expert: Expert, places: Sequence[int]) -> None:
    """Raise ValueError where a module computes something else than its domain.

    Names and shapes can be those of a network that pads otherwise, say.
    """
    if expert.module is None:
        return
    size = network.config.image_size
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    module = deepcopy(expert.module).cpu().float().eval()
    expected = module(network.normalized(pixels))[:, [*places]]  # (2, N)
    found = network(pixels, network.domains[expert.name])[0]
    apart = ((found - expected).abs().max() / expected.abs().max()).item()
    if not apart <= TOLERANCE:
        raise ValueError(
            f"{expert} computes something else than {network.config.name} of its weights: logits "
            f"differ by {100 * apart:.2g} % of the largest; name the network that it is"
        )

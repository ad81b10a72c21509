"""Networks of a user's own as templates: exact properties, on tiny modules."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from da_compose import Backbone, PretrainedNetwork, compose, load_backbone
from da_compose.model.plain import materialize
from da_compose.statistics import average_statistics
from da_compose.storage import backbone as backbone_file
from da_compose.storage.experts import section_state
from tests.tiny_modules import KINDS, SIZE, Residual, TinyConv, tiny_module

NAMES = tuple("abcdefg")  # a tiny module's classifier has seven
every_kind = pytest.mark.parametrize("kind", KINDS)


def pixels(count: int = 5) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def modules(kind: str = "conv", count: int = 3) -> dict[str, nn.Module]:
    """Unlike one another in every weight and statistic."""
    return {f"site-{number}": tiny_module(kind, seed=number) for number in range(count)}


def composed(experts: dict[str, Any], kind: str = "conv", **options: Any) -> Backbone:
    options = {"class_names": NAMES, "image_size": SIZE, "network": tiny_module(kind, 99)} | options
    return compose(experts, **options)


def network_of(backbone: Backbone) -> PretrainedNetwork:
    assert isinstance(backbone.network, PretrainedNetwork)
    return backbone.network


def logits_of(backbone: Backbone, domain: str) -> Tensor:
    """Of both heads, (2, 5, 7)."""
    with torch.no_grad():
        return backbone.network(pixels(), backbone.network.domains[domain])


def expected(backbone: Backbone, module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module(backbone.network.normalized(pixels()))


@every_kind
def test_an_experts_domain_computes_what_the_expert_does(kind: str):
    experts = modules(kind)
    backbone = composed(experts, kind)
    assert backbone.network.domains.names == tuple(experts)
    assert backbone.network.config.num_templates == 3
    for name, module in experts.items():
        found = logits_of(backbone, name)
        torch.testing.assert_close(found[0], expected(backbone, module), rtol=1e-4, atol=1e-5)
        assert torch.equal(found[0], found[1])
        plain = materialize(backbone.network, backbone.network.domains[name])
        with torch.no_grad():
            torch.testing.assert_close(plain(pixels()), found, rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("share", [0.0, 1 / 3])
def test_a_new_domain_is_the_average_of_all_weights(kind: str, share: float):
    """At xi = 0, and at equal parts of each expert."""
    experts = modules(kind)
    backbone = composed(experts, kind)
    network, average = network_of(backbone), deepcopy(experts["site-0"])
    states = [module.state_dict() for module in experts.values()]
    average.load_state_dict(
        {key: torch.stack([state[key] for state in states]).double().mean(0) for key in states[0]}
    )
    domain = network.new_domain("new", torch.full((network.config.num_layers, 3), share))
    sources = [(network.domains[n].mean, network.domains[n].var) for n in experts]
    mean, var = average_statistics(sources)
    assert torch.equal(domain.mean, mean) and torch.equal(domain.var, var)
    domain.use_batch_statistics()
    for part in average.modules():
        part.train(isinstance(part, nn.BatchNorm2d))
    with torch.no_grad():
        found = network(pixels(), domain)[0]
        wanted = average(network.normalized(pixels()))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_between_experts_each_layer_has_its_own_mixture():
    experts = modules(count=2)
    network = network_of(composed(experts))
    xi = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    found = network.values_of(network.new_domain("new", xi))
    left, right = (module.state_dict() for module in experts.values())
    for layer, (one, other) in enumerate(xi.tolist()):
        for key in (f"blocks.{layer}.first.weight", f"blocks.{layer}.norm2.bias"):
            torch.testing.assert_close(found[key], one * left[key] + other * right[key])
    assert found["last.weight"].shape == (10, 6, 1, 1)  # of no block: as the block before it
    torch.testing.assert_close(
        found["last.weight"], 0.3 * left["last.weight"] + 0.7 * right["last.weight"]
    )
    assert not any(name.startswith(("conv.", "norm.", "classifier.")) for name in found)


def test_a_stem_that_no_expert_moved_is_shared():
    experts = modules()
    for module in experts.values():
        with torch.no_grad():
            for part in ("conv", "norm"):
                state = experts["site-0"].get_submodule(part).state_dict()
                wanted = {k: v for k, v in state.items() if "running" not in k}
                module.get_submodule(part).load_state_dict(wanted, strict=False)
    backbone = composed(experts)
    assert all(domain.input_adapter is None for domain in backbone.network.domains)
    for name, module in experts.items():
        torch.testing.assert_close(logits_of(backbone, name)[0], expected(backbone, module))


def write_pth(module: nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def write_wrapped(module: nn.Module, path: Path) -> Path:
    """As trainers do, of a module in DataParallel."""
    state = {f"module.{key}": value for key, value in module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


def write_safetensors(module: nn.Module, path: Path) -> Path:
    save_file(module.state_dict(), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_half(module: nn.Module, path: Path) -> Path:
    torch.save(deepcopy(module).half().state_dict(), path)
    return path


def state_dict(module: nn.Module, _: Path) -> dict[str, Tensor]:
    return module.state_dict()


def nested_classifier(module: nn.Module, _: Path) -> nn.Module:
    module = deepcopy(module)
    module.classifier = nn.Sequential(nn.Dropout(0.1), module.get_submodule("classifier"))
    return module


GIVEN: list[Callable[[nn.Module, Path], Any]] = [
    write_pth, write_wrapped, write_safetensors, write_half, state_dict, nested_classifier,
]  # fmt: skip


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: given.__name__)
def test_an_expert_is_given_as_users_have_it(given: Any, tmp_path: Path):
    experts = modules()
    as_given = {name: given(module, tmp_path / f"{name}.pth") for name, module in experts.items()}
    backbone = composed(as_given)
    loose = 1e-2 if given is write_half else 1e-5
    for name, module in experts.items():
        wanted = expected(backbone, module)
        torch.testing.assert_close(logits_of(backbone, name)[0], wanted, rtol=loose, atol=loose)


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's network `timm:conv` is a tiny module of other random weights."""

    def build(name: str, image_size: int) -> nn.Module:
        return tiny_module(name.removeprefix("timm:"), seed=99)

    monkeypatch.setattr(backbone_file, "build_module", build)


def renamed(backbone: Backbone, kind: str) -> Backbone:
    network = network_of(backbone)
    network.config = replace(network.config, name=f"timm:{kind}")
    return backbone


@every_kind
def test_a_composed_backbone_is_loaded_as_it_was(by_name: None, kind: str, tmp_path: Path):
    backbone = renamed(composed(modules(kind), kind), kind)
    backbone.save(tmp_path / "backbone.safetensors")
    loaded = load_backbone(tmp_path / "backbone.safetensors")
    assert loaded.fingerprint == backbone.fingerprint
    assert loaded.notes["experts"]["site-0"] == type(tiny_module(kind)).__name__
    for name in backbone.network.domains.names:
        assert torch.equal(logits_of(loaded, name), logits_of(backbone, name))
    new = loaded.network.new_domain("new")
    assert torch.equal(new.mean, backbone.network.new_domain("new").mean)


def own_backbone(seed: int, class_names: tuple[str, ...] = NAMES, **options: Any) -> Backbone:
    made = PretrainedNetwork.of(
        tiny_module(seed=seed),
        num_classes=len(class_names),
        image_size=SIZE,
        seed=seed,
        mean=(0.5, 0.5, 0.5),
        **options,
    )
    return Backbone(made, class_names, {})


def test_backbones_are_experts_with_both_their_heads(by_name: None, tmp_path: Path):
    experts: dict[str, Any] = {"one": own_backbone(1), "two": own_backbone(2, NAMES[::-1])}
    renamed(experts["one"], "conv").save(tmp_path / "one.safetensors")
    given = experts | {"one": tmp_path / "one.safetensors"}
    backbone = compose(given, network=tiny_module())
    config = backbone.network.config
    assert config.image_size == SIZE and network_of(backbone).config.mean == (0.5, 0.5, 0.5)
    assert backbone.class_names == NAMES
    for name, expert in experts.items():
        with torch.no_grad():
            wanted = expert.network(pixels(), expert.network.new_domain("new"))
        wanted = wanted if name == "one" else wanted.flip(2)
        torch.testing.assert_close(logits_of(backbone, name), wanted, rtol=1e-4, atol=1e-5)


def test_orders_of_classes_may_differ():
    experts, orders = modules(count=2), {"site-0": [*NAMES], "site-1": [*"gfbdcae"]}
    backbone = composed(experts, class_names=orders)
    assert backbone.class_names == NAMES
    own = expected(backbone, experts["site-1"])
    wanted = torch.stack([own[:, orders["site-1"].index(name)] for name in NAMES], dim=1)
    torch.testing.assert_close(logits_of(backbone, "site-1")[0], wanted, rtol=1e-4, atol=1e-5)
    mean = torch.stack([module.get_parameter("classifier.bias") for module in experts.values()])
    mean[1] = mean[1][[orders["site-1"].index(name) for name in NAMES]]
    torch.testing.assert_close(backbone.network.heads[1].bias, mean.mean(0))


def test_a_bare_name_is_a_published_networks():
    from da_compose.model.zoo import build_module

    experts = {f"site-{number}": build_module("torchvision:resnet18", 32) for number in range(2)}
    for module in experts.values():
        module.fc = nn.Linear(512, 3)
    backbone = compose(experts, network="resnet18", class_names="abc", image_size=32)
    config = network_of(backbone).config
    assert (config.name, config.num_layers, config.displaced) == ("torchvision:resnet18", 8, ("*",))
    assert config.mean == (0.485, 0.456, 0.406)


class Padded(TinyConv):
    """Other computations under the same names."""

    def embed(self, x: Tensor) -> Tensor:
        return 2 * super().embed(x)


class Wide(TinyConv):
    """More of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks.append(Residual(6))


def broken(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module.get_parameter("blocks.1.first.weight")[0, 0] = float("nan")
    return module


def with_classes(module: nn.Module, number: int) -> nn.Module:
    module.classifier = nn.Linear(10, number)
    return module


ONE = tiny_module(seed=1)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one alone": ({"a": ONE}, {}, "expected 2 experts or more, .*got a; one alone is a `pretr"),
    "pooled": ({"a": ONE, "pooled": ONE}, {}, "none of them named 'pooled'"),
    "a list": ({"a": ONE, "b": [1]}, {}, "expert 'b' is a list, expected a file of weights"),
    "transformer": (
        {"a": ONE, "b": tiny_module("transformer")},
        {},
        r"expert 'b' \(TinyTransformer\) is no own:TinyConv .*: missing: conv.weight, .*; unexp.*; "
        "experts must be of one network: name theirs",
    ),
    "another width": ({"a": ONE, "b": TinyConv(8)}, {}, "of another shape: conv.weight"),
    "more blocks": ({"a": ONE, "b": Wide()}, {}, r"unexpected: blocks\.3\.first\.weight"),
    "no classifier": (
        {"a": ONE, "b": {k: v for k, v in ONE.state_dict().items() if "classifier" not in k}},
        {},
        r"'b' \(state dict\) is no own:TinyConv that ends in one linear map.*: no such map",
    ),
    "another number": (
        {"a": ONE, "b": with_classes(tiny_module(), 5)},
        {},
        r"expert 'b' \(TinyConv\) has 5 classes, expected 7, one for each class name; experts must",
    ),
    "names unknown": (
        {"a": ONE, "b": ONE},
        {"class_names": None},
        r"the classes of expert 'a' \(TinyConv\) are not known; give class_names=\[",
    ),
    "names of no expert": (
        {"a": ONE, "b": ONE},
        {"class_names": {"c": NAMES}},
        "class_names of c, expected of experts: a, b",
    ),
    "other names": (
        {"a": ONE, "b": ONE},
        {"class_names": {"a": NAMES, "b": "abcdefx"}},
        r"expert 'b' \(TinyConv\) has classes a, b, c, d, e, f, x, expected a, b, c, d, e, f, g",
    ),
    "names in no order": (
        {"a": ONE, "b": ONE},
        {"class_names": {*NAMES}},
        "class_names is a set, expected a list, the name of class 0 first",
    ),
    "a name twice": (
        {"a": ONE, "b": ONE},
        {"class_names": "aabcdef"},
        r"expert 'a' .* has classes a, a, b, .*, each once",
    ),
    "not finite": (
        {"a": ONE, "b": broken(tiny_module())},
        {},
        r"expert 'b' .* not finite, such as blocks\.1\.first\.weight; its training diverged",
    ),
    "computes otherwise": (
        {"a": ONE, "b": Padded()},
        {},
        r"expert 'b' \(Padded\) computes something else than own:TinyConv of its weights",
    ),
    "a word too many": ({"a": ONE, "two words": ONE}, {}, "domain name 'two words': use letters"),
    "unknown network": (
        {"a": ONE, "b": ONE},
        {"network": "resnet81"},
        "timm has no network 'resnet81', did you mean",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_composed_is_refused(case: str):
    experts, options, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        composed(experts, **options)


def test_a_backbone_of_other_pixels_is_refused(make_network: Any):
    left, right = own_backbone(1), own_backbone(2, std=(0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match=r"takes 8 pixels, .*\(0.1, 0.1, 0.1\); expected 8, by"):
        compose({"a": left, "b": right}, network=tiny_module())
    mixed = Backbone(make_network(), tuple("abc"), {})
    with pytest.raises(ValueError, match="'b' is a backbone on a CompositionalNetwork, expected"):
        compose({"a": left, "b": mixed}, network=tiny_module())


def test_a_file_that_is_missing_or_no_state_dict_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*none\.pth; check the"):
        composed({"a": ONE, "b": tmp_path / "none.pth"})
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cut\.pth is no whole file of tensors \(.*write it agai"):
        composed({"a": ONE, "b": tmp_path / "cut.pth"})
    torch.save(ONE, tmp_path / "whole.pth")
    with pytest.raises(
        ValueError, match=r"whole\.pth is no whole file of tensors .*state_dict\(\)"
    ):
        composed({"a": ONE, "b": tmp_path / "whole.pth"})
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(ValueError, match=r"none\.pt holds no state dict, expected tensors by name"):
        composed({"a": ONE, "b": tmp_path / "none.pt"})


def test_experts_stay_as_they_are():
    experts = modules()
    before = deepcopy([module.train().state_dict() for module in experts.values()])
    network = network_of(composed(experts))
    network.body.get_parameter("blocks.0.first.weight").data.zero_()
    for module, state in zip(experts.values(), before, strict=True):
        assert module.training
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert "blocks.0.first.weight" in section_state(network)

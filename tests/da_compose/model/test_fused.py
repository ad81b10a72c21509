"""A convolution and the batch norm after it in one are what they are apart."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.fx import GraphModule, Tracer
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from da_compose.model import sections
from da_compose.model.fused import UNLIMITED, fused, plan
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.tracing import _Leaves, cut
from tests.tiny_modules import SIZE, tiny_module, tiny_pretrained

ACTIVATIONS = {"none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}
LIMITS = {"none": UNLIMITED, "relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("after", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradients_are_those_of_two_steps(after: str, bias: bool):
    convolution = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=bias).double().requires_grad_(False)
    features = random(3, 4, 9, 9).requires_grad_()
    mean, var = random(6, seed=1), random(6, seed=2).square() + 0.5
    gamma, beta = random(6, seed=3).requires_grad_(), random(6, seed=4).requires_grad_()
    apart = functional.batch_norm(convolution(features), mean, var, gamma, beta, eps=1e-5)
    apart = ACTIVATIONS[after](apart)
    together = fused(convolution, features, (mean, var, gamma, beta), 1e-5, LIMITS[after])
    assert_close(together, apart)
    weights = random(*apart.shape, seed=5)
    learned = (features, gamma, beta)
    expected = torch.autograd.grad((apart * weights).sum(), learned)
    found = torch.autograd.grad((together * weights).sum(), learned)
    assert_close(found, expected)


class Kinds(nn.Module):
    """One convolution and norm of each kind, by what comes after."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.relu = nn.ReLU(inplace=True)

    def normed(self, place: int, x: Tensor) -> Tensor:
        return self.norms[place](self.convolutions[place](x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.normed(0, x))  # one
        x = torch.relu(self.normed(1, x))  # one
        x = self.normed(2, x) + x  # without an activation
        x = functional.silu(self.normed(3, x))  # without it
        return self.relu(self.normed(4, x)).mul_(2)  # written into: left alone


def test_what_is_written_into_later_is_left_alone():
    section = GraphModule(Kinds(), Tracer().trace(Kinds()))
    found = {fusion.convolution: fusion for fusion in plan(section).fusions}
    assert list(found) == [f"convolutions_{place}" for place in range(4)]
    alone = [not fusion.after for fusion in found.values()]
    assert alone == [False, False, True, True]


class Shaped(Kinds):
    """Asks for a shape, and writes into what is another tensor."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(0, x)
        return x.mean(dim=(2, 3)).view(x.shape[0], x.size(1)).relu_()


def test_what_another_tensor_is_made_of_may_be_written_into():
    assert len(plan(GraphModule(Shaped(), Tracer().trace(Shaped()))).fusions) == 1


@pytest.mark.parametrize("small", [False, True])
def test_a_gradient_of_xi_is_as_without(monkeypatch: pytest.MonkeyPatch, small: bool):
    """Also where a gamma is 0, which cannot be divided by: then the two stay apart."""
    calls = []

    def counted(*args):
        calls.append(args)
        return fused(*args)

    monkeypatch.setattr(sections, "fused", counted)
    network = tiny_pretrained("conv", 2).double()
    domain = network.new_domain("new", random(network.config.num_layers, 2) / 10)
    if small:
        network.own_batch_norm(domain)
        domain.requires_grad_(False).get_parameter("gamma").zero_()
    domain.mixture.requires_grad_(True)
    images = torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64)

    def outcome() -> tuple[Tensor, ...]:
        logits = network(images, domain)
        learned = [p for p in domain.parameters() if p.requires_grad]
        return logits, *torch.autograd.grad(logits.sum(), learned, allow_unused=True)

    found = outcome()
    assert bool(calls) is not small
    monkeypatch.setattr(sections, "fits", lambda *_: False)
    assert_close(found, outcome())


def test_a_kernel_that_learns_is_not_folded():
    section = cut(tiny_module("conv"), ("blocks.0", "blocks.1", "blocks.2")).body
    assert plan(section).fusions
    network = tiny_pretrained("conv", 0)
    network.body.requires_grad_(True)
    logits = network(torch.rand(2, 3, SIZE, SIZE), network.new_domain("new"))
    logits.sum().backward()
    kernels = [v for n, v in network.body.named_parameters() if v.ndim == 4]
    assert kernels and all(value.grad is not None for value in kernels)


def test_a_section_is_not_kept_alive():
    section = GraphModule(Kinds(), Tracer().trace(Kinds()))
    assert plan(section) is plan(section)
    known = weakref.ref(section)
    del section
    gc.collect()
    assert known() is None


class Standardized(nn.Conv2d):
    """Its output does not change with the scale of its weight."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight / self.weight.norm(), self.bias)


def test_a_convolution_that_changes_its_weight_first_stays_as_it_is():
    parametrized = parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
    hooked = nn.Conv2d(3, 3, 1)
    hooked.register_forward_hook(lambda *given: 2 * given[-1])
    padded = Conv2dSame(3, 3, 1, stride=2)
    patched = nn.Conv2d(3, 3, 1)
    patched.forward = lambda input: 2 * nn.Conv2d.forward(patched, input)
    for convolution, fuses in (
        (nn.Conv2d(3, 3, 1), True), (padded, True), (Standardized(3, 3, 1), False),
        (parametrized, False), (hooked, False), (patched, False),
    ):  # fmt: skip
        module = nn.Sequential(convolution, nn.BatchNorm2d(3))
        graph = _Leaves().trace(module)
        assert bool(plan(GraphModule(module, graph)).fusions) is fuses, type(convolution)


class Doubling(nn.ReLU):
    """Derived from an activation that clamps, and does more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Cutting(nn.Module):
    """Writes into what it takes, and says so nowhere."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(max=0.2)


def doubled(*given: Any) -> Tensor:
    return 2 * given[-1]


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(doubled)
    return module


AFTERS: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "called": lambda x, activation: activation(x),
    "by keyword": lambda x, activation: activation(input=x),
    "a view": lambda x, activation: activation(x.flatten(2)).view_as(x),
    "by place": lambda x, activation: activation(functional.elu(x, 1.0, True)),
}


class Block(nn.Module):
    """A convolution and its norm, called by keywords, and `activation` after them, somehow."""

    def __init__(self, activation: nn.Module, after: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.activation, self.after = activation, after

    def forward(self, x: Tensor) -> Tensor:
        return x + AFTERS[self.after](self.norm(input=self.conv(input=x)), self.activation)


class Own(nn.Module):
    """A user's network, whose body starts in place."""

    def __init__(self, activation: nn.Module, after: str = "called") -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.start = nn.Sequential(nn.SELU(inplace=True), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.blocks = nn.ModuleList(Block(activation, after) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(torch.relu(self.norm(self.conv(x))))
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))


def own(module: nn.Module, **options: Any) -> PretrainedNetwork:
    network = PretrainedNetwork.of(
        module, num_classes=2, image_size=4, blocks=("start", "blocks.0", "blocks.1"), **options
    )
    return network.with_directions(random(1, network.templates.directions.shape[1]).float() / 9)


def both_ways(
    network: PretrainedNetwork, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions and gradients of xi, gamma and beta: in one step, and in two."""
    domain, images = network.new_domain("new"), torch.rand(4, 3, 4, 4)
    own_norms = network.new_domain("own")
    network.own_batch_norm(own_norms)

    def outcome() -> list[Tensor]:
        found = []
        for one in (domain.requires_grad_(True), own_norms.requires_grad_(True)):
            logits = network(images, one)
            learned = [p for p in one.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(logits.sum(), learned, allow_unused=True)
            found += [logits, *(g for g in gradients if g is not None)]
        return found

    together = outcome()
    with monkeypatch.context() as apart:
        apart.setattr(sections, "fits", lambda *_: False)
        return together, outcome()


@pytest.mark.parametrize(
    "activation",
    [Doubling(), Cutting(), hooked(nn.ReLU()), nn.Hardtanh(-0.1, 0.2), nn.Identity(),
     nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU(inplace=True))],
)  # fmt: skip
def test_whatever_comes_after_a_norm_is_heeded(monkeypatch: pytest.MonkeyPatch, activation):
    assert_close(*both_ways(own(Own(activation)), monkeypatch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", AFTERS)
def test_however_it_is_called(monkeypatch: pytest.MonkeyPatch, after: str):
    assert_close(
        *both_ways(own(Own(nn.ReLU(inplace=after == "a view"), after)), monkeypatch),
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_a_user_changes_later_is_heeded(monkeypatch: pytest.MonkeyPatch):
    network = own(Own(nn.ReLU()))
    images, domain = torch.rand(4, 3, 4, 4), network.new_domain("new")
    before = network(images, domain)
    first, second = (network.body.get_submodule(f"blocks.{place}") for place in range(2))
    hooked(first.get_submodule("conv"))
    first.activation = nn.SiLU()
    parametrizations.weight_norm(second.get_submodule("conv"))
    assert_close(*both_ways(network, monkeypatch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(images, domain), before)


def test_biases_that_move_have_a_gradient(monkeypatch: pytest.MonkeyPatch):
    assert_close(
        *both_ways(own(Own(nn.ReLU()), displaced=("*.conv.bias",)), monkeypatch),
        rtol=1e-4,
        atol=1e-5,
    )
    module = Own(nn.ReLU())
    parametrizations.weight_norm(module.blocks[0].get_submodule("conv"))
    assert_close(*both_ways(own(module, displaced=("*",)), monkeypatch), rtol=1e-4, atol=1e-5)


def test_in_half_precision_a_gamma_beside_a_large_beta_learns_as_in_two_steps():
    network = own(Own(nn.ReLU()))
    domain, images = network.new_domain("new"), torch.rand(8, 3, 4, 4)
    network.own_batch_norm(domain)
    gamma, beta = domain.get_parameter("gamma"), domain.get_parameter("beta")
    with torch.no_grad():
        gamma.fill_(0.01)
        beta.fill_(1.0)

    def gradient(precision: torch.dtype | None) -> Tensor:
        with network.computing(precision):
            return torch.autograd.grad(network(images, domain).square().sum(), gamma)[0]

    exact, found = gradient(None), gradient(torch.bfloat16)
    assert (found - exact).norm() < 0.05 * exact.norm()


def test_a_network_computes_under_a_callers_autocast():
    network = own(Own(nn.ReLU()))
    images, domain = torch.rand(4, 3, 4, 4), network.new_domain("new")
    with torch.autocast("cpu", torch.bfloat16):
        found = network(images, domain)
    assert_close(found.float(), network(images, domain), rtol=0.1, atol=0.05)

"""Steps that never wait for the device, and their recording on a CUDA graph."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

from adapters import adapt, adapt_many, adapt_with_labels
from adapters.config import AdaptConfig
from adapters.loop import Learned, Loop, as_numbers, learn
from adapters.prepare import prepare
from adapters.replay import LEAST_EAGER, Step
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import begun, warm_up_of

WAITING = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class NeverWait(TorchDispatchMode):
    """Fails on operations whose result the host, or the shape of another tensor, waits for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = args[1] if func is torch.ops.aten.index.Tensor else ()
        assert func not in WAITING, f"{func} waits for the device"
        assert all(mask is None or mask.dtype != torch.bool for mask in masks)
        return func(*args, **(kwargs or {}))


def uncounted(parameters: Any, lr: float, **options: Any) -> torch.optim.SGD:
    """In the place of Adam, which counts its steps on the host unless it is capturable."""
    return torch.optim.SGD(parameters, lr=lr)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_step_waits_for_the_device(make_backbone, make_pixels, monkeypatch, strategy: str):
    for place in ("adapters.loop.Adam", "adapters.strategies.contract.Adam"):
        monkeypatch.setattr(place, uncounted)
    ready = prepare(make_backbone(), make_pixels(60), "target", AdaptConfig(batch_size=6))
    loop = Loop(ready, STRATEGIES[strategy]())
    made = begun(STRATEGIES[strategy](), loop.task())
    for step in range(warm_up_of(made) + 2):
        if step in (0, warm_up_of(made) + 1):
            with NeverWait():
                figures = made.step(loop.batch())
        else:
            figures = made.step(loop.batch())
        assert all(f.shape == () and not f.requires_grad for f in figures.values())


def test_what_waits_is_noticed():
    with pytest.raises(AssertionError, match="waits"), NeverWait():
        torch.ones(1).item()


def not_capturable(*args: Any, capturable: bool, **options: Any) -> Adam:
    """Adam can be capturable on a GPU alone; what it computes is the same."""
    return Adam(*args, **options)


class Pretended:
    """In the place of a stream: a recording takes the step again; notes what is asked of it."""

    calls: ClassVar[list[str]] = []

    def __init__(self, generator: torch.Generator) -> None:
        self.calls.clear()

    def take(self, step: Step) -> Mapping[str, Tensor]:
        self.calls.append("eager")
        return step()

    def record(self, step: Step) -> Step:
        self.calls.append("record")

        def replay() -> Mapping[str, Tensor]:
            self.calls.append("replay")
            return step()

        return replay


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_recorded_steps_are_the_steps(
    make_backbone, make_pixels, monkeypatch: pytest.MonkeyPatch, strategy: str
):
    """A recording that takes the step again gives what the plain loop gives."""
    backbone, images, method = make_backbone(), make_pixels(60), STRATEGIES[strategy]
    steps = warm_up_of(method()) + LEAST_EAGER + 4

    def learned(cuda_graph: bool) -> Learned:
        config = AdaptConfig(steps=steps, batch_size=6, check_every=2, cuda_graph=cuda_graph)
        return learn(prepare(backbone, images, "target", config), method())

    plain = learned(cuda_graph=False)
    monkeypatch.setattr(  # past the check that there is a GPU
        "adapters.loop.on_device", lambda pixels, device: torch.from_numpy(pixels)
    )
    monkeypatch.setattr("adapters.replay.SideStream", Pretended)
    for place in ("adapters.loop.Adam", "adapters.strategies.contract.Adam"):
        monkeypatch.setattr(place, not_capturable)
    replay = learned(cuda_graph=True)
    assert Pretended.calls == ["eager"] * (steps - 4) + ["record"] + ["replay"] * 4
    assert replay.best_step == plain.best_step
    for one, other in zip(replay.history, plain.history, strict=True):
        assert one == pytest.approx(other, rel=1e-5)  # the rate is float32 there
    for one, other in ((replay.last, plain.last), (replay.best, plain.best)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_figures_of_all_steps_become_numbers():
    history = [{"step": 1, "loss": torch.tensor(0.5)}, {"step": 2, "loss": torch.tensor(0.25)}]
    assert as_numbers(history) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    assert as_numbers([{"step": 1, "loss": 2.0}]) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda b, i: adapt(b, i, cuda_graph=True), "this backbone is on cpu; leave it out"),
        (lambda b, i: adapt_with_labels(b, i, (i[:2], [0, 1]), cuda_graph=True), "with labels"),
        (
            lambda b, i: adapt_many(b, {"a": i}, together=True, cuda_graph=True),
            "targets at once take neither",
        ),
    ],
)
def test_a_graph_without_its_conditions_is_refused(
    make_backbone, make_pixels, call: Callable, expected: str
):
    with pytest.raises(ValueError, match=expected):
        call(make_backbone(), make_pixels(20))


@on_gpu
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_graph_on_a_gpu_learns_what_single_steps_learn(make_backbone, make_pixels, strategy: str):
    backbone, images = make_backbone(), make_pixels(60)
    backbone.network.to("cuda")
    options = {"steps": 40, "batch_size": 6, "guard": False}
    one, other = (
        adapt(backbone, images, strategy, cuda_graph=graph, **options) for graph in (False, True)
    )
    for left, right in zip(one.domain.parameters(), other.domain.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-3)


@on_gpu
def test_images_lie_on_the_gpu(make_backbone, make_pixels):
    backbone = make_backbone()
    backbone.network.to("cuda")
    ready = prepare(backbone, make_pixels(20), "target", AdaptConfig())
    loop = Loop(ready, STRATEGIES["information_maximization"]())
    assert isinstance(loop.pixels, Tensor) and loop.pixels.device.type == "cuda"
    assert loop.batch().device.type == "cuda"

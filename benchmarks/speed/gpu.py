"""`gpu/...`: adaptation and training on a GPU, with absolute times beside their goals."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adapters import adapt, adapt_many
from adapters.config import AdaptConfig
from adapters.loop import Loop
from adapters.prepare import prepare
from adapters.replay import LEAST_EAGER, Step, replayed
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import begun, warm_up_of
from benchmarks.harness.cells import prepare_backbone
from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.speed.compare import REPEATS, Comparison, SpeedRow, timed
from benchmarks.speed.setting import Setting
from da_compose import Backbone

GOALS = {"adapt": 3.0, "pretrain": 60.0}  # seconds
MANY, MANY_STEPS = 16, 20  # targets at once, and their steps
SIDE = 4096  # of the matrices whose product says what the device reaches


def compare_on_gpu(setting: Setting) -> Iterator[SpeedRow]:
    """Ours trains 64 xi of the compositional network."""
    yield from compare_device(replace(setting, device="cuda"))


def compare_device(setting: Setting) -> Iterator[SpeedRow]:
    """Recorded against single steps, their floor, a whole adaptation, many at once, pretraining."""
    recorded: dict[str, Step] = {}
    for strategy in STRATEGIES:
        recorded[strategy] = step_of(setting, strategy, cuda_graph=True)
        single = step_of(setting, strategy, cuda_graph=False)
        row = comparison(setting, f"step/{strategy}", "the same step by step, not recorded")
        yield row.of_calls(recorded[strategy], single)
    strategy = AdaptConfig().strategy_name
    work = operations(step_of(setting, strategy, cuda_graph=False))
    rate = product_rate(setting.device)
    words = (
        f"floor: its {work / 1e9:.1f} billion operations at the {rate / 1e12:.1f} TFLOP/s of a "
        "large matrix product; the ratio is the share of it that is reached"
    )
    spent = seconds(recorded[strategy], setting.device)
    row = comparison(setting, f"floor/{strategy}", words)
    yield row.of_values(1000 * spent, 1000 * work / rate, unit="ms")
    backbone, images = setting.backbone("compositional"), setting.target.train.images
    on_gpu = setting.device != "cpu"
    spent = seconds(lambda: adapt(backbone, images, cuda_graph=on_gpu), setting.device, 3)
    yield against_goal(setting, "adapt", spent)
    yield comparison(setting, f"many/{MANY} targets", "one target after another").of_calls(
        lambda: adapted_many(backbone, images, together=True),
        lambda: adapted_many(backbone, images, together=False),
        work=MANY,
        work_unit="targets",
        repeats=3,
    )
    yield against_goal(setting, "pretrain", pretrained_in(setting))


def comparison(
    setting: Setting, name: str, against: str, target: float | None = None
) -> Comparison:
    """One of this suite."""
    return Comparison(name=f"gpu/{name}", against=against, target=target, device=setting.device)


def against_goal(setting: Setting, name: str, spent: float) -> SpeedRow:
    """Seconds that something took against those it may take."""
    goal = GOALS[name]
    row = comparison(setting, name, f"the goal, {goal:g} s", target=1.0)
    return row.of_values(spent, goal, unit="s")


def step_of(setting: Setting, strategy: str, *, cuda_graph: bool) -> Step:
    """A whole step, batch included, past its warm-up."""
    config = AdaptConfig(strategy=strategy, cuda_graph=cuda_graph)
    backbone, images = setting.backbone("compositional"), setting.target.train.images
    loop = Loop(prepare(backbone, images, "target", config), STRATEGIES[strategy]())
    made = begun(STRATEGIES[strategy](), loop.task())
    warm_up = warm_up_of(made)

    def single() -> Mapping[str, Tensor]:
        return made.step(loop.batch())

    advance = replayed(single, loop.draws, warm_up) if cuda_graph else single
    for _ in range(warm_up + LEAST_EAGER + 1):
        advance()
    return advance


def adapted_many(backbone: Backbone, images: NDArray[np.uint8], *, together: bool) -> None:
    """Many targets of a thousand images each."""
    targets = {f"target-{number}": images[:1000] for number in range(MANY)}
    adapt_many(backbone, targets, together=together, steps=MANY_STEPS)


def pretrained_in(setting: Setting) -> float:
    """Seconds of the full profile's pretraining on all sources, knowledge of them included."""
    full = replace(PROFILES["full"], seeds=(0,))
    job = replace(setting, profile=full).job("compositional")
    with tempfile.TemporaryDirectory() as folder:
        return seconds(
            lambda: prepare_backbone(job, setting.domains, Path(folder), setting.device),
            setting.device,
            1,
        )


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of a call."""
    formulas = {torch.ops.aten.convolution_backward: of_convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        step()
    return counter.get_total_flops()


def of_convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Those of a convolution's gradients, from shapes.

    torch's own formula leaves out groups: a depthwise convolution counts as many times over as it
    has channels.
    """
    output_mask = rest[-1]  # which gradients are wanted: inputs, weight, bias
    forward = 2 * gradient[0] * prod(gradient[2:]) * prod(weight)
    return forward * sum(output_mask[:2])


def product_rate(device: str) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    left = torch.randn(SIDE, SIDE, device=device)
    return 2 * SIDE**3 / seconds(lambda: left @ left, device)


def seconds(call: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Median seconds of a call, its work on the device included."""
    return median(timed(call, device) for _ in range(repeats))

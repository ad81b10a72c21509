"""`gpu/...`: adaptation and training on a device, with absolute times beside their goals."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from benchmarks.harness.plan import Profile
from benchmarks.speed.compare import REPEATS, Comparison, SpeedRow, timed
from benchmarks.speed.setting import Setting
from da_compose import Backbone

GOALS = {"adapt": 3.0, "pretrain": 60.0}  # seconds


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    profile: Profile = PROFILES["full"]  # of the pretraining that is timed
    repeats: int = REPEATS
    many: int = 16  # targets at once
    many_images: int = 1000  # of each
    many_steps: int = 20
    side: int = 4096  # of the matrices whose product says what the device reaches
    steps: int | None = None  # of a whole adaptation; None: as by default


def compare_on_gpu(setting: Setting) -> Iterator[SpeedRow]:
    """Ours trains 64 xi of the compositional network."""
    yield from compare_device(replace(setting, device="cuda"))


def compare_device(setting: Setting, sizes: Sizes | None = None) -> Iterator[SpeedRow]:
    """Steps recorded and in bfloat16, their floor, a whole adaptation, many at once, pretraining.

    On CPU, where it is rehearsed, nothing is recorded.
    """
    sizes = sizes or Sizes()
    on_gpu = setting.device != "cpu"
    default = AdaptConfig().strategy_name
    for strategy in STRATEGIES:
        recorded = step_of(setting, strategy, cuda_graph=on_gpu)
        single = step_of(setting, strategy)
        row = comparison(setting, f"step/{strategy}", "the same step by step, not recorded")
        yield row.of_calls(recorded, single, repeats=sizes.repeats)
        row = comparison(setting, f"step/{strategy}/bfloat16", "the same step in float32")
        fast = step_of(setting, strategy, bfloat16=True)
        yield row.of_calls(fast, single, repeats=sizes.repeats)
        if strategy == default:
            yield floor(setting, recorded, sizes)
    backbone, images = setting.backbone("compositional"), setting.target.train.images
    spent = seconds(
        lambda: adapt(backbone, images, cuda_graph=on_gpu, steps=sizes.steps), setting.device, 3
    )
    yield against_goal(setting, "adapt", spent)
    words = f"many/{sizes.many} targets", "one target after another"
    yield comparison(setting, *words).of_calls(
        lambda: adapted_many(backbone, images, sizes, together=True),
        lambda: adapted_many(backbone, images, sizes, together=False),
        work=sizes.many,
        work_unit="targets",
        repeats=min(3, sizes.repeats),
    )
    yield against_goal(setting, "pretrain", pretrained_in(setting, sizes.profile))


def floor(setting: Setting, recorded: Step, sizes: Sizes) -> SpeedRow:
    """What of the device's own rate a step of the default strategy reaches."""
    strategy = AdaptConfig().strategy_name
    work = operations(step_of(setting, strategy))
    rate = product_rate(setting.device, sizes.side)
    words = (
        f"floor: its {work / 1e9:.1f} billion operations at the {rate / 1e12:.1f} TFLOP/s of a "
        "large matrix product; the ratio is the share of it that is reached"
    )
    spent = seconds(recorded, setting.device, sizes.repeats)
    row = comparison(setting, f"floor/{strategy}", words)
    return row.of_values(1000 * spent, 1000 * work / rate, unit="ms")


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


def step_of(
    setting: Setting, strategy: str, *, cuda_graph: bool = False, bfloat16: bool = False
) -> Step:
    """A whole step, batch included, past its warm-up."""
    config = AdaptConfig(strategy=strategy, cuda_graph=cuda_graph, bfloat16=bfloat16)
    backbone, images = setting.backbone("compositional"), setting.target.train.images
    loop = Loop(prepare(backbone, images, "target", config), STRATEGIES[strategy]())
    made = begun(STRATEGIES[strategy](), loop.task())
    warm_up = warm_up_of(made)

    def single() -> Mapping[str, Tensor]:
        with backbone.network.computing(torch.bfloat16 if bfloat16 else None):
            return made.step(loop.batch())

    advance = replayed(single, loop.draws, warm_up) if cuda_graph else single
    for _ in range(warm_up + (LEAST_EAGER if cuda_graph else 0) + 1):
        advance()
    return advance


def adapted_many(
    backbone: Backbone, images: NDArray[np.uint8], sizes: Sizes, *, together: bool
) -> None:
    """Many targets of as many images each."""
    targets = {f"target-{number}": images[: sizes.many_images] for number in range(sizes.many)}
    adapt_many(backbone, targets, together=together, steps=sizes.many_steps)


def pretrained_in(setting: Setting, profile: Profile) -> float:
    """Seconds of a profile's pretraining on all sources, knowledge of them included."""
    job = replace(setting, profile=replace(profile, seeds=(0,))).job("compositional")
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


def product_rate(device: str, side: int) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    left = torch.randn(side, side, device=device)
    return 2 * side**3 / seconds(lambda: left @ left, device)


def seconds(call: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Median seconds of a call, its work on the device included."""
    return median(timed(call, device) for _ in range(repeats))

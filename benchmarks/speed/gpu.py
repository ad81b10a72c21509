"""`gpu/...`: adaptation and training on a GPU, with absolute times beside their goals."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adapters import adapt, adapt_many
from adapters.config import STRATEGIES, AdaptConfig
from adapters.replay import LEAST_EAGER, Step, replayed
from adapters.run import prepare
from benchmarks.run import prepare_backbone
from benchmarks.speed.compare import REPEATS, Comparison, SpeedRow, timed
from benchmarks.speed.setting import Setting, method_of

GOALS = {"adapt": 3.0, "pretrain": 60.0}  # seconds
MANY, MANY_STEPS = 16, 20  # targets at once, and their steps
SIDE = 4096  # of the matrices whose product says what the device reaches


def compare_on_gpu(setting: Setting) -> Iterator[SpeedRow]:
    """Ours trains 64 xi of the compositional network; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        click.echo("note: the suite `gpu` is left out, there is no CUDA device")
        return
    yield from compare_device(replace(setting, device="cuda"))


def compare_device(setting: Setting) -> Iterator[SpeedRow]:
    """Recorded against single steps, their floor, a whole adaptation, many at once, pretraining."""
    recorded: dict[str, Step] = {}
    for strategy, method in STRATEGIES.items():
        if method is not None:
            recorded[strategy] = step_of(setting, strategy, cuda_graph=True)
            single = step_of(setting, strategy, cuda_graph=False)
            row = comparison(setting, f"step/{strategy}", "the same step by step, not recorded")
            yield row.of_calls(recorded[strategy], single)
    strategy = AdaptConfig.strategy
    work = operations(step_of(setting, strategy, cuda_graph=False))
    rate = product_rate(setting.device)
    words = (
        f"floor: its {work / 1e9:.1f} billion operations at the {rate / 1e12:.1f} TFLOP/s of a "
        "large matrix product; the ratio is the share of it that is reached"
    )
    spent = seconds(recorded[strategy], setting.device)
    row = comparison(setting, f"floor/{strategy}", words)
    yield row.of_values(1000 * spent, 1000 * work / rate, unit="ms")
    yield against_goal(setting, "adapt", seconds(lambda: adapted(setting), setting.device, 3))
    yield comparison(setting, f"many/{MANY} targets", "one target after another").of_calls(
        lambda: adapted_many(setting, together=True),
        lambda: adapted_many(setting, together=False),
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
    method = method_of(strategy)
    config = AdaptConfig(strategy=strategy, cuda_graph=cuda_graph)
    run = prepare(setting.backbone("compositional"), setting.target.train.images, "target", config)
    made = method(run.task())

    def single() -> Mapping[str, Tensor]:
        return made.step(run.batch())

    advance = replayed(single, run.draws, method.WARM_UP) if cuda_graph else single
    for _ in range(method.WARM_UP + LEAST_EAGER + 1):
        advance()
    return advance


def adapted(setting: Setting) -> None:
    """The whole of `adapt` with its defaults, recorded."""
    backbone = setting.backbone("compositional")
    adapt(backbone, setting.target.train.images, cuda_graph=setting.device != "cpu")


def adapted_many(setting: Setting, *, together: bool) -> None:
    """Many targets of a thousand images each."""
    images = setting.target.train.images[:1000]
    targets = {f"target-{number}": images for number in range(MANY)}
    adapt_many(setting.backbone("compositional"), targets, together=together, steps=MANY_STEPS)


def pretrained_in(setting: Setting) -> float:
    """Seconds of pretraining all sources, knowledge of them included."""
    with tempfile.TemporaryDirectory() as folder:
        job = setting.job("compositional")
        return seconds(
            lambda: prepare_backbone(job, setting.domains, Path(folder), setting.device),
            setting.device,
            1,
        )


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of a call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def product_rate(device: str) -> float:
    """Floating-point operations a second of a large matrix product in float32."""
    left = torch.randn(SIDE, SIDE, device=device)
    return 2 * SIDE**3 / seconds(lambda: left @ left, device)


def seconds(call: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Median seconds of a call, its work on the device included."""
    return median(timed(call, device) for _ in range(repeats))

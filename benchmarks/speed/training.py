"""`pretrain/...`: images a second of the compositional network against ordinary ways."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any, cast

import torch
from joblib import Parallel, delayed

from benchmarks.speed.compare import Comparison, SpeedRow
from benchmarks.speed.setting import Setting
from da_compose import CompositionalNetwork
from da_compose.training.recipes import DIGIT_RECIPES
from da_compose.training.trainer import Pretrainer

STEPS = 6  # of a process, after one to warm up


def compare_pretraining(setting: Setting) -> Iterator[SpeedRow]:
    """Mixing against the unshared network; two one-thread processes against two threads."""
    mixed, unshared = (pretrainer(setting, network) for network in ("compositional", "unshared"))
    images = mixed.config.batch_size * len(setting.data.sources)
    yield Comparison(
        name="pretrain/mixed", against="the unshared network of the same shape", target=0.95
    ).of_calls(mixed.step, unshared.step, work=images)

    rates: Any = Parallel(n_jobs=2)(delayed(rate)(setting, threads) for threads in (1, 1))
    (together,) = cast(Any, Parallel(n_jobs=2)([delayed(rate)(setting, 2)]))
    yield Comparison(
        name="pretrain/two processes", against="one process with two threads, two cores"
    ).of_values(sum(rates), together, unit="images/s", threads=2)


def pretrainer(setting: Setting, network: str) -> Pretrainer:
    """Recipe `paper` on the benchmark's sources, from new weights."""
    sources = {name: setting.domains[name].train for name in setting.data.sources}
    paper = DIGIT_RECIPES["paper"]
    model = CompositionalNetwork(paper.network_of(network))
    return Pretrainer(model, sources, paper.pretraining)


def rate(setting: Setting, threads: int) -> float:
    """Images a second of one process with so many threads."""
    torch.set_num_threads(threads)
    trainer = pretrainer(setting, "compositional")
    images = trainer.step()["images"]
    started = perf_counter()
    for _ in range(STEPS):
        trainer.step()
    return STEPS * images / (perf_counter() - started)

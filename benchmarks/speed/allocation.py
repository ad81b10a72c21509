"""`allocation/...`: images a second where a process keeps the memory that it freed.

Each figure is of a process of its own, in turn with the other way.
"""

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from statistics import median
from subprocess import run
from time import perf_counter
from typing import Any

import torch

from adapters.parts import unlock
from benchmarks.allocator import keep_freed_memory
from benchmarks.speed.compare import Comparison, SpeedRow
from benchmarks.speed.setting import Setting
from da_compose import CompositionalNetwork, Network, pretrained_network
from da_compose.training.recipes import DIGIT_RECIPES

REPEATS, PASSES = 3, 6
PICTURES, DIGITS = "pictures", "digits"
KEEP, USUAL = "keep", "usual"
BATCHES = {PICTURES: (48, 128), DIGITS: (256, 32)}  # images, pixels a side
USUAL_WAY = "the same with glibc's usual limits"


def compare_allocation(setting: Setting) -> Iterator[SpeedRow]:
    """A forward pass, and one with its backward pass; without timm none of pictures."""
    for network in (DIGITS, PICTURES) if find_spec("timm") else (DIGITS,):
        rates: dict[str, list[list[float]]] = {KEEP: [], USUAL: []}
        for _ in range(REPEATS):
            for way, found in rates.items():
                found.append(in_a_process(network, way))
        for number, name in enumerate(("forward", "forward and backward")):
            kept, usual = (median(rate[number] for rate in rates[way]) for way in (KEEP, USUAL))
            yield Comparison(name=f"allocation/{network}, {name}", against=USUAL_WAY).of_values(
                kept, usual, unit="images/s", repeats=REPEATS
            )


def in_a_process(network: str, way: str) -> list[float]:
    """Images a second, forward and with backward, of a new process."""
    command = [sys.executable, "-m", "benchmarks.speed.allocation", network, way]
    done = run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def rates_of(name: str) -> Iterator[float]:
    """Images a second in this process, forward alone and with the backward pass to batch norm."""
    torch.set_num_threads(1)
    network: Network = (
        pretrained_network(num_classes=7, image_size=128, weights="random")
        if name == PICTURES
        else CompositionalNetwork(DIGIT_RECIPES["paper"].network)
    ).requires_grad_(False)
    count, size = BATCHES[name]
    images = torch.rand(count, 3, size, size)
    domain = network.new_domain("any").requires_grad_(False)
    yield count * rate(lambda: network(images, domain))
    trained = unlock(network, domain, "batch_norm")
    yield count * rate(lambda: torch.autograd.grad(network(images, domain).sum(), trained))


def rate(call: Callable[[], Any]) -> float:
    """Calls a second, after one that is not timed."""
    call()
    started = perf_counter()
    for _ in range(PASSES):
        call()
    return PASSES / (perf_counter() - started)


if __name__ == "__main__":
    network, way = sys.argv[1:]
    if way == KEEP:
        keep_freed_memory()
    print(*rates_of(network))

"""Steps of an adaptation recorded once on a CUDA graph and replayed.

A step of 64 numbers is hundreds of small kernels, and starting them one by one costs more than they
do. A graph starts all of them at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Step = Callable[[], Mapping[str, Tensor]]
LEAST_EAGER = 3  # steps that allocate what a recording must find, such as an optimizer's state


def replayed(
    step: Step,
    generator: torch.Generator,
    warm_up: int = 0,
    *,
    eagerly: Callable[[Step], Mapping[str, Tensor]] | None = None,
    record: Callable[[Step, torch.Generator], Step] | None = None,
) -> Step:
    """`step` as it is for the first `warm_up` calls and `LEAST_EAGER` more, then from a graph.

    The first calls are steps like all others, so nothing has to be undone. `step` must draw from
    `generator` alone and must not wait for the device; an error says where it does.
    eagerly, record: in the place of `on_side_stream` and `recorded`.
    """
    eagerly, record = eagerly or on_side_stream, record or recorded
    left = warm_up + LEAST_EAGER
    replay: Step | None = None

    def advance() -> Mapping[str, Tensor]:
        nonlocal left, replay
        if left > 0:
            left -= 1
            return eagerly(step)
        if replay is None:
            replay = record(step, generator)
        return replay()

    return advance


def on_side_stream(step: Step) -> Mapping[str, Tensor]:
    """`step` on a stream of its own, as steps before a recording must be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        figures = step()
    torch.cuda.current_stream().wait_stream(stream)
    return figures


def recorded(step: Step, generator: torch.Generator) -> Step:
    """A graph of `step`, which is not taken now; each call replays it, with new draws."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        figures = step()

    def replay() -> Mapping[str, Tensor]:
        graph.replay()
        return {name: figure.clone() for name, figure in figures.items()}

    return replay

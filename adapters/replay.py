"""Steps of an adaptation recorded once on a CUDA graph and replayed.

A step of 64 numbers is hundreds of small kernels, and starting them one by one costs more than they
do. A graph starts all of them at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Step = Callable[[], Mapping[str, Tensor]]
LEAST_EAGER = 3  # steps that allocate what a recording must find, such as an optimizer's state


def replayed(step: Step, generator: torch.Generator, warm_up: int = 0) -> Step:
    """`step` as it is for the first `warm_up` calls and `LEAST_EAGER` more, then from a graph.

    The first calls are steps like all others, so nothing has to be undone. `step` must draw from
    `generator`, of a GPU, alone and must not wait for the device; an error says where it does.
    """
    stream = SideStream(generator)
    left = warm_up + LEAST_EAGER
    replay: Step | None = None

    def advance() -> Mapping[str, Tensor]:
        nonlocal left, replay
        if left > 0:
            left -= 1
            return stream.take(step)
        if replay is None:
            replay = stream.record(step)
        return replay()

    return advance


class SideStream:
    """Takes and records steps on one stream: what a step sets up there, the recording finds."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.stream = torch.cuda.Stream(generator.device)

    def take(self, step: Step) -> Mapping[str, Tensor]:
        """`step`, between what was started before and what will be."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            figures = step()
        current.wait_stream(self.stream)
        return figures

    def record(self, step: Step) -> Step:
        """A graph of `step`, which is not taken now; each call replays it, with new draws."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=self.stream):
            figures = step()

        def replay() -> Mapping[str, Tensor]:
            graph.replay()
            return {name: figure.clone() for name, figure in figures.items()}

        return replay

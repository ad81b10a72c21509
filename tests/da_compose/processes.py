"""Calls of a function in two real processes of one group (gloo)."""

import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PROCESSES = 2
PATIENCE = 30  # seconds until a message that never comes is an error
Together = Callable[..., list[Any]]


def call_together(
    pool: ProcessPoolExecutor, folder: Path, function: Callable[..., Any], *arguments: Any
) -> list[Any]:
    """What the function returns in each process; they meet in a file in `folder`."""
    rendezvous = (folder / f"rendezvous-{time.monotonic_ns()}").as_uri()
    calls = [
        pool.submit(joined, number, rendezvous, function, *arguments) for number in range(PROCESSES)
    ]
    return [call.result(timeout=3 * PATIENCE) for call in calls]


def joined(number: int, rendezvous: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in process `number` of two."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dist.init_process_group(
            "gloo",
            init_method=rendezvous,
            rank=number,
            world_size=PROCESSES,
            timeout=timedelta(seconds=PATIENCE),
        )
        try:
            return function(*arguments)
        finally:
            dist.destroy_process_group()

"""Calls of one function in one-thread processes: on this machine, or on a Dask or Ray cluster."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from functools import cache
from importlib import import_module
from threading import Thread
from time import sleep
from types import ModuleType
from typing import Any, cast

from benchmarks.allocator import keep_freed_memory

BACKENDS = ("loky", "dask", "ray")
ATTEMPTS = 3  # at calls whose process is killed, while no other call returns
PACKAGES = {"dask": "dask distributed", "ray": "ray"}


def run_grid(
    function: Callable[..., None],
    jobs: Iterable[Any],
    shared: tuple[Any, ...],
    *,
    processes: int,
    backend: str = "loky",
    scheduler: str | None = None,
) -> None:
    """Call `function(job, *shared)` for every job, in processes of one thread each.

    A call whose process is killed is made again; so may others be that run at that time or have
    just returned: `function` must skip what it finished before. An exception that `function`
    raises comes out at once, as it is.

    loky: `processes` of this machine; if 1, this very process. dask: the workers of the cluster at
    the address `scheduler`, or `processes` new ones of this machine. ray: `processes` of its own.
    Raises BrokenExecutor where processes are killed again and again.
    """
    if scheduler and backend != "dask":
        raise ValueError(f"a scheduler ({scheduler}) is for the back end dask, not {backend}")
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes
    jobs = list(jobs)
    processes = max(1, min(processes, len(jobs)))
    options: dict[str, Any] = {"n_jobs": processes, "batch_size": 1}
    if backend == "dask":
        run_on_dask = _module("benchmarks.harness.grid_dask", backend).run_on_dask
        run_on_dask(function, jobs, shared, processes, scheduler)
    elif backend == "ray":
        _module("ray.util.joblib", backend).register_ray()
        errors = _module("ray.exceptions", backend)
        killed = (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError)
        # without a generator, joblib's only other form for ray, no call counts before all are back
        _run(function, jobs, shared, killed, **options, backend=backend)
    else:
        options |= {"max_nbytes": None, "return_as": "generator_unordered"}
        _run(function, jobs, shared, (BrokenExecutor,), **options)


def _run(
    function: Callable[..., None],
    jobs: Sequence[Any],
    shared: tuple[Any, ...],
    killed: tuple[type[Exception], ...],
    **options: Any,
) -> None:
    """The calls on a back end that raises one of `killed`, instead of repeating the call."""
    from joblib import Parallel, delayed  # of [bench]: commands that run no grid need none

    left = dict(enumerate(jobs))
    failures = 0
    while left:
        before = len(left)
        parent = None if options.get("backend") == "ray" else os.getpid()
        calls = [
            delayed(_call)(number, function, job, shared, parent) for number, job in left.items()
        ]
        try:
            for number in cast(Iterable[int], Parallel(**options)(calls)):
                del left[number]
        except killed as error:
            failures = failures + 1 if len(left) == before else 1
            if failures == ATTEMPTS:
                raise BrokenExecutor(f"killed {ATTEMPTS} times in a row") from error
            print("a worker process was killed: what it left unfinished is run again", flush=True)


def _call(
    number: int,
    function: Callable[..., None],
    job: Any,
    shared: tuple[Any, ...],
    parent: int | None,
) -> int:
    if parent not in (None, os.getpid()):
        if os.getppid() != parent:
            os._exit(1)  # it was killed before this process was ready
        end_with(parent)
    keep_freed_memory()
    function(job, *shared)
    return number


@cache
def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, killed perhaps: a thread looks for it."""

    def look() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    Thread(target=look, daemon=True).start()


def _module(name: str, backend: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the back end {backend} is not installed ({error}); pip install {PACKAGES[backend]}"
        ) from error

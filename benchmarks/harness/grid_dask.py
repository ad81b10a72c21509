"""Calls on a Dask cluster; imported only where it is asked for, as Dask is an optional package."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

from dask import config
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, get_worker
from joblib import Parallel, delayed, parallel_config
from joblib._dask import DaskDistributedBackend

FIRST_WORKER = 30  # seconds to wait for it on a cluster that runs already
LOCAL = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": "127.0.0.1:0"}
GRID = {"n_jobs": -1, "batch_size": 1, "pre_dispatch": "all"}
TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"


class Shared(WorkerPlugin):
    """What all calls have in common, one copy on every worker, also on those that come later.

    Scattered data would be lost with the workers that hold it, and calls would wait for those.
    """

    def __init__(self, shared: tuple[Any, ...]) -> None:
        self.name = f"shared-{uuid4().hex}"
        self.shared = shared


class Workers(DaskDistributedBackend):
    """joblib's back end for Dask, mended in two places."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """At least 2: for one worker, joblib would make the calls in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Callable[..., Any], callback: Callable[..., Any] | None = None) -> Any:
        """Also tell joblib of a call whose worker was killed; it would wait for it for ever."""
        future = super().submit(func, callback)
        if callback:
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future


def run_on_dask(
    function: Callable[..., None],
    jobs: Sequence[Any],
    shared: tuple[Any, ...],
    processes: int,
    scheduler: str | None,
) -> None:
    """`function(job, *shared)` for every job; the scheduler repeats those of a killed process."""
    plugin = Shared(shared)
    try:
        with connected(processes, scheduler) as client:
            client.register_plugin(plugin)
            try:
                with parallel_config(backend=Workers(client=client)):
                    Parallel(**GRID)(delayed(call)(function, job, plugin.name) for job in jobs)
            finally:
                client.unregister_worker_plugin(plugin.name)
    except KilledWorker as error:
        raise BrokenExecutor(str(error)) from error
    except CancelledError as error:
        raise ConnectionError(
            f"the Dask cluster was lost ({error}); start again: finished cells are kept"
        ) from error


def call(function: Callable[..., None], job: Any, name: str) -> None:
    """One call, on a worker."""
    function(job, *cast(Shared, get_worker().plugins[name]).shared)


@contextmanager
def connected(processes: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the cluster at the address `scheduler`, or of a new one on this machine.

    Dask has workers give freed memory back at once, which makes training take 1.7 times as long.
    Here that is undone; start others with MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ at
    33554432.
    """
    if scheduler:
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=FIRST_WORKER)
            threads = max(cast(dict[str, int], client.nthreads()).values())
            if threads > 1:
                raise ValueError(
                    f"a worker of {scheduler} has {threads} threads, expected 1, "
                    "which runs one job at a time; start workers with --nthreads 1"
                )
            yield client
        return
    with (
        config.set({TRIM: None}),
        LocalCluster(n_workers=processes, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client

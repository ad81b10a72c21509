import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dask import config
from distributed import Client, LocalCluster
from joblib.parallel import BACKENDS, LokyBackend

from benchmarks.harness import grid_dask
from benchmarks.harness.grid import ATTEMPTS, run_grid
from da_compose.training.trainer import Pretrainer
from tests.benchmarks.calls import refuse
from tests.benchmarks.grid_jobs import (
    ALL,
    JOBS,
    counts,
    fail,
    is_running,
    processes_and_settings,
    work,
)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not installed here: its names, with loky behind them."""
    exceptions, util = ModuleType("ray.exceptions"), ModuleType("ray.util.joblib")
    for name in ("RayActorError", "WorkerCrashedError", "OutOfMemoryError"):
        setattr(exceptions, name, BrokenExecutor)
    register = lambda: monkeypatch.setitem(BACKENDS, "ray", LokyBackend)  # noqa: E731
    setattr(util, "register_ray", register)  # noqa: B010
    for module in (ModuleType("ray"), ModuleType("ray.util"), util, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)


# Processes of this machine


@pytest.mark.parametrize("backend", ["loky", "ray"])
def test_what_a_killed_process_left_unfinished_is_run_again(
    fake_ray, monkeypatch, tmp_path, capsys, backend
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    run_grid(work, JOBS, (tmp_path, 1), processes=2, backend=backend)
    assert counts(tmp_path) == dict.fromkeys(ALL, 1) | {"c2": 2}
    assert capsys.readouterr().out.count("was killed") == 1
    seen, settings = processes_and_settings(tmp_path)
    assert len(seen) >= 2 and str(os.getpid()) not in seen
    assert settings == {"1 None"}


def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = (
        "import sys; from pathlib import Path; from benchmarks.harness.grid import run_grid\n"
        "from tests.benchmarks.grid_jobs import sleep\n"
        "run_grid(sleep, ['a', 'b'], (Path(sys.argv[1]),), processes=2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    while len(started := [*tmp_path.iterdir()]) < 2:
        time.sleep(0.1)
        assert parent.poll() is None
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while any(is_running(one.name) for one in started):
        time.sleep(0.1)
        assert time.monotonic() < until


def test_a_call_that_always_kills_its_process_ends_the_run(tmp_path):
    with pytest.raises(BrokenExecutor, match="in a row"):
        run_grid(work, JOBS, (tmp_path, 99), processes=2)
    killed = counts(tmp_path)["c2"]
    assert counts(tmp_path) == dict.fromkeys(ALL, 1) | {"c2": killed}
    # a result on its way when the process dies is lost: each of the other calls may return late
    # once, and begin the count anew
    assert ATTEMPTS <= killed <= ATTEMPTS + len(JOBS) - 1


def test_a_run_ends_after_so_many_kills_in_a_row(monkeypatch):
    class Killed:
        """Its process is killed before any call returns."""

        def __init__(self, **_: Any) -> None:
            started.append(self)

        def __call__(self, calls: Sequence[Any]) -> Iterator[Any]:
            raise BrokenExecutor

    started: list[Killed] = []
    monkeypatch.setattr("joblib.Parallel", Killed)
    with pytest.raises(BrokenExecutor, match=f"killed {ATTEMPTS} times in a row"):
        run_grid(fail, JOBS, (Path("never"),), processes=2)
    assert len(started) == ATTEMPTS


def test_a_run_goes_on_while_calls_return(monkeypatch):
    """However often processes are killed in between."""

    class Killed:
        """Makes one call, then its process is killed."""

        def __init__(self, **_: Any) -> None: ...

        def __call__(self, calls: Sequence[Any]) -> Iterator[Any]:
            function, arguments, _ = calls[0]
            yield function(*arguments)
            raise BrokenExecutor

    monkeypatch.setattr("joblib.Parallel", Killed)
    called = []
    run_grid(called.append, range(ATTEMPTS + 2), (), processes=2)
    assert called == list(range(ATTEMPTS + 2))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_exception_of_a_call_comes_out_at_once(tmp_path, processes):
    with pytest.raises(ZeroDivisionError, match=r"by [abcd]"):
        run_grid(fail, "abcdefghijkl", (tmp_path,), processes=processes)
    # joblib hands out two calls a process in advance: a free process may have begun one of those
    most = 1 if processes == 1 else 2 * processes
    assert len((tmp_path / "runs").read_text()) <= most


def test_one_process_is_this_one(tmp_path):
    run_grid(work, JOBS, (tmp_path, 0), processes=1)
    assert processes_and_settings(tmp_path)[0] == {str(os.getpid())}


def test_no_jobs_are_no_calls(tmp_path):
    run_grid(fail, (), (tmp_path,), processes=2)
    assert not list(tmp_path.iterdir())


# Dask


@pytest.mark.slow
def test_dask_runs_all_jobs_and_again_what_a_killed_worker_left(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS")
    run_grid(work, JOBS, (tmp_path, 1), processes=2, backend="dask")
    assert counts(tmp_path) == dict.fromkeys(ALL, 1) | {"c2": 2}
    seen, settings = processes_and_settings(tmp_path)
    assert len(seen) >= 2 and str(os.getpid()) not in seen
    assert settings == {"1 None"}


@pytest.mark.slow
def test_a_call_that_always_kills_its_dask_worker_ends_the_run(tmp_path):
    with (
        config.set({"distributed.scheduler.allowed-failures": 1}),
        pytest.raises(BrokenExecutor, match="workers died"),
    ):
        run_grid(work, JOBS, (tmp_path, 99), processes=1, backend="dask")
    assert counts(tmp_path) == dict.fromkeys(ALL, 1) | {"c2": counts(tmp_path)["c2"]}
    assert 1 < counts(tmp_path)["c2"] < 9


@pytest.fixture
def cluster() -> Iterator[Callable[..., LocalCluster]]:
    """Makes a cluster whose one worker is a thread of this process: it starts at once."""
    made = []

    def make(threads: int) -> LocalCluster:
        options = {"processes": False, "dashboard_address": "127.0.0.1:0", "protocol": "tcp"}
        made.append(LocalCluster(n_workers=1, threads_per_worker=threads, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_dask_cluster_is_used_by_its_address_and_left_as_it_was(cluster, tmp_path):
    address = cluster(threads=1).scheduler_address
    with Client(address, set_as_default=False) as client:
        before = plugins(client)
        run_grid(work, JOBS, (tmp_path, 0), processes=9, backend="dask", scheduler=address)
        assert counts(tmp_path) == dict.fromkeys(ALL, 1)
        with pytest.raises(ZeroDivisionError, match="by a"):
            run_grid(fail, JOBS, (tmp_path,), processes=9, backend="dask", scheduler=address)
        assert plugins(client) == before


def plugins(client: Client) -> dict[str, list[str]]:
    found: Any = client.run(lambda dask_worker: sorted(dask_worker.plugins))
    return found


def test_a_dask_worker_of_several_threads_is_refused(cluster, tmp_path):
    address = cluster(threads=2).scheduler_address
    with pytest.raises(ValueError, match="has 2 threads, expected 1"):
        run_grid(fail, JOBS, (tmp_path,), processes=1, backend="dask", scheduler=address)
    assert not (tmp_path / "runs").exists()


def test_a_lost_dask_cluster_is_named(cluster, monkeypatch):
    def lost(**_: Any) -> Any:
        raise CancelledError("scheduler-connection-lost")

    monkeypatch.setattr(grid_dask, "Parallel", lost)
    address = cluster(threads=1).scheduler_address
    with pytest.raises(ConnectionError, match="finished cells are kept"):
        run_grid(fail, JOBS, (), processes=1, backend="dask", scheduler=address)


# The command line


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_back_end_that_is_not_installed_is_named(bench_digits, monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "benchmarks.harness.grid_dask")
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained for nothing"))
    error = refuse(*bench_digits("--backend", backend))
    assert f"back end {backend} is not installed" in error and "pip install" in error


def test_a_scheduler_of_another_back_end_is_refused(bench_digits):
    assert "for the back end dask, not loky" in refuse(*bench_digits("--scheduler", "tcp://x:1"))


def test_an_unknown_back_end_is_refused(bench_digits):
    assert "--backend" in refuse(*bench_digits("--backend", "threads"))


def test_killed_processes_end_in_one_line(bench_digits, monkeypatch):
    def killed(*_: Any, **__: Any) -> None:
        raise BrokenExecutor("killed 3 times\nin a row")

    monkeypatch.setattr("benchmarks.harness.cells.run_grid", killed)
    assert "fewer --processes: finished cells are kept" in refuse(*bench_digits())

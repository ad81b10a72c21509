"""Cells of a benchmark: their rows, and what a later run does again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters import Adaptation
from adapters.adapt import adapted
from adapters.config import UNLEARNED
from adapters.prepare import Ready
from benchmarks.harness import cells as run
from benchmarks.harness.plan import USUAL
from benchmarks.harness.rows import ResultRow, cell
from da_compose import load_backbone
from da_compose.training.run import STATE
from da_compose.training.trainer import Pretrainer
from tests.benchmarks.conftest import Benchmark, make_bare

FEW = ("source_only", "batch_norm", "information_maximization")


def accuracies(rows: list[ResultRow]) -> dict[Any, tuple[str, float, float, float]]:
    """Of each cell: the fingerprint of its backbone, and accuracies."""
    return {
        cell(vars(row)): (row.config["backbone"], row.accuracy, row.source_only, row.batch_norm)
        for row in rows
    }


def fail(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was to be skipped")


def interrupt_at(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but Ctrl-C comes at its `call`-th call."""
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return counted


def adapter_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.safetensors")
        if path.name != "backbone.safetensors"
    }


@pytest.fixture(scope="module")
def finished_folder(shared_data, tmp_path_factory) -> Path:
    """What two runs leave: one of all usual strategies on both networks, and one of few."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        make_bare(patch, folder / "project")
        benchmark = Benchmark(shared_data.domains, shared_data.fingerprint, folder)
        both = benchmark.jobs(("compositional", "unshared"))
        benchmark.elsewhere("usual").run(both)
        benchmark.elsewhere("few").run(strategies=FEW)
    return folder


@pytest.fixture
def usual_run(benchmark_run: Benchmark, finished_folder: Path) -> Benchmark:
    """The benchmark after a run of all usual strategies on both networks."""
    shutil.copytree(finished_folder / "usual", benchmark_run.folder)
    return benchmark_run


@pytest.fixture
def few_run(benchmark_run: Benchmark, finished_folder: Path) -> Benchmark:
    """The benchmark after a run of few strategies."""
    shutil.copytree(finished_folder / "few", benchmark_run.folder)
    return benchmark_run


def test_a_run_writes_one_row_for_each_planned_cell(usual_run):
    jobs = usual_run.jobs(("compositional", "unshared"))
    planned = [(job, planned) for job in jobs for planned in job.cells()]
    planned.sort(key=lambda one: one[1].oracle)  # bounds come last
    assert [cell(vars(row)) for row in usual_run.rows()] == [
        cell(run.naming(*one)) for one in planned
    ]
    assert len(planned) == 2 * len(USUAL) + 4 + 3  # oracles: the unshared network has no xi


def test_rows_of_one_backbone_agree_on_its_baselines(usual_run):
    rows = usual_run.rows()
    assert len({(row.network, row.source_only, row.batch_norm) for row in rows}) == 2
    for row in rows:
        if row.strategy in ("source_only", "batch_norm"):
            assert row.accuracy == getattr(row, row.strategy)
            assert row.trains == "nothing" and row.selection == "none"


@pytest.mark.parametrize(
    ("network", "trains", "learned"),
    # xi: L K; input adapter: kernel C 3 P P, bias, gamma and beta of C
    [
        ("compositional", "mixture_weights", 2 * 2),
        ("unshared", "input_adapter", 4 * 3 * 16 * 16 + 3 * 4),
    ],
)
def test_each_network_learns_what_it_is_compared_by(usual_run, network, trains, learned):
    rows = [row for row in usual_run.rows() if row.network == network]
    adapted = [r for r in rows if r.strategy not in (*UNLEARNED, "oracle")]
    assert len(adapted) == len({*USUAL} - {*UNLEARNED})
    assert {(row.trains, row.learned_parameters) for row in adapted} == {(trains, learned)}


def test_oracle_rows_are_marked_and_no_other(few_run):
    rows = few_run.rows()
    oracles = [row for row in rows if row.strategy == "oracle"]
    assert [row.trains for row in oracles] == [
        "mixture_weights",
        "input_adapter",
        "batch_norm",
        "all",
    ]
    assert [row for row in rows if row.oracle] == oracles
    assert {row.selection for row in oracles} == {"target labels"}
    whole = oracles[-1]
    assert whole.learned_parameters == whole.total_parameters
    assert whole.adapter_bytes == 4 * whole.learned_parameters


def test_oracles_can_be_left_out(few_run):
    few_run.results.unlink()
    state = few_run.jobs()[0].folder(few_run.runs) / STATE
    state.touch()  # killed right after the backbone was written
    rows = few_run.run(strategies=("source_only",), oracles=False)
    assert [row.strategy for row in rows] == ["source_only"]
    assert not state.exists()


def test_a_row_says_how_large_its_adapter_file_is(few_run):
    folder = few_run.jobs()[0].folder(few_run.runs)
    for row in (row for row in few_run.rows() if row.trains != "all"):
        path = folder / f"{row.strategy}-{row.trains}.safetensors"
        assert path.stat().st_size == row.adapter_bytes


def test_a_second_run_trains_nothing_and_adds_no_row(few_run, monkeypatch):
    before = few_run.results.read_bytes()
    for name in ("train_backbone", "adapted", "train_oracle", "load_backbone"):
        monkeypatch.setattr(run, name, fail)
    few_run.run(strategies=FEW)
    assert few_run.results.read_bytes() == before


def test_rows_of_another_backbone_do_not_count(few_run):
    """A clone comes with rows: of another machine, whose backbone is not the one trained here."""
    first = few_run.rows()
    for path in few_run.runs.rglob("backbone.safetensors"):
        path.unlink()
    text = few_run.results.read_text()
    few_run.results.write_text(text.replace(first[0].config["backbone"], "another"))
    assert len(few_run.run(strategies=FEW[:2], oracles=False)) == len(first) + 2


def test_a_run_killed_beside_rows_of_another_backbone_goes_on_with_its_own(few_run):
    first = few_run.rows()
    lines = few_run.results.read_text().splitlines(keepends=True)
    mine = f'"backbone": "{first[0].config["backbone"]}"'
    foreign = [line.replace(mine, '"backbone": "another"') for line in lines]
    few_run.results.write_text("".join([*foreign, *lines[:2]]))
    rows = few_run.run(strategies=FEW)
    assert accuracies(rows[len(first) :]) == accuracies(first)


@pytest.mark.parametrize("removed", [0, 2, 4])  # a baseline, a strategy, an oracle
def test_only_the_cell_of_a_removed_row_is_run_again(few_run, monkeypatch, removed):
    rows = few_run.rows()
    lines = few_run.results.read_text().splitlines(keepends=True)
    few_run.results.write_text("".join(lines[:removed] + lines[removed + 1 :]))
    monkeypatch.setattr(run, "train_backbone", fail)
    again = few_run.run(strategies=FEW)
    assert again[:-1] == rows[:removed] + rows[removed + 1 :]
    assert accuracies(again[-1:]) == accuracies(rows[removed : removed + 1])


def test_more_strategies_use_the_backbone_of_the_first_run(few_run, monkeypatch):
    together = accuracies(few_run.rows())
    alone = few_run.elsewhere("alone")
    alone.run(strategies=FEW[:1], oracles=False)
    monkeypatch.setattr(run, "train_backbone", fail)
    assert accuracies(alone.run(strategies=FEW)) == together


def test_other_adaptation_steps_run_cells_again_on_the_same_backbone(few_run, monkeypatch):
    first = few_run.rows()
    monkeypatch.setattr(run, "train_backbone", fail)
    job = few_run.jobs()[0]
    longer = replace(job, profile=replace(job.profile, adapt_steps=3))
    rows = few_run.run([longer], strategies=FEW)
    assert len(rows) == 2 * len(first)
    for row in rows[len(first) :]:
        assert row.config["job"]["adapt_steps"] == (12 if row.trains == "input_adapter" else 3)


@pytest.mark.parametrize(("network", "times"), [("compositional", 1), ("unshared", 4)])
def test_an_input_adapter_takes_four_times_the_steps(
    usual_run, monkeypatch, network: str, times: int
):
    taken: list[int] = []

    def count(ready: Ready) -> Adaptation:
        taken.append(ready.config.num_steps)
        return adapted(ready)

    monkeypatch.setattr(run, "adapted", count)
    usual_run.results.unlink()
    (job,) = usual_run.jobs((network,))
    usual_run.run([job], strategies=(FEW[-1],), oracles=False)
    assert taken[-1] == times * job.profile.adapt_steps


def test_other_pretraining_steps_make_another_backbone(few_run):
    first = few_run.rows()
    job = few_run.jobs()[0]
    longer = replace(job, profile=replace(job.profile, pretrain_steps=5))
    rows = few_run.run([longer], strategies=FEW[:2], oracles=False)
    assert len(rows) == len(first) + 2
    assert longer.folder(few_run.runs) != job.folder(few_run.runs)
    assert len(list(few_run.runs.rglob("backbone.safetensors"))) == 2


def test_a_run_interrupted_in_pretraining_ends_like_an_uninterrupted_one(few_run, monkeypatch):
    expected = accuracies(few_run.rows())
    parts = few_run.elsewhere("parts")
    monkeypatch.setattr("da_compose.training.run.SAVE_EVERY", 2)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Pretrainer, "step", interrupt_at(3, Pretrainer.step))
        with pytest.raises(KeyboardInterrupt):
            parts.run(strategies=FEW)
    folder = parts.jobs()[0].folder(parts.runs)
    assert not (folder / "backbone.safetensors").exists()
    assert (folder / STATE).exists()
    assert not parts.results.exists()

    assert accuracies(parts.run(strategies=FEW)) == expected
    log = (folder / "pretrain.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]
    assert not (folder / STATE).exists()


def test_a_run_interrupted_in_its_statistics_goes_on_from_its_last_step(few_run, monkeypatch):
    expected = accuracies(few_run.rows()[:2])
    parts = few_run.elsewhere("parts")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Pretrainer, "finish", interrupt_at(1, Pretrainer.finish))
        with pytest.raises(KeyboardInterrupt):
            parts.run(strategies=FEW)
    monkeypatch.setattr(Pretrainer, "step", fail)
    assert accuracies(parts.run(strategies=FEW[:2], oracles=False)) == expected


def test_a_run_interrupted_in_adaptation_ends_like_an_uninterrupted_one(few_run, monkeypatch):
    expected = accuracies(few_run.rows())
    few_run.results.unlink()
    monkeypatch.setattr(run, "train_backbone", fail)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(run, "adapted", interrupt_at(3, adapted))  # 1 and 2 are the baselines
        with pytest.raises(KeyboardInterrupt):
            few_run.run(strategies=FEW)
    assert len(few_run.rows()) == 2
    assert accuracies(few_run.run(strategies=FEW)) == expected


def test_test_labels_of_the_target_reach_no_training(usual_run):
    shuffled = usual_run.elsewhere("shuffled").with_labels(test=True)
    shuffled.run(shuffled.jobs(("compositional",)))
    expected = adapter_files(usual_run.jobs()[0].folder(usual_run.runs))
    assert len(expected) == len(USUAL) + 3  # the oracle of all weights has no file
    assert adapter_files(shuffled.jobs()[0].folder(shuffled.runs)) == expected


def test_training_labels_of_the_target_reach_oracles_only(few_run):
    shuffled = few_run.elsewhere("shuffled").with_labels(train=True)
    shuffled.run(strategies=FEW)
    expected, found = adapter_files(few_run.runs), adapter_files(shuffled.runs)
    assert found.keys() == expected.keys()
    different = {Path(name).name for name in expected if expected[name] != found[name]}
    learned = ("mixture_weights", "input_adapter", "batch_norm")
    assert different == {f"oracle-{trains}.safetensors" for trains in learned}


def test_cells_leave_the_backbone_as_pretraining_made_it(benchmark_run):
    path = benchmark_run.jobs()[0].folder(benchmark_run.runs) / "backbone.safetensors"
    benchmark_run.run(strategies=("source_only",), oracles=False)
    before = path.read_bytes()
    benchmark_run.run(strategies=FEW)
    assert path.read_bytes() == before
    assert load_backbone(path).network.domains.names == benchmark_run.sources


def test_a_backbone_that_was_cut_short_is_named(benchmark_run):
    path = benchmark_run.jobs()[0].folder(benchmark_run.runs) / "backbone.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"backbone\.safetensors is not a whole"):
        benchmark_run.run(strategies=FEW)


def test_a_row_without_its_job_is_run_again(few_run):
    row = few_run.rows()[0]
    line = json.dumps(vars(replace(row, config={})))
    few_run.results.write_text(line + "\n")
    rows = few_run.run(strategies=("source_only",), oracles=False)
    assert len(rows) == 2
    assert accuracies(rows[1:]) == accuracies([row])


def test_a_seed_named_twice_is_planned_once(benchmark_run):
    job = benchmark_run.jobs()[0]
    twice = benchmark_run.jobs(
        ("compositional", "compositional"), ("paper", "paper"), replace(job.profile, seeds=(0, 0))
    )
    assert [(j.recipe, j.network, j.seed) for j in twice] == [("paper", "compositional", 0)]
    assert twice[0].identity == job.identity

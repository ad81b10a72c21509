import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import adapters
from adapters import Adaptation
from adapters.config import UNLEARNED
from benchmarks.harness import cells as run
from benchmarks.harness.plan import USUAL
from benchmarks.harness.rows import ResultRow, cell, read_rows
from da_compose import load_backbone
from da_compose.training.run import STATE
from da_compose.training.trainer import Pretrainer

FEW = ("source_only", "batch_norm", "information_maximization")


def accuracies(rows: list[ResultRow]) -> dict[Any, tuple[float, float, float]]:
    return {cell(vars(row)): (row.accuracy, row.source_only, row.batch_norm) for row in rows}


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


def test_a_run_writes_one_row_for_each_planned_cell(benchmark_run):
    jobs = benchmark_run.jobs(("unshared",)) + benchmark_run.jobs(recipes=("strong",))
    rows = benchmark_run.run(jobs)
    planned = [(job, planned) for job in jobs for planned in job.cells()]
    planned.sort(key=lambda one: one[1].oracle)  # bounds come last
    assert [cell(vars(row)) for row in rows] == [cell(run.naming(*one)) for one in planned]
    assert len(rows) == 2 * len(USUAL) + 3 + 4  # oracles: the unshared network has no xi


def test_rows_of_one_backbone_agree_on_its_baselines(benchmark_run):
    rows = benchmark_run.run()
    assert len({(row.source_only, row.batch_norm) for row in rows}) == 1
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
def test_each_network_learns_what_it_is_compared_by(benchmark_run, network, trains, learned):
    rows = benchmark_run.run(benchmark_run.jobs((network,)))
    adapted = [r for r in rows if r.strategy not in (*UNLEARNED, "oracle")]
    assert len(adapted) == len({*USUAL} - {*UNLEARNED})
    assert {(row.trains, row.learned_parameters) for row in adapted} == {(trains, learned)}


def test_oracle_rows_are_marked_and_no_other(benchmark_run):
    rows = benchmark_run.run(strategies=FEW)
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


def test_oracles_can_be_left_out(benchmark_run):
    rows = benchmark_run.run(strategies=("source_only",), oracles=False)
    assert [row.strategy for row in rows] == ["source_only"]


def test_a_row_says_how_large_its_adapter_file_is(benchmark_run):
    rows = benchmark_run.run(strategies=FEW)
    folder = benchmark_run.jobs()[0].folder(benchmark_run.runs)
    for row in (row for row in rows if row.trains != "all"):
        path = folder / f"{row.strategy}-{row.trains}.safetensors"
        assert path.stat().st_size == row.adapter_bytes


def test_a_second_run_trains_nothing_and_adds_no_row(benchmark_run, monkeypatch):
    benchmark_run.run(strategies=FEW)
    before = benchmark_run.results.read_bytes()
    for name in ("train_backbone", "adapt", "train_oracle", "load_backbone"):
        monkeypatch.setattr(run, name, fail)
    benchmark_run.run(strategies=FEW)
    assert benchmark_run.results.read_bytes() == before


def test_rows_of_another_backbone_do_not_count(benchmark_run):
    """A clone comes with rows: of another machine, whose backbone is not the one trained here."""
    first = benchmark_run.run(strategies=FEW)
    for path in benchmark_run.runs.rglob("backbone.safetensors"):
        path.unlink()
    text = benchmark_run.results.read_text()
    benchmark_run.results.write_text(text.replace(first[0].config["backbone"], "another"))
    assert len(benchmark_run.run(strategies=FEW)) == 2 * len(first)


def test_a_run_killed_beside_rows_of_another_backbone_goes_on_with_its_own(benchmark_run):
    first = benchmark_run.run(strategies=FEW)
    lines = benchmark_run.results.read_text().splitlines(keepends=True)
    mine = f'"backbone": "{first[0].config["backbone"]}"'
    foreign = [line.replace(mine, '"backbone": "another"') for line in lines]
    benchmark_run.results.write_text("".join([*foreign, *lines[:2]]))
    rows = benchmark_run.run(strategies=FEW)
    assert accuracies(rows[len(first) :]) == accuracies(first)


@pytest.mark.parametrize("removed", [0, 2, 4])  # a baseline, a strategy, an oracle
def test_only_the_cell_of_a_removed_row_is_run_again(benchmark_run, monkeypatch, removed):
    rows = benchmark_run.run(strategies=FEW)
    lines = benchmark_run.results.read_text().splitlines(keepends=True)
    benchmark_run.results.write_text("".join(lines[:removed] + lines[removed + 1 :]))
    monkeypatch.setattr(run, "train_backbone", fail)
    again = benchmark_run.run(strategies=FEW)
    assert again[:-1] == rows[:removed] + rows[removed + 1 :]
    assert accuracies(again[-1:]) == accuracies(rows[removed : removed + 1])


def test_more_strategies_use_the_backbone_of_the_first_run(benchmark_run, monkeypatch):
    together = benchmark_run.elsewhere("together").run(strategies=FEW)
    benchmark_run.run(strategies=FEW[:1], oracles=False)
    monkeypatch.setattr(run, "train_backbone", fail)
    assert accuracies(benchmark_run.run(strategies=FEW)) == accuracies(together)


def test_other_adaptation_steps_run_cells_again_on_the_same_backbone(benchmark_run, monkeypatch):
    first = benchmark_run.run(strategies=FEW)
    monkeypatch.setattr(run, "train_backbone", fail)
    job = benchmark_run.jobs()[0]
    longer = replace(job, profile=replace(job.profile, adapt_steps=3))
    rows = benchmark_run.run([longer], strategies=FEW)
    assert len(rows) == 2 * len(first)
    for row in rows[len(first) :]:
        assert row.config["job"]["adapt_steps"] == (12 if row.trains == "input_adapter" else 3)


@pytest.mark.parametrize(("network", "times"), [("compositional", 1), ("unshared", 4)])
def test_an_input_adapter_takes_four_times_the_steps(
    benchmark_run, monkeypatch, network: str, times: int
):
    taken: list[int] = []

    def adapt(*arguments: Any, **options: Any) -> Adaptation:
        taken.append(options["steps"])
        return adapters.adapt(*arguments, **options)

    monkeypatch.setattr(run, "adapt", adapt)
    (job,) = benchmark_run.jobs((network,))
    benchmark_run.run([job], strategies=(FEW[-1],), oracles=False)
    assert taken[-1] == times * job.profile.adapt_steps


def test_other_pretraining_steps_make_another_backbone(benchmark_run):
    first = benchmark_run.run(strategies=FEW)
    job = benchmark_run.jobs()[0]
    longer = replace(job, profile=replace(job.profile, pretrain_steps=5))
    rows = benchmark_run.run([longer], strategies=FEW)
    assert len(rows) == 2 * len(first)
    assert longer.folder(benchmark_run.runs) != job.folder(benchmark_run.runs)
    assert len(list(benchmark_run.runs.rglob("backbone.safetensors"))) == 2


@pytest.mark.parametrize(
    ("recipe", "step"),
    # before the first saved state, right after it, and a step later
    [("paper", 1), ("paper", 3), ("strong", 4)],
)
def test_a_run_interrupted_in_pretraining_ends_like_an_uninterrupted_one(
    benchmark_run, monkeypatch, recipe, step
):
    jobs = benchmark_run.jobs(recipes=(recipe,))
    expected = accuracies(benchmark_run.elsewhere("at once").run(jobs, FEW))
    monkeypatch.setattr("da_compose.training.run.SAVE_EVERY", 2)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Pretrainer, "step", interrupt_at(step, Pretrainer.step))
        with pytest.raises(KeyboardInterrupt):
            benchmark_run.run(jobs, FEW)
    folder = jobs[0].folder(benchmark_run.runs)
    assert not (folder / "backbone.safetensors").exists()
    assert (folder / STATE).exists() == (step > 2)
    assert not benchmark_run.results.exists()

    assert accuracies(benchmark_run.run(jobs, FEW)) == expected
    log = (folder / "pretrain.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]
    assert not (folder / STATE).exists()


def test_a_run_interrupted_in_its_statistics_goes_on_from_its_last_step(benchmark_run, monkeypatch):
    expected = accuracies(benchmark_run.elsewhere("at once").run(strategies=FEW))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Pretrainer, "finish", interrupt_at(1, Pretrainer.finish))
        with pytest.raises(KeyboardInterrupt):
            benchmark_run.run(strategies=FEW)
    monkeypatch.setattr(Pretrainer, "step", fail)
    assert accuracies(benchmark_run.run(strategies=FEW)) == expected


@pytest.mark.parametrize("call", [2, 3])  # calls 1 and 2 are the baselines
def test_a_run_interrupted_in_adaptation_ends_like_an_uninterrupted_one(
    benchmark_run, monkeypatch, call
):
    expected = accuracies(benchmark_run.elsewhere("at once").run(strategies=FEW))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(run, "adapt", interrupt_at(call, run.adapt))
        with pytest.raises(KeyboardInterrupt):
            benchmark_run.run(strategies=FEW)
    assert len(read_rows(benchmark_run.results)) == (2 if call > 2 else 0)
    monkeypatch.setattr(run, "train_backbone", fail)
    assert accuracies(benchmark_run.run(strategies=FEW)) == expected


def test_test_labels_of_the_target_reach_no_training(benchmark_run):
    shuffled = benchmark_run.elsewhere("shuffled").with_labels(test=True)
    for made in (benchmark_run, shuffled):
        made.run(made.jobs(("compositional", "unshared")))
    expected = adapter_files(benchmark_run.runs)
    assert len(expected) == 2 * len(USUAL) + 2 + 3  # the oracle of all weights has no file
    assert adapter_files(shuffled.runs) == expected


def test_training_labels_of_the_target_reach_oracles_only(benchmark_run):
    shuffled = benchmark_run.elsewhere("shuffled").with_labels(train=True)
    for made in (benchmark_run, shuffled):
        made.run(strategies=FEW)
    expected, found = adapter_files(benchmark_run.runs), adapter_files(shuffled.runs)
    assert found.keys() == expected.keys()
    different = {Path(name).name for name in expected if expected[name] != found[name]}
    learned = ("mixture_weights", "input_adapter", "batch_norm")
    assert different == {f"oracle-{trains}.safetensors" for trains in learned}


def test_cells_leave_the_backbone_as_pretraining_made_it(benchmark_run):
    benchmark_run.run(strategies=())
    path = benchmark_run.jobs()[0].folder(benchmark_run.runs) / "backbone.safetensors"
    before = path.read_bytes()
    benchmark_run.run()
    assert path.read_bytes() == before
    assert load_backbone(path).network.domains.names == benchmark_run.sources


def test_a_backbone_that_was_cut_short_is_named(benchmark_run):
    path = benchmark_run.jobs()[0].folder(benchmark_run.runs) / "backbone.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"backbone\.safetensors is not a whole"):
        benchmark_run.run(strategies=FEW)


def test_a_row_without_its_job_is_run_again(benchmark_run):
    row = benchmark_run.run(strategies=("source_only",), oracles=False)[0]
    line = json.dumps(vars(replace(row, config={})))
    benchmark_run.results.write_text(line + "\n")
    rows = benchmark_run.run(strategies=("source_only",), oracles=False)
    assert len(rows) == 2
    assert accuracies(rows[1:]) == accuracies([row])


def test_a_seed_named_twice_is_planned_once(benchmark_run):
    job = benchmark_run.jobs()[0]
    twice = benchmark_run.jobs(
        ("compositional", "compositional"), ("paper", "paper"), replace(job.profile, seeds=(0, 0))
    )
    assert [(j.recipe, j.network, j.seed) for j in twice] == [("paper", "compositional", 0)]
    assert twice[0].identity == job.identity

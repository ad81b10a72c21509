from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from adapters import AdaptConfig, adapt
from adapters.guard import Verdict, judge_learning
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.plan import BackboneJob
from benchmarks.harness.rows import read_lines
from benchmarks.reports.report import RESULTS
from benchmarks.studies import guard as guard_study
from benchmarks.studies.guard import (
    ALL,
    CONDITIONS,
    FITTED,
    LEARNED,
    SOURCES,
    TARGETS,
    identity,
    main,
    markdown,
    measure_condition,
    run_backbone,
    summary,
)
from benchmarks.studies.tuning import DEVELOPMENT_TARGETS
from da_compose.images import ImageSet
from data_prep.digits import MNIST_SOURCES

NUM_IMAGES = 400


@pytest.fixture
def train() -> ImageSet:
    """Every image shows its own number and, by it, its class."""
    numbers = np.arange(NUM_IMAGES)
    images = np.zeros((NUM_IMAGES, 8, 8), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(numbers, 256)
    return ImageSet(images, numbers % 10)


def drawn(condition: str, train: ImageSet, seed: int = 0) -> np.ndarray:
    """Numbers of the images of a condition."""
    images = CONDITIONS[condition](train, np.random.default_rng(seed)).astype(int)
    return 256 * images[:, 0, 0] + images[:, 0, 1]


@pytest.mark.parametrize("condition", ["all", "source"])
def test_a_whole_target_is_every_image(train: ImageSet, condition: str) -> None:
    assert drawn(condition, train).tolist() == list(range(NUM_IMAGES))


@pytest.mark.parametrize("count", [10, 30, 100])
def test_a_tiny_target_is_distinct_images_drawn_by_the_seed(train: ImageSet, count: int) -> None:
    draw = partial(drawn, f"tiny-{count}", train)
    assert len(set(draw(0))) == len(draw(0)) == count
    assert draw(0).tolist() == draw(0).tolist() != draw(1).tolist()


def test_one_class_is_missing_and_no_other_image(train: ImageSet) -> None:
    found = drawn("one class missing", train)
    missing = set(range(10)) - set(found % 10)
    assert len(missing) == 1
    assert found.tolist() == [n for n in range(NUM_IMAGES) if n % 10 not in missing]


def test_half_of_the_classes_keep_a_tenth(train: ImageSet) -> None:
    many = replace(
        train, images=np.tile(train.images, (50, 1, 1)), labels=np.tile(train.labels, 50)
    )
    counts = np.sort(np.bincount(drawn("10 to 1", many) % 10, minlength=10))
    assert counts[5:].tolist() == [NUM_IMAGES * 5] * 5
    assert counts[:5] == pytest.approx(NUM_IMAGES // 2, rel=0.25)


def test_noise_has_the_images_shape_and_nothing_else_of_them(train: ImageSet) -> None:
    inverse = replace(train, images=255 - train.images)
    found, other = (
        CONDITIONS["noise"](data, np.random.default_rng(0)) for data in (train, inverse)
    )
    assert np.array_equal(found, other) and found.shape[1:] == train.images.shape[1:]
    assert found.mean() == pytest.approx(127.5, abs=2)


def test_targets_are_no_sources_and_each_has_a_source_to_be_taken_for() -> None:
    benchmark_sources = {*MNIST_SOURCES, "meter"}
    assert set(SOURCES) == set(TARGETS) and set(DEVELOPMENT_TARGETS) < set(TARGETS)
    assert set(SOURCES.values()) < benchmark_sources and not set(TARGETS) & benchmark_sources


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_study, "STEPS", 1)
    monkeypatch.setattr(guard_study, "LEARNED", LEARNED[1:])
    few = {name: CONDITIONS[name] for name in ("all", "tiny-10")}
    monkeypatch.setattr(guard_study, "CONDITIONS", few)


def test_every_cell_is_one_line_and_finished_ones_are_not_run_again(benchmark_run, short) -> None:
    (job,) = benchmark_run.jobs()
    run = partial(run_backbone, job, benchmark_run.domains, ("usps",), benchmark_run.runs)
    run(benchmark_run.results)
    text = benchmark_run.results.read_text()
    lines = read_lines(benchmark_run.results)
    assert len({identity(line) for line in lines}) == len(lines) == 2 * 2
    assert all(line["commit"] == "abc1234" for line in lines)
    assert [line["images"] for line in lines if line["condition"] == "tiny-10"] == [10, 10]
    benchmark_run.results.write_text("".join(text.splitlines(keepends=True)[1:]))
    run(benchmark_run.results)
    again = benchmark_run.results.read_text()
    assert sorted(again.splitlines()) == sorted(text.splitlines())
    run(benchmark_run.results)
    assert benchmark_run.results.read_text() == again


def measured(benchmark: Any) -> tuple[list[dict[str, Any]], BackboneJob, Any]:
    (job,) = benchmark.jobs()
    backbone = prepare_backbone(job, benchmark.domains, job.folder(benchmark.runs), "cpu")
    target = benchmark.domains["usps"]
    return list(measure_condition(backbone, target, "all", LEARNED, job)), job, backbone


@pytest.mark.parametrize("trusted", [False, True])
def test_a_line_says_what_adapt_returns_with_and_without_the_guard(
    benchmark_run, short, monkeypatch, trusted: bool
) -> None:
    def judged(*given: Any, **certain: float) -> Verdict:
        return replace(judge_learning(*given, **certain), trusted=trusted)

    for module in (guard_study, import_module("adapters.adapt")):
        monkeypatch.setattr(module, "judge_learning", judged)
    lines, job, backbone = measured(benchmark_run)
    target: Splits = benchmark_run.domains["usps"]
    assert [line["strategy"] for line in lines] == list(LEARNED)
    for line in lines:
        options = {"strategy": line["strategy"], "steps": 1, "seed": job.seed}
        kept = adapt(backbone, target.train.images, guard=False, **options)
        guarded = adapt(backbone, target.train.images, **options)
        assert line["kept"] == accuracy(backbone, kept.domain, target.test)
        assert line["guarded"] == accuracy(backbone, guarded.domain, target.test)
        assert line["verdict"] == guarded.notes["guard"]
        assert line["verdict"]["trusted"] is trusted
        assert trusted or line["guarded"] == line["start"]
        assert line["chosen"]["kept_step"] == kept.notes["kept_step"]
        for name in ("source_only", "batch_norm"):
            found = adapt(backbone, target.train.images, name, seed=job.seed)
            assert line[name] == accuracy(backbone, found.domain, target.test)


def test_labels_change_accuracies_and_nothing_else(benchmark_run, short, monkeypatch) -> None:
    # else this backbone goes on to predict one class, and every labelling has as many of it
    monkeypatch.setattr("adapters.prepare.class_frequencies", lambda _: torch.full((10,), 0.1))
    monkeypatch.setattr(guard_study, "AdaptConfig", partial(AdaptConfig, prior_images=0))
    lines, *_ = measured(benchmark_run)
    others, *_ = measured(benchmark_run.with_labels(train=True, test=True))
    accuracies = {"source_only", "batch_norm", "start", "kept", "guarded"}
    assert any(line["kept"] != other["kept"] for line, other in zip(lines, others, strict=True))
    for line, other in zip(lines, others, strict=True):
        unlabelled = set(line) - accuracies
        assert {key: line[key] for key in unlabelled} == {key: other[key] for key in unlabelled}


def cell(
    kept: float, *, trusted: bool = True, start: float = 80.0, **changes: Any
) -> dict[str, Any]:
    guarded = kept if trusted else start
    values = {"target": "optdigits", "condition": "all", "source_only": 70.0, "batch_norm": 80.0}
    values |= {"network": "compositional", "seed": 0}
    accuracies = {"start": start, "kept": kept, "guarded": guarded}
    return values | accuracies | {"verdict": {"trusted": trusted}} | changes


def row(condition: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the summary of a condition on development targets."""
    rows = summary(lines).to_dict("records")
    (found,) = (r for r in rows if (r["targets"], r["condition"]) == (FITTED, condition))
    return found


def test_harm_is_more_than_a_point_below_the_better_baseline() -> None:
    found = row("all", [cell(78.9), cell(79.0), cell(90.0, source_only=91.1), cell(95.0)])
    assert (found["cells"], found["harmful"], found["caught"], found["left"]) == (4, 2, 0, 2)


def test_a_refused_harm_is_caught_and_a_refused_gain_a_false_alarm_with_its_cost() -> None:
    lines = [
        cell(50.0, trusted=False),
        cell(50.0),
        cell(86.0, trusted=False),
        cell(82.0, trusted=False),
    ]
    found = row("all", lines)
    assert (found["harmful"], found["caught"], found["false_alarms"]) == (2, 1, 2)
    assert found["cost"] == pytest.approx((6 + 2) / 2)
    assert found["guarded"] == pytest.approx((80 + 50 + 80 + 80) / 4)


def test_what_the_start_does_is_counted_by_itself() -> None:
    found = row("noise", [cell(60.0, start=70.0, trusted=False, condition="noise")])
    assert (found["start_harmful"], found["caught"], found["left"]) == (1, 0, 1)


def test_harm_that_the_start_does_is_not_of_what_the_guard_could_go_back_from() -> None:
    lines = [cell(60.0, start=70.0), cell(60.0, trusted=False), cell(60.0), cell(90.0)]
    said = markdown(summary(lines))
    assert "caught 33 % (1 of 3)" in said
    assert "50 % (1 of 2) of those whose start is harmless" in said


def test_networks_development_targets_and_usps_stay_apart_and_each_has_its_sum() -> None:
    lines = [cell(50.0), cell(90.0, target="mnist_m", condition="noise"), cell(90.0, target="usps")]
    lines.append(cell(90.0, network="unshared"))
    found = {(r["targets"], r["condition"]): r["cells"] for r in summary(lines).to_dict("records")}
    assert found == {
        (FITTED, "all"): 1, (FITTED, "noise"): 1, (FITTED, ALL): 2,
        ("development, unshared, seeds 0", "all"): 1, ("development, unshared, seeds 0", ALL): 1,
        ("usps, compositional, seeds 0", "all"): 1, ("usps, compositional, seeds 0", ALL): 1,
    }  # fmt: skip


def test_the_table_says_what_the_issue_asks_for() -> None:
    lines = [cell(50.0, trusted=False), cell(50.0), cell(86.0, trusted=False), cell(82.0)]
    table = markdown(summary(lines))
    assert "caught 50 % (1 of 2)" in table and "false alarms at 50 % (1 of 2)" in table
    assert "50 % (1 of 2) of those whose start is harmless" in table
    assert "| all | 4 | 2 | 0 | 1 | 1 | 1 | +6.0 | 1 |\n" in table
    assert "| all | 70.0 | 80.0 | 80.0 | 67.0 | 73.0 |\n" in table


def test_the_table_says_which_cells_the_limits_were_made_on() -> None:
    table = markdown(summary([cell(90.0), cell(90.0, network="unshared")]))
    assert f"{FITTED}, which the limits were made on: caught" in table
    assert "development, unshared, seeds 0: caught" in table


def test_other_seeds_of_what_the_limits_were_made_on_are_held_out() -> None:
    fitted = [cell(50.0, trusted=False), cell(50.0)]
    lines = [*fitted, cell(50.0, trusted=False, seed=1), cell(90.0, seed=2)]
    table = markdown(summary(lines))
    assert f"{FITTED}, which the limits were made on: caught 50 % (1 of 2)" in table
    assert "development, compositional, seeds 1, 2: caught 100 % (1 of 1)" in table
    assert f"held out, all but {FITTED}: caught 100 % (1 of 1)" in table
    assert "every cell: caught 67 % (2 of 3)" in table


@pytest.mark.parametrize(
    ("target", "said"), [("meter", "no target meter"), ("svhn", "no target svhn; choose from opt")]
)
def test_another_target_is_refused_with_the_choices(tmp_path: Path, target: str, said: str) -> None:
    found = CliRunner().invoke(main, ["--results", str(tmp_path), "--target", target])
    assert found.exit_code == 1 and said in found.output


def test_where_nothing_is_harmful_the_table_says_so() -> None:
    assert "caught none of 0 of harmful cells" in markdown(summary([cell(90.0)]))


def test_a_users_mistake_ends_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--data", str(tmp_path / "missing")])
    assert found.exit_code == 1
    assert found.output.startswith("Error: expected a data root")


def test_the_committed_table_is_made_from_the_committed_rows() -> None:
    folder = RESULTS / "guard"
    lines = read_lines(folder / "results.jsonl")
    assert (folder / "table.md").read_text(encoding="utf-8") == markdown(summary(lines))

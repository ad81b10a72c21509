import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.harness.rows import ResultRow
from benchmarks.reports.report import draw_backbone, write_report
from tests.benchmarks.rows import ROW as BASE

ROW = replace(
    BASE,
    profile="full",
    sources=["mnist"],
    accuracy=81.25,
    source_only=60.0,
    batch_norm=70.0,
    selection="information",
)


def write_rows(folder: Path, *rows: ResultRow) -> None:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)


def test_a_report_has_tables_and_one_plot_a_group(tmp_path):
    write_rows(tmp_path, ROW, replace(ROW, profile="quick"))
    assert write_report(tmp_path) == [ROW, replace(ROW, profile="quick")]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "results.jsonl", "table.md", "table.csv", "table.tex",
        "full-usps-f00d-accuracy.png", "quick-usps-f00d-accuracy.png",
        "full-f00d-best.png", "quick-f00d-best.png",
    }  # fmt: skip


def test_targets_in_turn_have_a_table_side_by_side(tmp_path):
    write_rows(tmp_path, ROW, replace(ROW, target="meter"))
    write_report(tmp_path)
    assert "| Strategy | meter | usps | mean |" in (tmp_path / "rotation.md").read_text()


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_report_of_nothing_is_refused_and_writes_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(ValueError, match="no results in"):
        write_report(tmp_path)
    assert not (tmp_path / "table.md").exists()


def test_nothing_is_drawn_without_a_backbone(benchmark_run, tmp_path):
    folder = tmp_path / "plots"
    folder.mkdir()
    draw_backbone(benchmark_run.jobs()[0], benchmark_run.domains, benchmark_run.runs, folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("network", "plots"),
    [
        ("compositional", ["changed", "confusion", "embeddings", "mixtures"]),
        ("unshared", ["embeddings"]),
    ],
)
def test_mixtures_and_predictions_are_drawn_where_mixtures_are_learned(
    benchmark_run, tmp_path, network, plots
):
    (job,) = benchmark_run.jobs((network,))
    benchmark_run.run([job], ("information_maximization",), oracles=False)
    folder = tmp_path / "plots"
    folder.mkdir()
    draw_backbone(job, benchmark_run.domains, benchmark_run.runs, folder)
    start = f"quick-usps-{job.data_fingerprint[:6]}-paper-{network}"
    assert sorted(p.name for p in folder.iterdir()) == [f"{start}-{plot}.png" for plot in plots]

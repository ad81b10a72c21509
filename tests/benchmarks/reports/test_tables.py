import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.committed.pages import insert_between_markers
from benchmarks.harness.rows import ResultRow
from benchmarks.reports.latex import latex
from benchmarks.reports.report import write_tables
from benchmarks.reports.rotation_table import rotation_markdown
from benchmarks.reports.tables import (
    BOUNDS,
    csv,
    data_line,
    groups,
    markdown,
    summarize,
    terminal,
)
from tests.benchmarks.rows import ROW as BASE

ROW = replace(BASE, sources=["mnist", "mnist_shear"], strategy="adversarial", accuracy=70.0)
INPUT_ADAPTER = {"network": "unshared", "trains": "input_adapter", "learned_parameters": 1224}
NOTHING = {"trains": "nothing", "learned_parameters": 0}


def example_rows(seeds: Sequence[int] = (0, 1, 2)) -> list[ResultRow]:
    """Every strategy on both networks, in an order that is not the tables'."""
    rows = []
    for seed in seeds:
        for side in ({}, INPUT_ADAPTER):
            row = replace(ROW, seed=seed, **side)
            rows += [
                replace(row, strategy="oracle", oracle=True, accuracy=95.0 + seed),
                replace(row, strategy="information_maximization", accuracy=77.0 + seed),
                replace(row, strategy="made_up", accuracy=60.0),
                replace(row, strategy="classifier_discrepancy", accuracy=72.0),
                replace(row, strategy="moment_matching", accuracy=71.0),
                row,
                replace(row, strategy="batch_norm", accuracy=65.5, **NOTHING),
                replace(row, strategy="source_only", accuracy=56.0, **NOTHING),
            ]
    everything = {"trains": "all", "learned_parameters": 40_000}
    return [*rows, replace(ROW, strategy="oracle", oracle=True, accuracy=99.0, **everything)]


def table_lines(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_tables_say_the_size_of_pictures_whatever_the_network_started_from() -> None:
    for kind in ("network", "pretrained"):
        row = replace(ROW, config={"job": {kind: {"image_size": 96}}})
        assert data_line(row).endswith(", 96 pixels")
    assert "pixels" not in data_line(replace(ROW, config={}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 100)] * 3), min_size=1, max_size=6))
def test_summary_equals_a_slow_loop_over_seeds(runs: list[tuple[float, float, float]]) -> None:
    rows = [
        replace(ROW, seed=seed, accuracy=run[0], source_only=run[1], batch_norm=run[2])
        for seed, run in enumerate(runs)
    ]
    [line] = summarize(rows).to_dict("records")
    mean = sum(run[0] for run in runs) / len(runs)
    squares = 0.0
    for run in runs:
        squares += (run[0] - mean) ** 2
    deviation = math.sqrt(squares / (len(runs) - 1)) if len(runs) > 1 else 0.0
    assert line["seeds"] == list(range(len(runs)))
    assert np.isclose(line["accuracy"], mean)
    assert np.isclose(line["std"], deviation, atol=1e-6)
    assert np.isclose(line["over_source_only"], sum(run[0] - run[1] for run in runs) / len(runs))
    assert np.isclose(line["over_batch_norm"], sum(run[0] - run[2] for run in runs) / len(runs))


def test_a_repeated_cell_counts_once_and_its_last_row_wins() -> None:
    [line] = summarize([ROW, replace(ROW, accuracy=80.0)]).to_dict("records")
    assert (line["accuracy"], line["seeds"]) == (80.0, [0])


@pytest.mark.parametrize(
    "other",
    [
        {"benchmark": "pictures"},
        {"data": "bundled"},
        {"data_fingerprint": "beef"},
        {"target": "svhn"},
        {"sources": ["mnist"]},
        {"profile": "full"},
    ],
)
def test_rows_that_must_not_be_averaged_get_a_table_each(other: dict) -> None:
    rows = [ROW, replace(ROW, **other), replace(ROW, seed=1)]
    assert sorted(len(group) for group in groups(rows)) == [1, 2]
    assert markdown(rows).count("| Strategy | MW accuracy |") == 2
    with pytest.raises(ValueError, match="got 2 kinds"):
        summarize(rows)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 kinds"):
        summarize([])
    for render in (markdown, latex, csv, terminal):
        with pytest.raises(ValueError, match="run the benchmark first"):
            render([])


def test_lines_come_in_the_stated_order_whatever_the_order_of_the_rows() -> None:
    names = [line[0] for line in table_lines(markdown(example_rows()))]
    assert names[: len(names) // 2] == names[len(names) // 2 :]  # accuracies, and what they cost
    assert names[2 : len(names) // 2] == [
        "Source only",
        "AdaBN",
        "Adversarial (ADDA)",
        "Moment matching (M3SDA)",
        "M3SDA + classifier discrepancy",
        "Information maximization",
        "Made up",
        BOUNDS,
        "oracle (target labels)",
        "oracle (target labels), all",
    ]
    assert markdown(example_rows()[::-1]) == markdown(example_rows())


def test_a_line_compares_mixture_weights_with_input_adapter() -> None:
    rows = [replace(row, accuracy=50.0) if row.network == "unshared" else row for row in
            example_rows()]  # fmt: skip
    lines = [line for line in table_lines(markdown(rows)) if line[0].startswith("Information")]
    accuracies, costs = lines
    assert [*accuracies[1:], *costs[2:]] == [
        "**78.0 ± 1.0**",
        "+12.5 (+22.0)",
        "50.0 ± 0.0",
        "-15.5 (-6.0)",
        "73.5 / 73.5",
        "64 / 1,224",
        "9,000 / 9,000",
        "12.5 / 12.5",
        "420 / 420",
    ]


def test_only_the_best_label_free_value_of_each_recipe_is_bold() -> None:
    rows = example_rows() + [replace(row, recipe="strong") for row in example_rows()]
    rows = [row for row in rows if row.network == "compositional"]
    bold = [cell for line in table_lines(markdown(rows)) for cell in line if "**" in cell]
    assert bold == ["**78.0 ± 1.0**"] * 2
    assert latex(rows).count(r"\textbf") == 2


def test_two_trained_sets_under_one_name_both_stay() -> None:
    text = markdown([ROW, replace(ROW, accuracy=61.0, **NOTHING)])
    assert "61.0" in text and "70.0" in text


def test_a_single_seed_has_no_deviation_and_a_missing_side_is_a_dash() -> None:
    line = table_lines(markdown([ROW]))[2]
    assert line[1:] == ["**70.0 ± -**", "+4.5 (+14.0)", "-", "-", "73.5 / -", "64 / -"]


def test_fewer_seeds_than_the_table_are_said() -> None:
    rows = [*example_rows(), replace(ROW, strategy="late", seed=1)]
    assert "70.0 ± - (n=1)" in markdown(rows)


@pytest.mark.parametrize("render", [markdown, csv])
def test_captions_state_what_was_measured(render) -> None:
    text = render([*example_rows(), replace(ROW, seed=2, strategy="x")])
    for part in (
        "digits: mnist, mnist_shear → usps",
        "data: files (f00d)",
        "profile: quick",
        "recipe: paper",
        "seeds: 0, 1, 2",
        "Test accuracy in percent",
        "gain: over AdaBN",
        "docs/reading-tables.md",
    ):
        assert part in text


def test_captions_state_the_steps_of_what_is_trained() -> None:
    def taking(steps: int, **changes: Any) -> ResultRow:
        return replace(ROW, config={"job": {"adapt_steps": steps}}, **changes)

    rows = [
        taking(4, **INPUT_ADAPTER),
        taking(1),
        taking(1, seed=1),
        taking(1, strategy="source_only", **NOTHING),
        taking(1, trains="batch_norm"),
    ]
    for text in (markdown(rows), rotation_markdown(rows)):
        assert "; adaptation steps: 1 (MW; γ, β)" in text
    assert "; adaptation steps: 1 (MW; γ, β), 4 (IA); seeds: 0, 1.\n" in markdown(rows)
    assert "adaptation steps" not in markdown([ROW])


def test_markdown_escapes_what_would_break_the_table() -> None:
    text = markdown([replace(ROW, strategy="a|b", target="x<1")])
    assert r"A\|b" in text and "x&lt;1" in text


def test_latex_escapes_special_characters_and_uses_booktabs() -> None:
    text = latex([replace(ROW, target=r"50%_#&{x}$~^\ <")])
    assert r"$\to$ 50\%\_\#\&\{x\}\$\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert "$<$" in text and "±" not in text and "→" not in text
    assert latex(example_rows()).count(r"\midrule") == 2  # bounds stand apart
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_csv_holds_the_unrounded_summary() -> None:
    rows = example_rows((0,)) + [replace(row, profile="full") for row in example_rows()]
    frame = pd.read_csv(io.StringIO(csv(rows)), comment="#")
    assert set(frame.profile) == {"quick", "full"}
    one = frame.loc[frame.profile == "quick"]
    assert np.isnan(one["std"]).all() and set(one.sources) == {"mnist mnist_shear"}
    full = summarize(rows[-len(example_rows()) :])
    np.testing.assert_allclose(frame[frame.profile == "full"].accuracy, full.accuracy)


def test_terminal_fits_80_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal(example_rows()))
    text = console.export_text()
    assert "78.0 ± 1.0" in text and "+12.5 (+22.0)" in text and "…" not in text
    above, apart, below = text.partition("bounds")
    assert apart and "Made up" in above and "oracle" not in above and below.count("oracle") == 2


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_below_all_recipes_stand_three_lines_at_100_columns(seeds: tuple[int, ...]) -> None:
    sources = ["mnist", "mnist_shot_noise", "mnist_shear", "mnist_scale", "meter"]
    rows = [
        replace(row, sources=sources, recipe=recipe, data_fingerprint="5e6bff570a0a")
        for recipe in ("paper", "strong", "strong-long")
        for row in example_rows(seeds)
    ]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(terminal(rows))
    lines = console.export_text().rstrip().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("digits: "))
    assert len(lines) - start <= 3
    assert f"seeds: {'1' if len(seeds) == 1 else '3'}. " in " ".join(lines[start:])


def test_a_block_goes_between_its_markers_and_again_changes_nothing() -> None:
    text = "a\n<!-- table:digits -->\nold\n<!-- /table:digits -->\nb <!-- table:other -->"
    once = insert_between_markers(text, "digits", "| new |\n")
    assert once == (
        "a\n<!-- table:digits -->\n\n| new |\n\n<!-- /table:digits -->\nb <!-- table:other -->"
    )
    assert insert_between_markers(once, "digits", "| new |\n") == once


@pytest.mark.parametrize(
    "text",
    ["", "<!-- table:digits -->", "<!-- /table:digits --><!-- table:digits -->"],
)
def test_missing_markers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected <!-- table:digits --> and then"):
        insert_between_markers(text, "digits", "")


def test_tables_are_written_whole_and_alone(tmp_path: Path) -> None:
    write_tables(iter(example_rows()), tmp_path / "results")
    write_tables(example_rows(), tmp_path / "results")
    names = {path.name: path.read_text("utf-8") for path in (tmp_path / "results").iterdir()}
    assert names == {
        "table.md": markdown(example_rows()),
        "table.csv": csv(example_rows()),
        "table.tex": latex(example_rows()),
    }

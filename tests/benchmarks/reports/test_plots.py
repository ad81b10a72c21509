import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from benchmarks.harness.rows import ResultRow
from benchmarks.reports import plots
from benchmarks.reports.plots import plot_accuracy, plot_embeddings, plot_mixtures
from benchmarks.reports.tables import display_name
from tests.benchmarks.rows import ROW as BASE

ROW = replace(BASE, strategy="adversarial", accuracy=70.0)
NOTHING = {"trains": "nothing", "learned_parameters": 0}
SIDES = (
    {},
    {"network": "unshared", "trains": "input_adapter", "learned_parameters": 1224},
)


def example_rows() -> list[ResultRow]:
    rows = []
    for recipe in ("paper", "strong"):
        for seed in range(2):
            for side in SIDES:
                row = replace(ROW, recipe=recipe, seed=seed, **side)
                rows += [
                    replace(row, strategy="source_only", accuracy=56.0, **NOTHING),
                    replace(row, strategy="batch_norm", accuracy=65.5, **NOTHING),
                    row,
                    replace(row, strategy="moment_matching", accuracy=70.1 + seed),
                    replace(row, strategy="classifier_discrepancy", accuracy=70.3),
                    replace(row, strategy="information_maximization", accuracy=70.4),
                    replace(row, strategy="oracle", oracle=True, accuracy=95.0),
                ]
    return rows


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pixels, to be quick."""
    monkeypatch.setattr(plots, "DPI", 60)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[matplotlib.figure.Figure]]:
    """Figures that were saved, to look into."""
    saved: list[matplotlib.figure.Figure] = []
    save = plots.save_figure

    def remember(figure: matplotlib.figure.Figure, path: Path, caption: str) -> None:
        save(figure, path, caption)
        saved.append(figure)

    monkeypatch.setattr(plots, "save_figure", remember)
    yield saved


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_accuracy_has_a_panel_per_recipe_and_labels_that_do_not_overlap(
    tmp_path: Path, figures: list
) -> None:
    rows = [row for row in example_rows() if (row.recipe, row.seed) != ("strong", 1)]
    plot_accuracy(iter(rows), tmp_path / "accuracy.png")
    [figure] = figures
    assert is_png(tmp_path / "accuracy.png")
    assert [panel.get_title() for panel in figure.axes] == [
        "Recipe: paper; seeds: 0, 1",
        "Recipe: strong; seeds: 0",
    ]
    assert (
        figure.get_supxlabel() == "digits: mnist, meter → usps; data: files (f00d); profile: quick"
    )
    names = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert {"Source only, compositional", "AdaBN, unshared", "IA (unshared)"} <= names
    assert "oracle, MW (target labels)" in names

    renderer = FigureCanvasAgg(figure).get_renderer()
    for panel in figure.axes:
        labels = [child for child in panel.texts if isinstance(child, Annotation)]
        boxes = [Text.get_window_extent(label, renderer) for label in labels]
        assert len(boxes) == 10
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert all(panel.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


@pytest.mark.parametrize(
    "rows",
    [
        [ROW],
        [replace(ROW, strategy="source_only", **NOTHING)],
        [replace(ROW, strategy="oracle", oracle=True, accuracy=100.0)],
        [replace(ROW, strategy="odd", **NOTHING), replace(ROW, accuracy=0.0)],
        [replace(ROW, seed=seed, strategy=f"made_up_{seed}") for seed in range(12)],
    ],
)
def test_accuracy_draws_whatever_rows_there_are(tmp_path: Path, rows: list[ResultRow]) -> None:
    plot_accuracy(rows, tmp_path / "accuracy.png")
    assert is_png(tmp_path / "accuracy.png")


def test_accuracy_names_results_at_one_place_in_one_label(tmp_path: Path, figures: list) -> None:
    oracle = replace(ROW, strategy="oracle", oracle=True)
    rows = [ROW, replace(ROW, strategy="auto"), oracle, replace(ROW, strategy="odd", accuracy=1.0)]
    plot_accuracy(rows, tmp_path / "accuracy.png")
    [panel] = figures[0].axes
    names = {text.get_text() for text in panel.texts}
    assert names == {f"{display_name(ROW.strategy)}\nAuto", "oracle, compositional", "Odd"}


def test_accuracy_refuses_rows_of_two_targets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="groups"):
        plot_accuracy([ROW, replace(ROW, target="svhn")], tmp_path / "accuracy.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_domains", [1, 7])
def test_mixtures_show_each_domain_on_one_scale(
    tmp_path: Path, figures: list, num_domains: int
) -> None:
    generator = np.random.default_rng(0)
    mixtures = {f"d{i}": generator.dirichlet(np.ones(4), size=16) for i in range(num_domains)}
    plot_mixtures(mixtures, tmp_path / "mixtures.png", caption="digits; data: files")
    assert is_png(tmp_path / "mixtures.png")
    images = {panel.get_title(): panel.images[0] for panel in figures[0].axes if panel.images}
    for domain, xi in mixtures.items():
        np.testing.assert_array_equal(images[domain].get_array(), xi)
        assert images[domain].get_clim() == (0, 1)
    distances = images["Distance between domains"].get_array()
    for (one, first), (other, second) in combinations(enumerate(mixtures.values()), 2):
        slow = sum(sum(abs(a - b)) / 2 for a, b in zip(first, second, strict=True)) / 16
        assert np.isclose(distances[one, other], slow) and distances[one, other] <= 1
    assert figures[0].get_supxlabel() == "digits; data: files"


@pytest.mark.parametrize("mixtures", [{}, {"a": np.ones((2, 3)), "b": np.ones((3, 3))}])
def test_mixtures_of_unlike_shapes_are_refused(tmp_path: Path, mixtures: dict) -> None:
    with pytest.raises(ValueError, match=r"one shape \(L, K\)"):
        plot_mixtures(mixtures, tmp_path / "mixtures.png")


def test_embeddings_show_a_bounded_seeded_part_of_every_domain(
    tmp_path: Path, figures: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "MAX_POINTS", 120)
    generator = np.random.default_rng(0)
    sizes = {"mnist": 500, "meter": 3, "usps": 50}
    labels = {domain: generator.integers(0, 12, size) for domain, size in sizes.items()}
    features = {name: generator.normal(size=(size, 8)) for name, size in sizes.items()}
    for _ in range(2):
        plot_embeddings(features, features, labels, "usps", tmp_path / "t.png", 0, caption="c")
    assert is_png(tmp_path / "t.png")
    panels = figures[0].axes
    assert [panel.get_title() for panel in panels] == ["Before adaptation", "After adaptation"]
    for panel, again in zip(panels, figures[1].axes, strict=True):
        shown = [dots.get_offsets() for dots in panel.collections]
        assert [len(points) for points in shown] == [20 + 3, 20]  # sources, target
        for points, dots in zip(shown, again.collections, strict=True):
            np.testing.assert_array_equal(points, dots.get_offsets())


@pytest.mark.parametrize(("count", "title"), [(20, "Class"), (21, "21 classes")])
def test_embeddings_name_their_classes_while_there_are_colours(
    tmp_path: Path, figures: list, count: int, title: str
) -> None:
    labels = {"mnist": np.arange(count), "usps": np.arange(count)}
    features = {name: np.random.default_rng(0).normal(size=(count, 4)) for name in labels}
    names = [f"class-{number}" for number in range(count)]
    plot_embeddings(features, features, labels, "usps", tmp_path / "t.png", 0, class_names=names)
    (legend,) = figures[0].legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert legend.get_title().get_text() == title
    assert shown == [*(names if count <= 20 else []), "sources", "usps"]


def test_embeddings_draw_a_target_of_one_image(tmp_path: Path) -> None:
    features = {"mnist": np.random.default_rng(0).normal(size=(5, 4)), "usps": np.ones((1, 4))}
    labels = {"mnist": np.arange(5), "usps": np.zeros(1, dtype=int)}
    plot_embeddings(features, features, labels, "usps", tmp_path / "t.png", 0)
    assert is_png(tmp_path / "t.png")


@pytest.mark.parametrize(
    ("after", "target"), [(9, "usps"), (10, "svhn")], ids=["other counts", "no target"]
)
def test_embeddings_that_do_not_fit_together_are_refused(
    tmp_path: Path, after: int, target: str
) -> None:
    with pytest.raises(ValueError, match="expected the same domains and counts"):
        plot_embeddings(
            {"usps": np.ones((10, 2))},
            {"usps": np.ones((after, 2))},
            {"usps": np.ones(10)},
            target,
            tmp_path / "t.png",
            0,
        )


def test_plots_leave_no_global_state() -> None:
    assert not (module := sys.modules.get("matplotlib.pyplot")) or not module.get_fignums()

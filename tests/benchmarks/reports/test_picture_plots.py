import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from benchmarks.reports import picture_plots
from benchmarks.reports.picture_plots import plot_confusion, plot_contact_sheet

NAMES = ("<b>&", "price $x$ and $y$", "aircraft carrier of the navy")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Figures that were saved, to look into; fewer pixels, to be quick."""
    saved: list[Figure] = []
    save = picture_plots.save_figure

    def remember(figure: Figure, path: Path, caption: str) -> None:
        save(figure, path, caption)
        saved.append(figure)

    monkeypatch.setattr(picture_plots, "save_figure", remember)
    monkeypatch.setattr(picture_plots, "DPI", 60)
    yield saved


def check_png(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).var() > 0


def random_images(count: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def thumbnails(part: SubFigure) -> dict[bytes, str]:
    """Pixels of each thumbnail, and the text below it."""
    return {
        np.asarray(panel.images[0].get_array()).tobytes(): panel.get_xlabel()
        for panel in part.axes
        if panel.images
    }


def test_confusion_rows_are_shares_of_the_true_class(tmp_path: Path, figures: list) -> None:
    labels, predictions = [0, 0, 0, 0, 2, 2], [0, 0, 0, 1, 2, 0]
    plot_confusion(labels, predictions, NAMES, tmp_path / "c.png", "usps, seed 0")
    check_png(tmp_path / "c.png")
    panel = figures[0].axes[0]
    shown = panel.images[0].get_array()
    np.testing.assert_array_equal(shown[[0, 2]], [[0.75, 0.25, 0], [0.5, 0, 0.5]])
    assert shown.mask[1].all() and not shown.mask[[0, 2]].any()  # no image of this class
    assert [text.get_text() for text in panel.texts] == list("310000101")
    assert tuple(text.get_text() for text in panel.get_yticklabels()) == NAMES
    assert "66.7 % of 6 images right" in panel.get_title()
    assert figures[0].get_supxlabel() == "usps, seed 0"


@pytest.mark.parametrize(("classes", "named"), [(2, 2), (12, 12), (13, 13), (60, 60), (345, 58)])
def test_confusion_of_many_classes_thins_its_names(
    tmp_path: Path, figures: list, classes: int, named: int
) -> None:
    labels = np.arange(3 * classes) % classes
    names = [f"class {number}" for number in range(classes)]
    plot_confusion(labels, np.zeros_like(labels), names, tmp_path / "c.png")
    check_png(tmp_path / "c.png")
    panel = figures[0].axes[0]
    assert panel.images[0].get_array().shape == (classes, classes)
    assert len(panel.get_xticklabels()) == len(panel.get_yticklabels()) == named
    assert len(panel.texts) == (classes**2 if classes <= 12 else 0)


@pytest.mark.parametrize(
    ("labels", "predictions", "said"),
    [
        ([], [], "labels, predictions of one shape"),
        ([0, 1], [0], "labels, predictions of one shape"),
        ([[0]], [[0]], "labels, predictions of one shape"),
        ([0, 2], [0, 0], r"labels must be whole numbers in 0\.\.1.* got int64 0\.\.2"),
        ([0, 0], [-1, 0], "predictions must be whole numbers"),
        ([0.5], [0], "got float64"),
    ],
)
def test_confusion_refuses_what_are_no_classes(tmp_path: Path, labels, predictions, said) -> None:
    with pytest.raises(ValueError, match=said):
        plot_confusion(labels, predictions, NAMES[:2], tmp_path / "c.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_contact_sheet_shows_every_picture_put_right_or_wrong(
    tmp_path: Path, figures: list, shape: tuple[int, ...]
) -> None:
    images = random_images(8, shape)
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    before = np.array([1, 0, 2, 1, 1, 0, 2, 1])
    after = np.array([0, 0, 1, 0, 1, 2, 2, 1])
    plot_contact_sheet(images, labels, before, after, NAMES, tmp_path / "s.png", "usps")
    check_png(tmp_path / "s.png")
    assert "4 of 8 images (1 wrong before and after)" in figures[0].get_suptitle()
    right, wrong = figures[0].subfigs
    assert (right.get_suptitle(), wrong.get_suptitle()) == ("Put right: 2", "Put wrong: 1")
    assert thumbnails(right) == {
        images[0].tobytes(): "was price $x$ and $y$\n→ now <b>&\n(truth <b>&)",
        images[5].tobytes(): "was <b>&\n→ now aircraft carrier …\n(truth aircraft carrier …)",
    }
    assert thumbnails(wrong) == {
        images[3].tobytes(): "was price $x$ and $y$\n→ now <b>&\n(truth price $x$ and $y$)"
    }


def test_contact_sheet_shows_a_seeded_sample_of_many(tmp_path: Path, figures: list) -> None:
    images = random_images(60)
    labels = np.arange(60) % 2
    before, after = np.zeros(60, dtype=int), np.ones(60, dtype=int)
    for seed in (0, 0, 1):
        plot_contact_sheet(
            images, labels, before, after, "ab", tmp_path / "s.png", count=10, seed=seed
        )
    first, again, other = ([set(thumbnails(half)) for half in f.subfigs] for f in figures)
    assert [len(half) for half in first] == [5, 5]
    assert first == again != other
    assert all(
        re.fullmatch(r"Put (right|wrong): 30, 5 of them shown", half.get_suptitle())
        for half in figures[0].subfigs
    )


def test_contact_sheet_says_that_nothing_changed(tmp_path: Path, figures: list) -> None:
    classes = np.arange(6) % 3
    plot_contact_sheet(random_images(6), classes, classes, classes, NAMES, tmp_path / "s.png")
    check_png(tmp_path / "s.png")
    assert "0 of 6 images" in figures[0].get_suptitle()
    for half in figures[0].subfigs:
        assert half.get_suptitle().endswith(": 0") and not thumbnails(half)
        assert [text.get_text() for text in half.texts if text.get_text() == "none"] == ["none"]


def test_contact_sheet_refuses_labels_of_other_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as many labels as images, got 2 and 3"):
        plot_contact_sheet(random_images(3), [0, 1], [0, 1], [0, 1], NAMES, tmp_path / "s.png")
    with pytest.raises(ValueError, match=r"after of one shape \(M,\)"):
        plot_contact_sheet(random_images(2), [0, 1], [0, 1], [0], NAMES, tmp_path / "s.png")
    assert not list(tmp_path.iterdir())

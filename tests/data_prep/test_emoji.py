"""The emoji that three drawing styles share, and what they look like."""

import unicodedata
from functools import cache, partial

import numpy as np
import pytest

from data_prep import emoji
from data_prep.emoji import STYLES, draw, draw_all, emoji_classes, package_versions

EVERY = [code for codes in emoji_classes().values() for code in codes]
every_emoji = cache(partial(draw_all, codes=EVERY, size=32))
every_style = pytest.mark.parametrize("style", STYLES)


def test_54_classes_of_at_least_ten_emoji() -> None:
    classes = emoji_classes()
    assert len(classes) == 54
    assert min(map(len, classes.values())) == 10
    assert len(EVERY) == len(set(EVERY)) == 1_113
    assert list(classes) == sorted(classes)
    assert "1f98a" in classes["animal-mammal"]  # fox
    assert {"1f385", "1f936"} & set(classes["person-fantasy"]) in ({"1f385"}, {"1f936"})
    assert "a9" in classes["other-symbol"]  # copyright, in files called a9 and 00A9


def test_neither_flags_nor_keycaps_nor_skin_tones() -> None:
    names = [unicodedata.name(chr(int(code, 16)), "newer than Python") for code in EVERY]
    assert not [name for name in names if "REGIONAL" in name or "FITZPATRICK" in name]
    assert not [name for name in names if name.startswith("DIGIT")]
    assert not {"1f3c1", "1f38c"} & set(EVERY)  # chequered flag, crossed flags


@every_style
def test_no_drawing_is_blank_and_all_are_on_white(style: str) -> None:
    pictures = every_emoji(style)
    assert pictures.shape == (1_113, 32, 32, 3)
    assert pictures.dtype == np.uint8
    contrast = 255 - pictures.min(axis=(1, 2, 3)).astype(int)
    assert (contrast >= 16).all()  # white hearts and clouds have a light grey edge
    assert np.mean(pictures.max(axis=(1, 2, 3)) == 255) > 0.97  # the others fill their square


@every_style
def test_no_two_emoji_are_drawn_alike(style: str) -> None:
    pictures = every_emoji(style)
    assert len({picture.tobytes() for picture in pictures}) == len(EVERY)


def test_line_art_is_grey_and_the_others_are_not() -> None:
    colourful = {style: np.ptp(draw(style, "1f98a", 64), axis=-1).max() for style in STYLES}
    assert colourful["noto_line"] == 0
    assert min(colourful["twemoji"], colourful["openmoji"]) > 100


def test_line_art_keeps_within_its_picture() -> None:
    pictures = every_emoji("noto_line")
    edges = [pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]]
    cut = np.concatenate(edges, axis=1).min(axis=(1, 2)) < 64
    assert cut.sum() <= 1


@every_style
@pytest.mark.parametrize("size", [16, 96])
def test_any_size_is_drawn(style: str, size: int) -> None:
    small, large = draw(style, "1f98a", size), draw(style, "1f98a", 2 * size)
    halved = large.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - halved).mean() < 16


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = emoji.find_spec
    monkeypatch.setattr(
        emoji, "find_spec", lambda name: None if name == "resvg_py" else found(name)
    )
    for call in (package_versions, lambda: draw_all("twemoji", EVERY[:1], 8)):
        with pytest.raises(ModuleNotFoundError, match=r"resvg-py: pip install 'da-compose\[emoji"):
            call()


def test_versions_of_all_packages_are_known() -> None:
    versions = package_versions()
    assert versions.keys() == {*emoji.PACKAGES.values(), "pillow"}
    assert all(versions.values())

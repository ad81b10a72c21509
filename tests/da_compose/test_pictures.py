"""Picture files of every kind: converted rightly, or refused with a reason."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from da_compose import pictures
from da_compose.folders import list_pictures, visible_files
from da_compose.pictures import AHEAD, BrokenPicture, read_all, read_picture
from tests.pictures import BROKEN, SIDE, encoded, make_pictures, noise, png_of_size

COLOUR = np.asarray(noise(0))


def saved(path: Path, picture: Image.Image, **options) -> NDArray[np.uint8]:
    picture.save(path, **options)
    return read_picture(path, SIDE)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_refused_with_its_path_and_a_short_reason(tmp_path: Path, kind: str):
    (path,) = (p for p in make_pictures(tmp_path, 0, 1) if p.name.endswith(kind))
    with pytest.raises(BrokenPicture) as caught:
        read_picture(path, SIDE)
    reason = caught.value.reason
    assert 5 < len(reason) < 160 and "\n" not in reason and str(path) not in reason
    assert str(caught.value) == f"{path}: {reason}"


def test_a_picture_beyond_pillows_limit_is_refused_and_no_warning(tmp_path: Path):
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    (tmp_path / "bomb.png").write_bytes(png_of_size(limit // 1_000 + 1, 1_000))
    with pytest.raises(BrokenPicture, match="exceeds limit"):
        read_picture(tmp_path / "bomb.png", SIDE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (found,) = read_all([tmp_path / "bomb.png"], SIDE)
    assert isinstance(found, BrokenPicture) and not caught


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make):
    make(tmp_path / "x.jpg")
    with pytest.raises(BrokenPicture, match="not a file"):
        read_picture(tmp_path / "x.jpg", SIDE)


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch):
    noise(0).save(tmp_path / "x.png")

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x.png"))

    monkeypatch.setattr(Path, "open", deny)  # a superuser may read everything
    with pytest.raises(BrokenPicture) as caught:
        read_picture(tmp_path / "x.png", SIDE)
    assert caught.value.reason == "Permission denied"


def test_postscript_with_a_pictures_name_is_never_run(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(encoded(noise(0), "EPS"))
    with pytest.raises(BrokenPicture, match="not of a known format"):
        read_picture(tmp_path / "x.jpg", SIDE)


def test_an_animation_gives_its_first_frame(tmp_path: Path):
    frames = [Image.new("P", (SIDE, SIDE), value) for value in (0, 1)]
    for frame in frames:
        frame.putpalette([250, 0, 0, 0, 250, 0])
    found = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (found == (250, 0, 0)).all()


def test_one_bit_pictures_are_black_and_white(tmp_path: Path):
    bits = COLOUR[..., 0] > 127
    found = saved(tmp_path / "x.png", Image.fromarray(bits))
    np.testing.assert_array_equal(found, np.repeat(bits[..., None], 3, axis=-1) * np.uint8(255))


def test_a_picture_is_squeezed_to_a_square_whatever_its_shape(tmp_path: Path):
    halves = Image.new("RGB", (4_000, 20), "red")
    halves.paste("blue", (2_000, 0, 4_000, 20))
    found = saved(tmp_path / "x.jpg", halves, quality=95)
    assert found.shape == (SIDE, SIDE, 3)
    assert (found[:, : SIDE // 2 - 1, 0] > 240).all() and (found[:, SIDE // 2 + 1 :, 2] > 240).all()


@pytest.mark.parametrize("shape", [(700, 900), (900, 310)])
def test_decoding_a_large_jpeg_at_a_fraction_changes_nothing_visible(tmp_path: Path, shape):
    photograph = noise(0, 8, 6).resize(shape, Image.Resampling.BICUBIC)
    found = saved(tmp_path / "x.jpg", photograph, quality=95)
    with Image.open(tmp_path / "x.jpg") as picture:
        expected = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    difference = np.abs(found.astype(int) - np.asarray(expected))
    assert difference.mean() < 2.5 and difference.max() < 25  # of a contrast of 255 in 4 pixels


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path: Path, monkeypatch):
    sizes = []
    monkeypatch.setattr(pictures, "to_rgb", lambda picture: sizes.append(picture.size) or picture)
    saved(tmp_path / "x.jpg", noise(0, 800, 800))
    assert sizes == [(100, 100)]  # an eighth, and still more than twice what is wanted


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_as_exif_says(tmp_path: Path, kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying = Image.new("RGB", (SIDE, SIDE), "black")
    lying.paste("white", (0, 0, SIDE // 2, SIDE))
    found = saved(tmp_path / f"x.{kind.lower()}", lying, exif=exif)
    assert (found[: SIDE // 2 - 4] > 200).all() and (found[SIDE // 2 + 4 :] < 50).all()


def test_damaged_exif_data_leave_the_picture_as_it_lies(tmp_path: Path):
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x07" * 30
    found = saved(tmp_path / "x.png", noise(0), exif=exif)
    np.testing.assert_array_equal(found, COLOUR)


def test_many_are_read_in_order_as_one_by_one(tmp_path: Path):
    broken = make_pictures(tmp_path, AHEAD + 20, 1)
    paths = list_pictures(tmp_path)
    assert len(paths) == AHEAD + 20 + len(broken)
    for path, found in zip(paths, read_all(paths, 8), strict=True):
        if isinstance(found, BrokenPicture):
            assert found.path == path and path in broken
        else:
            np.testing.assert_array_equal(found, read_picture(path, 8))


def test_hidden_files_are_passed_over_and_dangling_links_are_not(tmp_path: Path):
    for name in (".x.png", ".thumbnails/x.png", "seen/x.png", "seen/.y.png", "x.jpg/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(0).save(tmp_path / name)
    (tmp_path / "z.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("not a picture")
    found = [str(path.relative_to(tmp_path)) for path in visible_files(tmp_path)]
    assert found == ["notes.txt", "seen/x.png", "x.jpg/y.png", "z.png"]
    assert list_pictures(tmp_path) == [tmp_path / name for name in found]


def test_a_hidden_folder_is_read_where_it_is_the_one_asked_for(tmp_path: Path):
    (tmp_path / ".cache").mkdir()
    noise(0).save(tmp_path / ".cache" / "x.png")
    assert list_pictures(tmp_path / ".cache") == [tmp_path / ".cache" / "x.png"]


def test_links_to_folders_are_followed_and_never_in_a_circle(tmp_path: Path):
    make_pictures(tmp_path / "other", 2, 0)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "away").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "top").symlink_to(tmp_path)
    found = list_pictures(tmp_path / "here")
    assert [path.name for path in found] == ["00000.png", "00001.png"]


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path):
    for name in "abc":
        make_pictures(tmp_path / name, 1, 0)
        for other in "abc".replace(name, ""):
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert len(list_pictures(tmp_path)) == 3


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        list_pictures(tmp_path)

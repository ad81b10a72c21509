import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from da_compose import reading as targets
from da_compose.folders import list_pictures
from da_compose.reading import picture_batches, read_images, read_pictures
from tests.pictures import make_pictures

SIZE = 8
COLOUR = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def test_a_folder_is_read_recursively_in_the_order_of_its_paths(tmp_path: Path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name, image in zip(("a.png", "b/deep/0.PNG", "b/x.bmp"), COLOUR, strict=False):
        Image.fromarray(image).save(tmp_path / name)
    np.testing.assert_array_equal(read_images(tmp_path, SIZE), COLOUR[:3])


def test_one_picture_is_one_image(tmp_path: Path):
    Image.fromarray(COLOUR[0]).save(tmp_path / "one.png")
    np.testing.assert_array_equal(read_images(tmp_path / "one.png", SIZE), COLOUR[:1])


def saved(picture: Image.Image, path: Path, **options: Any) -> NDArray[np.uint8]:
    picture.save(path, **options)
    return read_images(path, SIZE)[0]


def test_jpeg_and_cmyk_are_read_near_their_colours(tmp_path: Path):
    plain = Image.new("RGB", (SIZE, SIZE), (200, 40, 90))
    for picture in (plain, plain.convert("CMYK")):
        found = saved(picture, tmp_path / f"{picture.mode}.jpg", quality=100)
        assert np.abs(found.astype(int) - (200, 40, 90)).max() <= 4


def test_palette_pictures_are_read_as_their_colours(tmp_path: Path):
    picture = Image.fromarray(COLOUR[0] // 64 * 64).quantize(64)
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(saved(picture, tmp_path / "palette.png"), expected)


def test_deep_grey_is_scaled_not_clipped(tmp_path: Path):
    deep = GREY[0].astype(np.uint16) * 257
    for suffix in (".png", ".tif", ".pgm"):
        found = saved(Image.fromarray(deep), tmp_path / f"deep{suffix}")
        np.testing.assert_array_equal(found, np.repeat(GREY[0][..., None], 3, axis=-1))


def test_float_pictures_in_zero_to_one_are_read(tmp_path: Path):
    picture = Image.fromarray((GREY[0] / 255).astype(np.float32))
    assert picture.mode == "F"
    np.testing.assert_array_equal(saved(picture, tmp_path / "float.tif")[..., 0], GREY[0])


def png(values: NDArray[np.integer], bits: int) -> bytes:
    """A 16-bit PNG, grey or RGB, that says how many of them count."""
    colour = 2 if values.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", *values.shape[1::-1], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    depth = bytes([bits] * (3 if colour else 1))
    chunks = (b"IHDR" + header, b"sBIT" + depth, b"IDAT" + zlib.compress(rows), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize("shown", [GREY[0], COLOUR[0]], ids=["grey", "colour"])
@pytest.mark.parametrize(("bits", "white"), [(10, 1023), (12, 4095), (12, 65535), (16, 65535)])
def test_a_png_that_says_its_depth_is_scaled_by_it(tmp_path: Path, shown, bits: int, white: int):
    (tmp_path / "deep.png").write_bytes(png((shown / 255.0 * white).round().astype(int), bits))
    found = read_images(tmp_path, SIZE)[0]
    expected = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)
    assert np.abs(found.astype(int) - expected).max() <= 1
    with Image.open(tmp_path / "deep.png") as picture:
        np.testing.assert_array_equal(read_images([picture], SIZE)[0], found)


def test_a_tiff_of_12_bits_is_scaled_by_them(tmp_path: Path):
    values = (GREY[0] / 255.0 * 4095).round().astype(np.uint16)
    flat = values.reshape(-1, 2).astype(int)
    packed = np.stack([flat[:, 0] >> 4, (flat[:, 0] & 15) << 4 | flat[:, 1] >> 8, flat[:, 1] & 255])
    content = packed.T.astype(np.uint8).tobytes()
    tags = [(256, SIZE), (257, SIZE), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, SIZE), (279, len(content))]  # fmt: skip
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    (tmp_path / "deep.tif").write_bytes(
        start + content + struct.pack("<H", len(tags)) + entries + bytes(4)
    )
    assert np.abs(read_images(tmp_path, SIZE)[0, ..., 0].astype(int) - GREY[0]).max() <= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 70_000, np.int32), "70000 exceed 16 bits; scale them to 0 to 65535"),
        (np.full((4, 4), 4080, np.float32), "divide by the largest value .* 4095"),
        (np.full((4, 4), np.nan, np.float32), "must be finite"),
    ],
)
def test_values_whose_white_is_not_known_are_refused(tmp_path: Path, values, said: str):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=said):
        read_images(tmp_path, SIZE)


def test_floats_a_little_outside_are_cut_in_files_as_in_arrays(tmp_path: Path):
    values = np.linspace(0.1, 0.9, 64, dtype=np.float32).reshape(8, 8)
    values[0, :2] = -0.04, 1.03
    found = saved(Image.fromarray(values), tmp_path / "float.tif")
    np.testing.assert_array_equal(found[..., 0], read_images(values[None, :, :, None], SIZE)[0])


def test_twelve_bits_that_no_file_says_are_doubted_with_a_remedy_that_works(tmp_path: Path):
    values = GREY[0].astype(np.uint16) * 16
    with pytest.warns(UserWarning, match="deeper files from 0 to 65535: .* 4095 of 12 bits"):
        saved(Image.fromarray(values), tmp_path / "deep.tif")
    assert (
        np.abs(read_images(values[None, ..., None] / 4095, SIZE)[0] - GREY[0].astype(int)).max()
        <= 1
    )


def with_alpha(mode: str) -> Image.Image:
    """Black where transparent, red (or grey) where opaque."""
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[:4] = (255, 0, 0, 255)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_on_white(tmp_path: Path, mode: str):
    found = saved(with_alpha(mode), tmp_path / "alpha.png")
    assert (found[4:] == 255).all()
    np.testing.assert_array_equal(found[0, 0], np.asarray(with_alpha(mode).convert("RGB"))[0, 0])


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path: Path):
    picture = Image.fromarray(np.repeat([[0], [1]], 4, axis=0).repeat(SIZE, 1).astype(np.uint8))
    picture.putpalette([10, 20, 30, 0, 0, 0])
    found = saved(picture, tmp_path / "palette.png", transparency=1)
    assert (found[:4] == (10, 20, 30)).all() and (found[4:] == 255).all()


def test_half_transparency_is_half_way_to_white():
    picture = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 128))
    assert np.abs(read_images([picture], SIZE).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path: Path, orientation: int):
    upright = Image.fromarray(COLOUR[0])
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = saved(stored, tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(found, COLOUR[0])


def break_pictures(folder: Path) -> list[str]:
    """A cut, an empty, a foreign and a corrupt file with picture names."""
    Image.fromarray(COLOUR[0]).resize((64, 64)).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "whole.png").unlink()
    middle = len(content) // 2
    broken = {
        "cut.png": content[:middle],
        "empty.jpg": b"",
        "foreign.gif": b"this is text",
        "corrupt.png": content[:middle] + bytes(40) + content[middle + 40 :],
        "header.png": content[:8] + b"\0\0\0\5" + content[12:],
    }
    for name, part in broken.items():
        (folder / name).write_bytes(part)
    return list(broken)


def test_broken_pictures_are_left_out_and_named_in_one_warning(tmp_path: Path):
    broken = break_pictures(tmp_path)
    good = tmp_path / "good.png"
    Image.fromarray(COLOUR[0]).save(good)
    paths = [good, *(tmp_path / name for name in broken)]
    with pytest.warns(UserWarning) as caught:
        images, kept = read_pictures(paths, SIZE)
    assert len(caught) == 1
    assert all(name in str(caught[0].message) for name in broken)
    np.testing.assert_array_equal(images, COLOUR[:1])
    assert kept == [good]


@pytest.fixture
def pictures_and_broken(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    broken = make_pictures(tmp_path / "pictures", good=40, broken_of_each_kind=3)
    return list_pictures(tmp_path / "pictures"), broken


@pytest.mark.parametrize("at_once", [70, 16, 1])
def test_every_broken_picture_is_named_with_its_reason_a_line_each(pictures_and_broken, at_once):
    paths, broken = pictures_and_broken
    with pytest.warns(UserWarning) as caught:
        batches = list(picture_batches(paths, SIZE, at_once))
    assert len(caught) == 1
    header, *lines = str(caught[0].message).split("\n")
    assert header == "30 unreadable pictures left out:"
    assert [line.split(": ")[0] for line in lines] == list(map(str, broken))
    assert all(len(line.split(": ", 1)[1]) > 5 for line in lines)
    assert [path for _, kept in batches for path in kept] == [p for p in paths if p not in broken]
    assert all(len(images) == len(kept) <= at_once for images, kept in batches)


@pytest.mark.filterwarnings("ignore:30 unreadable")
def test_many_pictures_lie_in_a_file_that_is_gone_and_are_the_same(
    pictures_and_broken, tmp_path: Path, monkeypatch
):
    folder = tmp_path / "pictures"
    plain = read_images(folder, SIZE)
    monkeypatch.setattr(targets, "IN_MEMORY", plain.nbytes - 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    mapped = read_images(folder, SIZE)
    assert isinstance(mapped, np.memmap) and not isinstance(plain, np.memmap)
    assert not list((tmp_path / "temporary").iterdir())
    np.testing.assert_array_equal(mapped, plain)
    assert (mapped.shape, mapped.dtype) == ((40, SIZE, SIZE, 3), np.uint8)
    for images in (plain, mapped):
        images[0] += 1  # theirs who asked for them


def test_a_full_disk_is_named_with_what_helps(tmp_path: Path, monkeypatch):
    make_pictures(tmp_path, good=4, broken_of_each_kind=0)
    monkeypatch.setattr(targets, "IN_MEMORY", 1)
    with Path("/dev/full").open("w+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(OSError, match=r"No space left on device.*set TMPDIR"):
            read_images(tmp_path, SIZE)


def test_files_are_read_by_what_they_hold_and_the_others_named(tmp_path: Path):
    for number, name in enumerate(("a.jfif", "b.jpe", "c", "d.dat")):
        Image.fromarray(COLOUR[number]).save(tmp_path / name, "PNG")
    for name, content in (
        ("e.heic", b"\0\0\0\x18ftypheic"), ("f.JPG", b"\0\0\0\x18ftypmif1"), ("g", b"text"),
        ("h.xml", b"<a/>"), ("i.xml", b"<a/>"), ("Thumbs.db", b"x"), ("@eaDir/j.png", b"x"),
        ("__MACOSX/._k.png", b"x"), (".DS_Store", b"x"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "l.jpg").mkdir()
    with pytest.warns(UserWarning) as caught:
        images = read_images(tmp_path, SIZE)
    np.testing.assert_array_equal(images, COLOUR[:4])
    (said,) = (str(one.message).splitlines() for one in caught)
    heic, none = "a HEIC file, which is not read; save it as PNG or JPEG", "not a picture, or not"
    assert [line.removeprefix(f"{tmp_path}/") for line in said] == [
        "6 unreadable pictures left out:", f"e.heic: {heic}", f"f.JPG: {heic}",
        f"g: {none} of a known format", "l.jpg: a folder or device, not a file",
        f"h.xml: {none} of a known format, nor are 1 more files ending in .xml",
    ]  # fmt: skip


def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path):
    break_pictures(tmp_path)
    with pytest.raises(ValueError, match="none of 5 pictures could be read"):
        read_images(tmp_path, SIZE)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no pictures below .*: it holds no files"):
        read_images(tmp_path, SIZE)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.npz", "nowhere.png"])
def test_a_missing_path_is_refused(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match="check the path"):
        read_images(tmp_path / name, SIZE)


def test_a_broken_picture_is_no_warning_where_none_is_left(tmp_path: Path):
    break_pictures(tmp_path)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ValueError, match="none of"):
        read_images(tmp_path, SIZE)
    assert not caught

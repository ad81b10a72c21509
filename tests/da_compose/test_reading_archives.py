"""`.npz` archives: read by key, refused where they are not whole."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from da_compose.archives import image_parts
from da_compose.reading import read_images

SIZE = 8
COLOUR = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


@pytest.mark.parametrize("key", ["images", "train_images"])
@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_npz_is_read_by_key(tmp_path: Path, key: str, suffix: str):
    path = tmp_path / f"target{suffix}"
    with path.open("wb") as file:
        np.savez(file, **{key: COLOUR, "train_labels": np.arange(5)})
    np.testing.assert_array_equal(read_images(path, SIZE), COLOUR)
    np.testing.assert_array_equal(read_images(str(path), SIZE), COLOUR)


def whole_npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "target.npz"
    np.savez(path, **arrays)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def as_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, COLOUR)


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Harms the header of the array in an archive whose checksums are right."""

    def harm(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            content = archive.read("images.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", change(content))

    return harm


def locked(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[place] |= 1  # the flag of encryption
    path.write_bytes(bytes(content))


unclosed = rewritten(lambda content: content.replace(b"}", b" ", 1))
vast = rewritten(lambda content: content.replace(b"(5, ", b"(99999999999, ", 1))
beyond = rewritten(lambda content: content.replace(b"(5, ", b"(" + b"9" * 20 + b", ", 1))


@pytest.mark.parametrize("harm", [cut, corrupt, empty, as_npy, unclosed, vast, beyond, locked])
def test_a_broken_npz_is_refused(tmp_path: Path, harm: Callable[[Path], None]):
    path = whole_npz(tmp_path, images=COLOUR)
    harm(path)
    with pytest.raises(ValueError, match=r"target\.npz is not a whole \.npz file.*write it again"):
        read_images(path, SIZE)


def test_a_broken_compressed_npz_is_refused(tmp_path: Path):
    path = tmp_path / "target.npz"
    np.savez_compressed(path, images=COLOUR)
    corrupt(path)
    with pytest.raises(ValueError, match="not a whole"):
        read_images(path, SIZE)


def test_an_npz_of_objects_is_refused(tmp_path: Path):
    path = whole_npz(tmp_path, images=np.array([None, GREY[0]], dtype=object))
    with pytest.raises(ValueError, match=r"plain arrays .*write it again"):
        read_images(path, SIZE)


def test_an_npz_without_images_is_refused_by_its_keys(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds \['x', 'y'\], expected `images`"):
        read_images(whole_npz(tmp_path, x=COLOUR, y=GREY), SIZE)


@pytest.mark.parametrize(("lay", "parts"), [(np.ascontiguousarray, 3), (np.asfortranarray, 1)])
def test_a_large_array_is_read_in_parts(tmp_path: Path, monkeypatch, lay: Any, parts: int):
    monkeypatch.setattr("da_compose.archives.AT_ONCE", 2 * COLOUR[0].size)
    path = whole_npz(tmp_path, images=lay(COLOUR / 255))
    np.testing.assert_array_equal(read_images(path, SIZE), COLOUR)
    assert len([*image_parts(path)]) == parts


def test_grey_images_of_an_archive_are_several_whatever_their_number(tmp_path: Path):
    path = whole_npz(tmp_path, images=GREY[:3])  # as an array it may be one colour image
    np.testing.assert_array_equal(read_images(path, SIZE), GREY[:3])

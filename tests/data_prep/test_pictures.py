"""Domains made of picture files: what is kept, listed and refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from da_compose.pictures import read_picture
from da_compose.trees import LabelledPictures, read_tree
from data_prep.picture_cache import prepare_pictures
from tests.data_prep.toy_pictures import (
    SIZE,
    listed,
    prepare_here,
    rows,
)
from tests.pictures import encoded, make_pictures, noise


def test_a_thousand_pictures_with_thirty_broken_ones_of_ten_kinds(thousand, tmp_path: Path):
    folder, broken = thousand
    domain = prepare_here(folder, tmp_path)
    assert sorted(row[0] for row in rows(domain)) == sorted(map(str, broken)) and len(broken) == 30
    assert all(len(reason) > 5 for *_, reason in rows(domain))
    assert domain.notes == ("30 of 1,030 pictures left out, listed in problems.csv",)
    assert len(domain.train) + len(domain.test) == 1_000
    for pairs, content in zip(listed(folder), (domain.train, domain.test), strict=True):
        assert isinstance(content.images, np.memmap)
        assert (content.images.dtype, content.labels.dtype) == (np.uint8, np.int64)
        whole = [
            pair for pair in zip(pairs.paths, pairs.labels, strict=True) if pair[0] not in broken
        ]
        assert content.labels.tolist() == [label for _, label in whole]
        for at in range(0, len(whole), 50):
            np.testing.assert_array_equal(content.images[at], read_picture(whole[at][0], SIZE))


def test_content_tells_what_is_a_picture_and_not_the_suffix(tmp_path: Path):
    make_pictures(tmp_path / "pictures", good=8, broken_of_each_kind=0)
    files = {
        "a/x.jfif": noise(33), "b/more/really.dat": noise(34), "a/notes.txt": b"text",
        "b/x.heic": b"\0\0\0\x18ftypheic", "a/Thumbs.db": b"x", "b/.DS_Store": b"x",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / "pictures" / name).parent.mkdir(exist_ok=True)
        written = content if isinstance(content, bytes) else encoded(content, "PNG")
        (tmp_path / "pictures" / name).write_bytes(written)
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache")
    assert {Path(path).name: reason[:12] for path, _, reason in rows(domain)} == {
        "notes.txt": "not a pictur", "x.heic": "a HEIC file,"
    }  # fmt: skip
    assert len(domain.train) + len(domain.test) == 10


def test_any_name_can_be_listed(tmp_path: Path):
    make_pictures(tmp_path / "pictures", good=8, broken_of_each_kind=0)
    names = {'a,"b".jpg', "a\rb.jpg", "a\nb.jpg"}
    for name in names:
        (tmp_path / "pictures" / "a" / name).touch()
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache")
    assert {Path(path).name for path, _, _ in rows(domain)} == names


def test_no_problems_need_no_list(tmp_path: Path):
    make_pictures(tmp_path / "pictures", good=8, broken_of_each_kind=0)
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache")
    assert domain.problems is None and domain.notes == ()


def test_duplicates_are_kept_and_listed_and_counted_across_the_splits(tmp_path: Path):
    contents = {"a": 0, "b": 1, "c": 0, "d": 2, "e": 2, "f": 0, "g": 1}
    for name, seed in contents.items():
        noise(seed).save(tmp_path / f"{name}.png")
    noise(3).save(tmp_path / "h.bmp")  # as long as the next one, of other bytes
    noise(4).save(tmp_path / "i.bmp")
    train, test = (
        LabelledPictures(tuple(tmp_path / f for f in names), (0,) * len(names))
        for names in (["a.png", "b.png", "c.png", "h.bmp"], ["d.png", "e.png", "f.png", "i.bmp"])
    )
    domain = prepare_pictures(
        "toy", train, test, num_classes=1, origin="files", cache=tmp_path / "cache", size=SIZE
    )
    assert len(domain.train) == len(domain.test) == 4
    assert domain.notes == (
        "3 duplicates kept, 1 of them in test of pictures in train, listed in problems.csv",
    )
    assert rows(domain) == [
        (str(tmp_path / "c.png"), "train", f"duplicate of {tmp_path / 'a.png'} (train); kept"),
        (str(tmp_path / "e.png"), "test", f"duplicate of {tmp_path / 'd.png'} (test); kept"),
        (str(tmp_path / "f.png"), "test", f"duplicate of {tmp_path / 'a.png'} (train); kept"),
    ]


def test_absent_classes_are_noted(few: Path, tmp_path: Path):
    domain = prepare_here(few, tmp_path / "cache", num_classes=4)
    assert domain.notes[:2] == tuple(f"{s} split lacks classes 2, 3" for s in ("train", "test"))


def test_odd_names_are_listed_whole(tmp_path: Path):
    make_pictures(tmp_path / "pictures", good=6, broken_of_each_kind=0)
    odd = b'a/, "quoted"\nnot utf-8 \xff.jpg'
    Path(os.fsdecode(os.fsencode(tmp_path / "pictures") + b"/" + odd)).write_bytes(b"broken")
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache")
    (row,) = rows(domain)
    assert os.fsencode(row[0]).endswith(odd)


@pytest.mark.parametrize("which", ["train", "test"])
def test_a_split_without_a_readable_picture_is_refused(tmp_path: Path, which: str):
    make_pictures(tmp_path / "pictures", good=2, broken_of_each_kind=0)
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    good, _ = read_tree(tmp_path / "pictures")
    none = LabelledPictures((tmp_path / "broken.jpg", tmp_path / "missing.jpg"), (0, 1))
    train, test = (none if name == which else good for name in ("train", "test"))
    with pytest.raises(ValueError, match=rf"toy, {which}: none of 2 .*broken\.jpg: not a picture"):
        prepare_pictures(
            "toy", train, test, num_classes=2, origin="files", cache=tmp_path / "cache", size=SIZE
        )
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("labels", "size", "complaint"),
    [
        ((), SIZE, "toy, train: expected at least one picture"),
        ((0, 2), SIZE, r"toy, train: expected labels in 0\.\.1, got 0\.\.2"),
        ((-1, 0), SIZE, r"got -1\.\.0"),
        ((0, 1), 0, "at least 1 pixel, got 0"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path, labels, size, complaint):
    some = LabelledPictures(tuple(tmp_path / f"{n}.png" for n in range(len(labels))), labels)
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match=complaint):
        prepare_pictures("toy", some, some, num_classes=2, origin="files", cache=cache, size=size)
    assert not cache.exists()


def test_memory_stays_flat(tmp_path: Path):
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is told by Linux")
    make_pictures(tmp_path / "pictures", good=10, broken_of_each_kind=0)
    for number in range(2_000):
        (tmp_path / "pictures" / "a" / f"x{number}.png").symlink_to("00000.png")

    def anonymous_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    before = anonymous_bytes()
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache", size=96)
    images = domain.train.images.nbytes + domain.test.images.nbytes
    assert images > 55_000_000 and anonymous_bytes() - before < images / 2

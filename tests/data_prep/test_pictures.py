"""Domains made of picture files: what is kept, listed, resumed, noticed and refused."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from da_compose.pictures import read_all, read_picture
from data_prep import PreparedDomain, pictures
from data_prep.pictures import prepare_pictures
from data_prep.trees import LabelledPictures, read_tree, split
from tests.pictures import encoded, make_pictures, noise

SIZE = 8


def listed(folder: Path) -> tuple[LabelledPictures, LabelledPictures]:
    return split(read_tree(folder)[0], 0.2, seed=0)


def prepare_here(folder: Path, cache: Path, **options) -> PreparedDomain:
    train, test = listed(folder)
    options = {"num_classes": 2, "origin": "files", "size": SIZE} | options
    return prepare_pictures("toy", train, test, cache=cache, **options)


def rows(domain: PreparedDomain) -> list[tuple[str, ...]]:
    assert domain.problems is not None
    with domain.problems.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = map(tuple, csv.reader(file))
    assert header == ("path", "split", "reason")
    return rows


def assert_same(one: PreparedDomain, other: PreparedDomain) -> None:
    assert one.fingerprint == other.fingerprint
    for name in ("train", "test"):
        for mine, theirs in zip(
            *(vars(getattr(d, name)).values() for d in (one, other)), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A folder of 1,000 good pictures and 30 broken ones, and the broken."""
    folder = tmp_path_factory.mktemp("thousand") / "pictures"
    return folder, make_pictures(folder, good=1_000, broken_of_each_kind=3)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", good=20, broken_of_each_kind=1)
    return tmp_path / "pictures"


def count_reads(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[Path]:
    """Paths that are read from now on; an interruption in the place of the next after so many."""
    read: list[Path] = []

    def counted(paths, size):
        for path, found in zip(paths, read_all(paths, size), strict=True):
            if len(read) == stop_at:
                raise KeyboardInterrupt
            read.append(path)
            yield found

    monkeypatch.setattr(pictures, "read_all", counted)
    return read


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


def test_a_second_call_decodes_nothing(few: Path, tmp_path: Path, monkeypatch):
    first = prepare_here(few, tmp_path / "cache")
    read = count_reads(monkeypatch)
    second = prepare_here(few, tmp_path / "cache")
    assert not read and second.notes == first.notes and rows(second) == rows(first)
    assert_same(first, second)


@pytest.mark.parametrize("stop_at", [0, 1, 4, 7, 25, 29])
def test_an_interrupted_call_goes_on_after_what_is_finished(
    few: Path, tmp_path: Path, monkeypatch, stop_at: int
):
    whole = prepare_here(few, tmp_path / "other")
    total = sum(map(len, listed(few)))
    monkeypatch.setattr(pictures, "KEPT_EVERY", 4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        count_reads(patch, stop_at)
        prepare_here(few, tmp_path / "cache")
    read = count_reads(monkeypatch)
    domain = prepare_here(few, tmp_path / "cache")
    assert total - stop_at <= len(read) < total - stop_at + 4
    assert (domain.notes, rows(domain)) == (whole.notes, rows(whole))
    assert_same(domain, whole)
    (folder,) = (tmp_path / "cache").iterdir()
    assert not [path for path in folder.iterdir() if path.is_dir()]


KILLED = """
import os, signal, sys
from pathlib import Path
from data_prep import pictures
from data_prep.trees import read_tree, split

def deadly(paths, size, read_all=pictures.read_all, count=[0]):
    for found in read_all(paths, size):
        count[0] += 1
        if count[0] == 650:
            os.kill(os.getpid(), signal.SIGKILL)
        yield found

pictures.read_all, pictures.KEPT_EVERY = deadly, 100
train, test = split(read_tree(Path(sys.argv[1]))[0], 0.2, seed=0)
cache = Path(sys.argv[2])
pictures.prepare_pictures(
    "toy", train, test, num_classes=2, origin="files", size=8, cache=cache
)
"""


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(
    thousand, tmp_path: Path, monkeypatch
):
    folder, _ = thousand
    arguments = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "cache")]
    killed = subprocess.run(arguments, cwd=Path(__file__).parents[2], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    read = count_reads(monkeypatch)
    domain = prepare_here(folder, tmp_path / "cache")
    assert len(read) == 1_030 - 600
    assert_same(domain, prepare_here(folder, tmp_path / "other"))


def lose(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def blank(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *[("train_images.npy", damage) for damage in (lose, cut)],
        *[("train.json", damage) for damage in (lose, cut, blank)],
    ],
)
def test_what_is_unfinished_and_damaged_is_made_again(
    few: Path, tmp_path: Path, monkeypatch, file: str, damage: Callable[[Path], None]
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "KEPT_EVERY", 12)
        count_reads(patch, stop_at=12)
        prepare_here(few, tmp_path / "cache")
    (unfinished,) = (tmp_path / "cache").glob("*/unfinished")
    damage(unfinished / file)
    assert_same(prepare_here(few, tmp_path / "cache"), prepare_here(few, tmp_path / "other"))


def other_pixels(path: Path) -> None:
    state = path.stat()
    path.write_bytes(encoded(noise(77), "PNG"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def longer(path: Path) -> None:
    state = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", [other_pixels, longer, Path.unlink])
def test_a_changed_file_is_noticed(few: Path, tmp_path: Path, monkeypatch, change):
    train, test = listed(few)
    options = {"num_classes": 2, "origin": "files", "size": SIZE, "cache": tmp_path / "cache"}
    prepare_pictures("toy", train, test, **options)
    change(next(path for path in train.paths if path.suffix == ".png" and "-" not in path.name))
    read = count_reads(monkeypatch)
    prepare_pictures("toy", train, test, **options)
    assert len(read) == len(train) + len(test)


def test_a_file_that_may_be_read_again_is_noticed(few: Path, tmp_path: Path, monkeypatch):
    def denied(path: Path, mode: int, access=os.access) -> bool:
        return access(path, mode) and not path.name.startswith("00003")

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", denied)  # a superuser may read everything
        first = prepare_here(few, tmp_path / "cache")
    read = count_reads(monkeypatch)
    assert_same(prepare_here(few, tmp_path / "cache"), first)
    assert read


@pytest.mark.parametrize(
    "change", [{"size": 9}, {"num_classes": 3}, {"origin": "bundled"}, {"identity": {"of": 1}}]
)
def test_whatever_changes_the_content_prepares_anew(few: Path, tmp_path: Path, monkeypatch, change):
    prepare_here(few, tmp_path / "cache")
    read = count_reads(monkeypatch)
    prepare_here(few, tmp_path / "cache", **change)
    assert read


def test_a_folder_that_moved_as_it_is_needs_no_decoding(few: Path, tmp_path: Path, monkeypatch):
    first = prepare_here(few, tmp_path / "cache")
    few.rename(tmp_path / "moved")
    read = count_reads(monkeypatch)
    assert_same(prepare_here(tmp_path / "moved", tmp_path / "cache"), first)
    assert not read


def test_pictures_that_change_while_they_are_read_are_no_domain(
    few: Path, tmp_path: Path, monkeypatch
):
    def unmounting(paths, size):
        yield from read_all(paths, size)
        shutil.rmtree(few, ignore_errors=True)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="changed while"):
        patch.setattr(pictures, "read_all", unmounting)
        prepare_here(few, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_no_picture_by_its_suffix_is_listed(tmp_path: Path):
    make_pictures(tmp_path / "pictures", good=8, broken_of_each_kind=0)
    for name in ("a/Thumbs.db", "a/notes.txt", "b/more/really.dat"):
        (tmp_path / "pictures" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(encoded(noise(3), "PNG"))
    (tmp_path / "pictures" / "b" / ".DS_Store").write_bytes(b"hidden")
    domain = prepare_here(tmp_path / "pictures", tmp_path / "cache")
    names = {Path(path).name for path, _, reason in rows(domain) if "suffix" in reason}
    assert names == {"Thumbs.db", "notes.txt", "really.dat"} and len(rows(domain)) == 3
    assert len(domain.train) + len(domain.test) == 8


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


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_what_is_finished_serves_later(
    few: Path, tmp_path: Path, monkeypatch
):
    whole = prepare_here(few, tmp_path / "other")
    monkeypatch.setattr(pictures, "KEPT_EVERY", 4)
    with files_of_at_most(2_000), pytest.raises(OSError, match=r"make room.*'.*/cache/toy-"):
        prepare_here(few, tmp_path / "cache")
    read = count_reads(monkeypatch)
    assert_same(prepare_here(few, tmp_path / "cache"), whole)
    assert 0 < len(read) < sum(map(len, listed(few)))


def test_a_cache_that_cannot_be_written_is_named(few: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        prepare_here(few, tmp_path / "cache")


def test_several_at_once_agree_and_decode_once(few: Path, tmp_path: Path, monkeypatch):
    read = count_reads(monkeypatch)
    with ThreadPoolExecutor(4) as pool:  # threads meet at the lock as processes do
        found = list(pool.map(lambda _: prepare_here(few, tmp_path / "cache"), range(4)))
    assert len(read) == sum(map(len, listed(few)))
    for domain in found[1:]:
        assert_same(domain, found[0])


def test_a_damaged_domain_is_made_again(few: Path, tmp_path: Path):
    first = prepare_here(few, tmp_path / "cache")
    fingerprint = first.fingerprint
    cut(next((tmp_path / "cache").glob("*/test_images.npy")))
    assert prepare_here(few, tmp_path / "cache").fingerprint == fingerprint


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_is_on_standard_error_and_may_be_off(few: Path, tmp_path: Path, capfd, shown: bool):
    prepare_here(few, tmp_path / "cache", progress=shown)
    out, err = capfd.readouterr()
    assert out == "" and ("preparing toy" in err) is shown
    assert ("30/30" in err) is shown


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

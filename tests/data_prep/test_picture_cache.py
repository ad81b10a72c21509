"""Domains made of picture files: what is decoded once, resumed, and made again."""

import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from da_compose.pictures import read_all
from data_prep import picture_cache
from data_prep.picture_cache import prepare_pictures
from tests.data_prep.toy_pictures import (
    SIZE,
    assert_same,
    count_reads,
    files_of_at_most,
    listed,
    prepare_here,
    rows,
)
from tests.forks import ended
from tests.pictures import encoded, make_pictures, noise


def test_what_a_killed_process_left_is_swept(few: Path, tmp_path: Path):
    prepare_here(few, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "unfinished").mkdir()
    prepare_here(few, tmp_path / "cache")
    assert not (folder / "unfinished").exists()


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
    monkeypatch.setattr(picture_cache, "KEPT_EVERY", 4)
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


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(tmp_path: Path, monkeypatch):
    folder, cache = tmp_path / "pictures", tmp_path / "cache"
    make_pictures(folder, good=100, broken_of_each_kind=1)

    read = count(1)

    def deadly(paths, size):
        for found in read_all(paths, size):
            if next(read) == 65:
                os.kill(os.getpid(), signal.SIGKILL)
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(picture_cache, "KEPT_EVERY", 10)
        patch.setattr(picture_cache, "read_all", deadly)
        assert ended(lambda: prepare_here(folder, cache)) == -signal.SIGKILL
    again = count_reads(monkeypatch)
    domain = prepare_here(folder, cache)
    assert len(again) == 110 - 60
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
        patch.setattr(picture_cache, "KEPT_EVERY", 12)
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
        patch.setattr(picture_cache, "read_all", unmounting)
        prepare_here(few, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_full_disk_is_named_and_what_is_finished_serves_later(
    few: Path, tmp_path: Path, monkeypatch
):
    whole = prepare_here(few, tmp_path / "other")
    monkeypatch.setattr(picture_cache, "KEPT_EVERY", 4)
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

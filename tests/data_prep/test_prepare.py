"""Prepared domains: what is written, noticed, refused and shared between processes."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from data_prep import PreparedDomain, prepare
from data_prep.prepare import file_identity, resize
from data_prep.readers import RawDomain, RawSplit
from tests.data_prep.toy_pictures import files_of_at_most


def raw_domain(shape: tuple[int, ...] = (28, 28), num_train: int = 20) -> RawDomain:
    generator = np.random.default_rng(0)

    def split(num_images: int) -> RawSplit:
        images = generator.integers(0, 256, (num_images, *shape), dtype=np.uint8)
        return RawSplit(images, (np.arange(num_images) % 10).astype(np.uint8))

    return RawDomain(split(num_train), split(10))


def prepare_here(cache: Path, read: Callable[[], RawDomain], **options) -> PreparedDomain:
    options = {"origin": "files", "identity": {"files": "these"}} | options
    return prepare("toy", read, cache=cache, **options)


def never() -> RawDomain:
    raise AssertionError("the cache should have served")


@pytest.mark.parametrize("shape", [(28, 28), (16, 16), (20, 40), (32, 32, 3), (24, 20, 3)])
def test_images_become_square_and_labels_stay(tmp_path: Path, shape: tuple[int, ...]) -> None:
    raw = raw_domain(shape)
    domain = prepare_here(tmp_path, lambda: raw, size=32)
    assert domain.train.images.shape == (20, 32, 32, *shape[2:])
    assert domain.train.images.dtype == np.uint8 and domain.train.labels.dtype == np.int64
    np.testing.assert_array_equal(domain.test.labels, raw.test.labels)
    assert (domain.name, domain.origin, domain.num_classes) == ("toy", "files", 10)
    assert (len(domain.train), len(domain.test)) == (20, 10)


def test_images_of_the_right_size_are_kept_as_they_are(tmp_path: Path) -> None:
    raw = raw_domain((32, 32, 3))
    domain = prepare_here(tmp_path, lambda: raw)
    np.testing.assert_array_equal(domain.train.images, raw.train.images)


def test_shrinking_averages_and_a_flat_image_stays_flat() -> None:
    board = np.indices((32, 32)).sum(0) % 2 * 200
    small = resize(board.astype(np.uint8)[None], 8)
    assert abs(small.astype(int) - 100).max() <= 15  # without antialiasing: 0 or 200
    flat = np.full((3, 28, 28, 3), [10, 100, 250], dtype=np.uint8)
    assert (resize(flat, 32) == [10, 100, 250]).all()


def test_resizing_in_chunks_equals_one_by_one(monkeypatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6), dtype=np.uint8)
    monkeypatch.setattr("da_compose.images.AT_ONCE", 2 * 6 * 6)
    whole = resize(images, 8)
    for i in range(5):
        np.testing.assert_array_equal(whole[i : i + 1], resize(images[i : i + 1], 8))


def test_second_call_comes_from_the_cache_unchanged(tmp_path: Path) -> None:
    first = prepare_here(tmp_path, raw_domain)
    second = prepare_here(tmp_path, never)
    assert isinstance(second.train.images, np.memmap)
    assert second.fingerprint == first.fingerprint and len(first.fingerprint) == 16
    np.testing.assert_array_equal(first.train.images, second.train.images)


def test_arrays_go_to_torch_without_a_warning_and_never_back_to_the_file(tmp_path: Path) -> None:
    first = prepare_here(tmp_path, raw_domain)
    before = first.train.images.copy()
    torch.from_numpy(first.train.images).zero_()
    np.testing.assert_array_equal(prepare_here(tmp_path, never).train.images, before)


@pytest.mark.parametrize(
    "change",
    [{"size": 16}, {"identity": {"files": "others"}}, {"origin": "download"}, {"num_classes": 11}],
)
def test_whatever_changes_the_content_prepares_anew(tmp_path: Path, change: dict) -> None:
    prepare_here(tmp_path, raw_domain)
    with pytest.raises(AssertionError, match="should have served"):
        prepare_here(tmp_path, never, **change)


def test_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    prints = [
        prepare_here(tmp_path, raw_domain, identity={"files": i}).fingerprint for i in range(2)
    ]
    assert prints[0] == prints[1]
    raw = raw_domain()
    raw.test.labels[0] += 1
    assert prepare_here(tmp_path, lambda: raw, identity={"x": 1}).fingerprint != prints[0]
    other = raw_domain()
    other.train.images[3, 2, 1] ^= 255
    assert prepare_here(tmp_path, lambda: other, identity={"x": 2}).fingerprint != prints[0]


def test_file_identity_notices_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    before = file_identity(path)
    assert file_identity(path) == before
    path.write_bytes(b"123456")
    assert file_identity(path) != before


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def shorten(file: Path) -> None:
    np.save(file, np.zeros((3, 32, 32), np.uint8))


@pytest.mark.parametrize("damage", [truncate, shorten, Path.unlink])
@pytest.mark.parametrize("file", ["train_images.npy", "test_labels.npy"])
def test_damaged_array_is_made_again(tmp_path: Path, damage: Callable, file: str) -> None:
    first = prepare_here(tmp_path, raw_domain)
    fingerprint, images = first.fingerprint, first.train.images.copy()
    (folder,) = tmp_path.iterdir()
    damage(folder / file)
    again = prepare_here(tmp_path, raw_domain)
    assert again.fingerprint == fingerprint
    np.testing.assert_array_equal(again.train.images, images)
    prepare_here(tmp_path, never)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"arrays": {"train_images": 3}}', "\0"])
def test_damaged_summary_is_made_again(tmp_path: Path, content: str) -> None:
    prepare_here(tmp_path, raw_domain)
    (folder,) = tmp_path.iterdir()
    (folder / "domain.json").write_text(content)
    again = prepare_here(tmp_path, raw_domain)
    assert prepare_here(tmp_path, never).fingerprint == again.fingerprint


def test_failure_while_writing_leaves_no_domain(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(sys.modules["data_prep.prepare"], "save_array", fail)
        prepare_here(tmp_path, raw_domain)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    prepare_here(tmp_path, raw_domain)


def test_a_full_disk_is_named_with_file_and_cause(tmp_path: Path) -> None:
    with files_of_at_most(2_000), pytest.raises(OSError, match=r"too large; make room.*toy-"):
        prepare_here(tmp_path, raw_domain)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    prepare_here(tmp_path, raw_domain)
    (folder,) = tmp_path.iterdir()
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "train_images.npy").touch()
    prepare_here(tmp_path, never)
    assert not (folder / "unfinished").exists()


def test_two_that_prepare_the_same_domains_at_once_agree(tmp_path: Path) -> None:
    # Threads meet in the file system as processes do, and start without importing torch again.
    raw = raw_domain(num_train=500)
    for i in range(10):  # half of the twenty domains are there, and damaged
        prepare_here(tmp_path, lambda: raw, identity={"files": i})
    for file in tmp_path.glob("toy-*/test_labels.npy"):
        truncate(file)
    start = Barrier(4)

    def work(_: int) -> list[tuple[str, int]]:
        results = []
        for i in range(20):
            start.wait(timeout=60)
            domain = prepare_here(tmp_path, lambda: raw, identity={"files": i})
            results.append((domain.fingerprint, int(domain.train.images.sum())))
        return results

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert results[0] == results[1] == results[2] == results[3]
    assert len(list(tmp_path.iterdir())) == 20  # no temporary folder stays


def test_one_image_split_is_fine_and_absent_classes_are_noted(tmp_path: Path) -> None:
    domain = prepare_here(tmp_path, lambda: raw_domain(num_train=1))
    assert len(domain.train) == 1 and domain.num_classes == 10
    assert domain.notes == ("train split lacks classes 1, 2, 3, 4, 5, 6, 7, 8, 9",)


def test_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="toy, train: expected at least one image"):
        prepare_here(tmp_path, lambda: raw_domain(num_train=0))
    assert not list(tmp_path.iterdir())


def test_label_count_must_match(tmp_path: Path) -> None:
    raw = raw_domain()
    wrong = RawDomain(RawSplit(raw.train.images, raw.train.labels[1:]), raw.test)
    with pytest.raises(ValueError, match="got 20 images and labels of shape"):
        prepare_here(tmp_path, lambda: wrong)


def test_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels below 5, got 9"):
        prepare_here(tmp_path, raw_domain, num_classes=5)


def test_size_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        prepare_here(tmp_path, raw_domain, size=0)

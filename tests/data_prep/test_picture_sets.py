"""Picture benchmarks from trees, official lists and drawings: domains, classes, splits, notes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import (
    DomainUnavailable,
    PictureBenchmark,
    choose_picture_benchmark,
    load_picture_domain,
    picture_sets,
)
from data_prep.domainnet import CLASSES_126
from data_prep.emoji import STYLES, draw, emoji_classes
from data_prep.locations import DATA_VARIABLE

Tree = Mapping[str, Mapping[str, int]]  # domain -> class -> how many pictures
PACS: Tree = {
    "photo": {"dog": 10, "house": 10, "person": 5},
    "sketch": {"dog": 5, "house": 10, "person": 5},
}


def colour(*of: object) -> tuple[int, ...]:
    """A colour that tells pictures apart."""
    return tuple(
        int(n)
        for n in np.random.default_rng([*"/".join(map(str, of)).encode()]).integers(0, 256, 3)
    )


def write_tree(folder: Path, tree: Tree) -> Path:
    for domain, classes in tree.items():
        for name, number in classes.items():
            (folder / domain / name).mkdir(parents=True)
            for n in range(number):
                picture = Image.new("RGB", (8, 8), colour(domain, name, n))
                picture.save(folder / domain / name / f"{n}.png")
    return folder


def write_list(
    folder: Path, domain: str, split: str, entries: Sequence[tuple[str, int, int]]
) -> None:
    """Entries: class name, label, number of the picture."""
    lines = [f"{domain}/{name}/{n}.png {label}\n" for name, label, n in entries]
    (folder / f"{domain}_{split}.txt").write_text("".join(lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "root" / "pictures" / "pacs", PACS)
    return tmp_path / "root"


@pytest.fixture
def domainnet(tmp_path: Path) -> Path:
    """A root with two domains of DomainNet, one with official lists; what is left is no domain."""
    folder = tmp_path / "root" / "pictures" / "domainnet"
    write_tree(folder, {"sketch": {"cat": 4, "dog": 4, "ant": 1}, "real": {"cat": 5, "dog": 5}})
    (folder / "txt" / "old").mkdir(parents=True)
    cats = [("cat", 7, n) for n in range(4)]
    dogs = [("dog", 3, n) for n in range(4)]
    write_list(folder, "sketch", "train", [*dogs[:3], *cats[:3]])
    write_list(folder, "sketch", "test", [cats[3], dogs[3], ("ant", 0, 0)])
    return tmp_path / "root"


def colours(images: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, image[0, 0])) for image in images}


def test_pacs_from_the_data_root(root: Path) -> None:
    chosen = choose_picture_benchmark("pacs", root)
    assert (chosen.name, chosen.domains, chosen.origin) == ("pacs", ("photo", "sketch"), "files")
    assert chosen.class_names == ("dog", "house", "person")
    assert chosen.notes == ("no official split, so 80/20 in each class with seed 0: photo, sketch",)
    photo = load_picture_domain(chosen, "photo", size=8)
    assert (photo.name, photo.origin, photo.num_classes) == ("photo", "files", 3)
    assert np.bincount(photo.train.labels).tolist() == [8, 8, 4]
    assert np.bincount(photo.test.labels).tolist() == [2, 2, 1]
    for split in (photo.train, photo.test):
        for image, label in zip(split.images, split.labels, strict=True):
            name = chosen.class_names[label]
            assert colours(image[None]) <= {colour("photo", name, n) for n in range(10)}
    assert not colours(photo.train.images) & colours(photo.test.images)


def test_project_serves_where_the_root_has_nothing(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(root))
    assert choose_picture_benchmark("pacs").folder == root / "pictures" / "pacs"
    (tmp_path / "empty").mkdir()
    write_tree(tmp_path / "project" / "pictures" / "pacs", PACS)
    chosen = choose_picture_benchmark("pacs", tmp_path / "empty")
    assert chosen.folder == tmp_path / "project" / "pictures" / "pacs"


def test_seed_decides_the_split(root: Path) -> None:
    photos = [
        load_picture_domain(choose_picture_benchmark("pacs", root, seed=seed), "photo", size=8)
        for seed in (0, 0, 1)
    ]
    assert photos[0].fingerprint == photos[1].fingerprint != photos[2].fingerprint


@pytest.mark.parametrize("how", ["tree:{}", "{}"])
def test_users_own_tree(tmp_path: Path, how: str) -> None:
    tree = {"Art": {"Bed": 5, "Sofa": 5}, "Product": {"Bed": 5, "Lamp": 10}, ".git": {"objects": 1}}
    folder = write_tree(tmp_path / "office-home", tree)
    chosen = choose_picture_benchmark(how.format(folder))
    assert (chosen.name, chosen.domains) == ("office-home", ("Art", "Product"))
    assert chosen.class_names == ("Bed", "Lamp", "Sofa")
    assert chosen.notes[1:] == (
        "Art: its train split has no pictures of Lamp",
        "Art: its test split has no pictures of Lamp",
        "Product: its train split has no pictures of Sofa",
        "Product: its test split has no pictures of Sofa",
    )
    product = load_picture_domain(chosen, "Product", size=8)
    assert product.num_classes == 3
    assert np.bincount(product.train.labels).tolist() == [4, 8]


def test_official_lists_come_before_a_split_of_our_own(domainnet: Path) -> None:
    chosen = choose_picture_benchmark("domainnet", domainnet)
    assert chosen.domains == ("real", "sketch")
    assert chosen.class_names == ("ant", "cat", "dog")  # whatever the numbers in the lists
    sketch = load_picture_domain(chosen, "sketch", size=8)
    assert sorted(sketch.train.labels.tolist()) == [1, 1, 1, 2, 2, 2]
    assert sorted(sketch.test.labels.tolist()) == [0, 1, 2]
    expected = {colour("sketch", name, 3) for name in ("cat", "dog")} | {colour("sketch", "ant", 0)}
    assert colours(sketch.test.images) == expected
    assert (
        "clipart, infograph, painting, quickdraw missing: the run goes on without" in chosen.notes
    )
    assert "no official split, so 80/20 in each class with seed 0: real" in chosen.notes
    assert "sketch: its train split has no pictures of ant" in chosen.notes
    assert not [note for note in chosen.notes if note.startswith("sketch: its test")]


def test_listed_pictures_that_are_missing_are_counted(domainnet: Path) -> None:
    folder = domainnet / "pictures" / "domainnet" / "sketch"
    for n in (0, 1):
        (folder / "dog" / f"{n}.png").unlink()
    sketch = load_picture_domain(choose_picture_benchmark("domainnet", domainnet), "sketch", size=8)
    assert sorted(sketch.train.labels.tolist()) == [1, 1, 1, 2]
    assert any("2 of 9 pictures" in note for note in sketch.notes), sketch.notes


def test_lists_without_any_picture_are_refused(domainnet: Path) -> None:
    for path in (domainnet / "pictures" / "domainnet" / "sketch").rglob("*.png"):
        path.unlink()
    with pytest.raises(
        ValueError, match="lists of sketch name 6 pictures and none of them is there"
    ):
        choose_picture_benchmark("domainnet", domainnet)


def test_lists_that_disagree_are_refused(domainnet: Path) -> None:
    write_list(domainnet / "pictures" / "domainnet", "sketch", "test", [("cat", 3, 3)])
    with pytest.raises(ValueError, match="expected one class a label, got dog and cat for 3"):
        choose_picture_benchmark("domainnet", domainnet)


@pytest.mark.parametrize("how", ["names", "file"])
def test_only_the_classes_asked_for(root: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "classes").write_text("person\n\ndog\n")
    classes = ["person", "dog"] if how == "names" else tmp_path / "classes"
    chosen = choose_picture_benchmark("pacs", root, classes=classes)
    assert chosen.class_names == ("dog", "person")
    assert "2 of 3 classes" in chosen.notes
    photo = load_picture_domain(chosen, "photo", size=8)
    assert photo.num_classes == 2
    people = colours(photo.train.images[photo.train.labels == 1])
    assert people <= {colour("photo", "person", n) for n in range(5)}


def test_126_is_the_subset_of_domainnet(tmp_path: Path) -> None:
    classes = dict.fromkeys([*CLASSES_126, "zigzag"], 2)
    folder = tmp_path / "root" / "pictures" / "domainnet"
    write_tree(folder, {"real": classes, "sketch": classes})
    chosen = choose_picture_benchmark("domainnet", tmp_path / "root", classes=Path("126"))
    assert set(chosen.class_names) == set(CLASSES_126)
    assert "126 of 127 classes" in chosen.notes


@pytest.mark.parametrize("write", [Path.mkdir, lambda path: path.write_bytes(b"\xff")])
def test_a_list_of_classes_that_is_no_text_is_refused(root: Path, tmp_path: Path, write) -> None:
    write(tmp_path / "classes")
    with pytest.raises(ValueError, match=r"classes is no text file .*; expected folder names"):
        choose_picture_benchmark("pacs", root, classes=tmp_path / "classes")


def test_unknown_classes_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"classes of pacs, such as dog, house, person; got cow"):
        choose_picture_benchmark("pacs", root, classes=["dog", "cow"])
    with pytest.raises(ValueError, match="at least two classes of pacs, got 1"):
        choose_picture_benchmark("pacs", root, classes=["dog", "dog"])


def test_domain_without_any_of_the_classes_is_named(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "tree", {"a": {"cat": 2, "dog": 2}, "b": {"elk": 2, "fox": 2}})
    with pytest.raises(ValueError, match="b has none of the classes cat, dog"):
        choose_picture_benchmark(str(folder), classes=["cat", "dog"])


def test_no_more_of_a_class_than_asked_for(root: Path) -> None:
    chosen = choose_picture_benchmark("pacs", root, per_class=3)
    photo = load_picture_domain(chosen, "photo", size=8)
    assert np.bincount(photo.train.labels).tolist() == [3, 3, 3]
    assert np.bincount(photo.test.labels).tolist() == [2, 2, 1]
    assert "at most 3 pictures of a class in each split" in chosen.notes
    with pytest.raises(ValueError, match="at least one picture of a class, got per_class=0"):
        choose_picture_benchmark("pacs", root, per_class=0)


@pytest.mark.parametrize("name", ["domainnet", "pacs"])
def test_known_benchmark_without_files_is_unavailable(tmp_path: Path, name: str) -> None:
    with pytest.raises(DomainUnavailable, match=f"{name} is not available: .*project/pictures"):
        choose_picture_benchmark(name)
    write_tree(tmp_path / "project" / "pictures" / name, {"sketch": {"cat": 1, "dog": 1}})
    with pytest.raises(DomainUnavailable, match="at least two domains"):
        choose_picture_benchmark(name)


def test_unknown_benchmark_and_domain_are_refused(root: Path) -> None:
    known = "a picture benchmark: domainnet, pacs, satellite, emoji"
    with pytest.raises(ValueError, match=f"^no folder at pcas; expected .*{known}$"):
        choose_picture_benchmark("pcas", root)
    with pytest.raises(ValueError, match="a domain of pacs, one of photo, sketch; got 'cartoon'"):
        load_picture_domain(choose_picture_benchmark("pacs", root), "cartoon")


@pytest.fixture(scope="module")
def emoji() -> PictureBenchmark:
    return choose_picture_benchmark("emoji", classes=["animal-bird", "food-fruit"])


def test_emoji_needs_no_files() -> None:
    chosen = choose_picture_benchmark("emoji")
    assert (chosen.name, chosen.domains, chosen.origin) == ("emoji", STYLES, "bundled")
    assert chosen.class_names == tuple(emoji_classes())
    assert chosen.notes == (
        "no official split, so 80/20 in each class with seed 0: all styles alike, by emoji",
    )


def drawn(benchmark: PictureBenchmark, monkeypatch, cache: Path) -> dict[str, list[list[str]]]:
    """Style -> code points of its train and test split."""
    calls: dict[str, list[list[str]]] = {style: [] for style in STYLES}

    def draw_nothing(style: str, codes: list[str], size: int) -> np.ndarray:
        calls[style].append(codes)
        return np.zeros((len(codes), size, size, 3), np.uint8)

    monkeypatch.setattr(picture_sets, "draw_all", draw_nothing)
    for style in STYLES:
        load_picture_domain(benchmark, style, cache=cache, size=4)
    return calls


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("per_class", [None, 5])
def test_no_emoji_is_in_training_and_test(
    monkeypatch, tmp_path: Path, seed: int, per_class: int | None
) -> None:
    chosen = choose_picture_benchmark("emoji", seed=seed, per_class=per_class)
    splits = drawn(chosen, monkeypatch, tmp_path)
    train, test = splits["noto_line"]
    assert splits["twemoji"] == splits["openmoji"] == [train, test]
    assert not set(train) & set(test)
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)
    if per_class is None:
        assert {*train, *test} == {code for codes in emoji_classes().values() for code in codes}


def test_seed_decides_which_emoji_are_tested(monkeypatch, tmp_path: Path) -> None:
    first, second = (
        drawn(choose_picture_benchmark("emoji", seed=seed), monkeypatch, tmp_path / str(seed))
        for seed in (0, 1)
    )
    assert set(first["noto_line"][1]) != set(second["noto_line"][1])


def test_emoji_are_drawn_in_the_style_with_the_label_of_their_class(
    emoji: PictureBenchmark, tmp_path: Path
) -> None:
    for style in STYLES:
        domain = load_picture_domain(emoji, style, cache=tmp_path, size=16)
        assert (domain.name, domain.origin, domain.num_classes) == (style, "bundled", 2)
        assert np.bincount(domain.train.labels).tolist() == [16, 15]
        assert np.bincount(domain.test.labels).tolist() == [4, 4]
        for label, name in enumerate(emoji.class_names):
            found = {
                image.tobytes()
                for split in (domain.train, domain.test)
                for image in split.images[split.labels == label]
            }
            assert found == {draw(style, code, 16).tobytes() for code in emoji_classes()[name]}


def test_prepared_emoji_are_not_drawn_again(
    emoji: PictureBenchmark, tmp_path: Path, monkeypatch
) -> None:
    before = load_picture_domain(emoji, "twemoji", cache=tmp_path, size=8)
    monkeypatch.setattr(picture_sets, "draw_all", None)
    after = load_picture_domain(emoji, "twemoji", cache=tmp_path, size=8)
    assert after.fingerprint == before.fingerprint

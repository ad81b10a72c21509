"""Listings of labelled pictures: by folders, by list files, and their seeded subsets."""

from collections import Counter
from pathlib import Path

import pytest

from da_compose.trees import (
    LabelledPictures,
    at_most,
    of_classes,
    read_list,
    read_splits,
    read_tree,
    split,
)


def make_tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def listing(*counts: int, root: str = "/pictures") -> LabelledPictures:
    """As many pictures of class 0, 1, ... as said."""
    pairs = [(Path(root, str(c), f"{n:03}.jpg"), c) for c, k in enumerate(counts) for n in range(k)]
    return LabelledPictures(tuple(p for p, _ in pairs), tuple(label for _, label in pairs))


def pairs(pictures: LabelledPictures) -> set[tuple[Path, int]]:
    return set(zip(pictures.paths, pictures.labels, strict=True))


def reverse(pictures: LabelledPictures) -> LabelledPictures:
    return LabelledPictures(pictures.paths[::-1], pictures.labels[::-1])


def test_folders_are_the_classes_in_order_of_their_names(tmp_path: Path):
    files = ("dog/2.jpg", "dog/1.png", "cat/deep/er/3.jpg", "cat/notes.txt")
    found, names = read_tree(make_tree(tmp_path, *files, "README.md", ".git/x", "dog/.hidden.jpg"))
    assert names == ("cat", "dog")
    assert [str(path.relative_to(tmp_path)) for path in found.paths] == [
        *("cat/deep/er/3.jpg", "cat/notes.txt", "dog/1.png", "dog/2.jpg")
    ]
    assert found.labels == (0, 0, 1, 1)


def test_given_names_order_the_labels_and_may_lack_a_folder(tmp_path: Path):
    make_tree(tmp_path, "cat/1.jpg", "dog/2.jpg")
    found, names = read_tree(tmp_path, ["dog", "emu", "cat"])
    assert names == ("dog", "emu", "cat")
    assert pairs(found) == {(tmp_path / "cat/1.jpg", 2), (tmp_path / "dog/2.jpg", 0)}


@pytest.mark.parametrize(
    ("files", "names", "complaint"),
    [
        (("cat/1.jpg", "emu/1.jpg"), ["cat"], "folders of no class: emu; the classes are cat"),
        (("cat/1.jpg", "x.jpg"), None, r"1 pictures of no class, such as x\.jpg"),
        (("cat/1.jpg",), ["cat", "cat"], "must differ"),
        (("train/cat/1.jpg", "test/cat/2.jpg"), None, r"holds test and train, .*; give .*/test or"),
        (("train/1.jpg", "val/2.jpg"), None, "train and val: if these are classes, rename them"),
        (
            ("site/cat/1.jpg", "site/dog/2.jpg"),
            None,
            "site is the only folder of .*around cat, dog",
        ),
        (("notes.txt",), None, "no pictures in folders of classes"),
        (("cat/.hidden",), None, "no pictures in folders of classes"),
    ],
)
def test_a_tree_that_is_none_is_refused(tmp_path: Path, files, names, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        read_tree(make_tree(tmp_path, *files), names)


LITTER = ("__MACOSX/._1.jpg", "@eaDir/1.jpg", ".cache/1.jpg", "notes/a.txt", "cat/@eaDir/1.jpg")


@pytest.mark.parametrize("around", ["", "images/", "Images/train/"])
def test_a_folder_around_the_classes_and_litter_beside_are_no_classes(tmp_path: Path, around: str):
    (tmp_path / around / "empty" / "deep").mkdir(parents=True)
    files = [f"{around}{name}" for name in ("cat/1.jpg", "dog/2.heic", *LITTER)]
    found, names = read_tree(make_tree(tmp_path, *files))
    assert names == ("cat", "dog")
    assert [path.name for path in found.paths] == ["1.jpg", "2.heic"]


def test_two_spellings_of_one_class_are_one(tmp_path: Path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    make_tree(tmp_path, f"{composed}/1.jpg", f"{apart}/2.jpg", "dog/3.jpg")
    found, names = read_tree(tmp_path)
    assert names == (composed, "dog") and found.labels == (0, 0, 1)
    assert read_tree(tmp_path, ["dog", apart])[1] == ("dog", apart)
    alone = make_tree(
        tmp_path / "alone", f"{apart}/1.jpg", f"{apart}/2.jpg", f"u\u0308{apart}/1.jpg"
    )
    assert len(read_tree(alone)[1]) == 2


def test_classes_that_may_be_a_level_deeper_are_said(tmp_path: Path):
    files = [f"{site}/{name}/1.jpg" for site in ("amazon", "dslr") for name in ("mug", "bike")]
    with pytest.warns(UserWarning, match="amazon, dslr, each around bike, mug: .* give .*/amazon"):
        read_tree(make_tree(tmp_path, *files))


def test_folders_of_splits_are_the_splits(tmp_path: Path):
    files = ("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "Test/images/dog/4.jpg")
    train, test, names = read_splits(make_tree(tmp_path / "a", *files)) or pytest.fail("none")
    assert names == ("cat", "dog") and test.labels == (1,) and sorted(train.labels) == [0, 0, 1]
    assert read_splits(make_tree(tmp_path / "b", "cat/1.jpg", "train/2.jpg")) is None
    with pytest.raises(ValueError, match="test and val; expected a folder train"):
        read_splits(make_tree(tmp_path / "c", "test/cat/1.jpg", "val/cat/1.jpg"))


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_tree(tmp_path / "nowhere")


def test_lists_are_read_as_domainnet_ships_them(tmp_path: Path):
    content = "\ufeffsketch/zebra/s 334 (1).jpg 344\r\n\nsketch/ax/é.jpg\t0\n"
    (tmp_path / "list.txt").write_text(content, encoding="utf-8", newline="")
    found = read_list(tmp_path / "list.txt", tmp_path)
    assert found.paths == tuple(
        tmp_path / "sketch" / p for p in ("zebra/s 334 (1).jpg", "ax/é.jpg")
    )
    assert found.labels == (344, 0)


@pytest.mark.parametrize("line", ["a.jpg", "7", "a.jpg dog", "a.jpg -1", "a.jpg 1.5", "a.jpg ²"])
def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path, line: str):
    (tmp_path / "list.txt").write_text(f"a.jpg 1\n\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list\.txt, line 3: expected \"path label\""):
        read_list(tmp_path / "list.txt", tmp_path)


def test_an_empty_list_is_refused(tmp_path: Path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="lists no pictures"):
        read_list(tmp_path / "list.txt", tmp_path)


def test_a_split_parts_every_class_in_the_same_share():
    whole = listing(50, 10, 2, 1)
    train, test = split(whole, 0.2, seed=0)
    assert pairs(train) | pairs(test) == pairs(whole) and not pairs(train) & pairs(test)
    assert Counter(test.labels) == {0: 10, 1: 2, 2: 1}
    assert Counter(train.labels) == {0: 40, 1: 8, 2: 1, 3: 1}


def test_a_split_is_of_its_seed_and_not_of_the_order_of_listing():
    whole = listing(50, 10)
    assert split(whole, 0.2, seed=1) == split(reverse(whole), 0.2, seed=1)
    assert split(whole, 0.2, seed=1) != split(whole, 0.2, seed=2)


def test_a_split_is_the_same_elsewhere_and_without_the_other_classes():
    here, there = listing(50, 10), listing(50, 10, root="/other/place")
    for mine, moved in zip(split(here, 0.2, 1), split(there, 0.2, 1), strict=True):
        assert [p.parts[-2:] for p in mine.paths] == [p.parts[-2:] for p in moved.paths]
    alone = split(of_classes(here, [1]), 0.2, 1)
    assert alone == tuple(of_classes(part, [1]) for part in split(here, 0.2, 1))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20])
def test_a_share_beyond_all_or_none_is_refused(fraction: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(listing(5), fraction, seed=0)


def test_kept_classes_are_numbered_as_asked_for():
    kept = of_classes(listing(2, 3, 4), [2, -1, 0, -1])
    assert Counter(kept.labels) == {0: 4, 2: 2}
    assert all(path.parent.name == "20"[label // 2] for path, label in pairs(kept))


@pytest.mark.parametrize(("keep", "complaint"), [([0, 0], "must differ"), ([7], "no picture")])
def test_classes_that_cannot_be_kept_are_refused(keep: list[int], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        of_classes(listing(2, 3), keep)


def test_at_most_so_many_a_class_are_kept_and_more_contain_fewer():
    whole = listing(50, 3)
    few, more = at_most(whole, 2, seed=0), at_most(whole, 7, seed=0)
    assert Counter(few.labels) == {0: 2, 1: 2} and Counter(more.labels) == {0: 7, 1: 3}
    assert pairs(few) < pairs(more) < pairs(whole)
    assert at_most(reverse(whole), 7, seed=0) == more != at_most(whole, 7, seed=1)
    with pytest.raises(ValueError, match="at least 1 picture a class, got 0"):
        at_most(whole, 0, seed=0)


def test_labels_must_match_pictures():
    with pytest.raises(ValueError, match="got 1 pictures and 2 labels"):
        LabelledPictures((Path("a.jpg"),), (0, 1))

"""From a user's folders of pictures to predictions, by the commands alone."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from da_compose import NetworkConfig, load_backbone
from da_compose.storage.locks import alone
from da_compose.training import run
from da_compose.training.recipes import PICTURE_RECIPES, Recipe
from da_compose.training.run import STATE
from da_compose.training.trainer import Pretrainer
from tests.benchmarks.calls import call, refuse, succeed
from tests.benchmarks.conftest import SHORT, TINY
from tests.pictures import make_pictures, noise

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors
SIZE = 16


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty project, and networks and recipes small enough for a test."""
    short = replace(SHORT, pooled=True, balanced=True)
    monkeypatch.setitem(PICTURE_RECIPES, "strong", Recipe(pretraining=short, network=TINY))


def write_domain(folder: Path, classes: Sequence[str], each: int = 5) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            seed = int.from_bytes(f"{folder.name}{name}{number}".encode()) % 2**32
            noise(seed).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three domains; one lacks a class, and one has a name of two words."""
    for name in ("Art", "Real World"):
        write_domain(tmp_path / "tree" / name, ("bed", "lamp", "sofa"))
    write_domain(tmp_path / "tree" / "site-7", ("bed", "sofa"))
    return tmp_path / "tree"


def pretrain(out: Path, tree: Path | str, *more: object) -> tuple[object, ...]:
    return ("pretrain", out, "--pictures", tree, "--image-size", SIZE, "--steps", 2, *more)


@pytest.fixture
def backbone(tree: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run" / "backbone.safetensors"
    succeed(*pretrain(out, tree, "--target", "site-7"))
    return out


def read_csv(result: Result) -> list[list[str]]:
    """Rows of a command's output, names of files as Python has them."""
    return list(csv.reader(io.StringIO(os.fsdecode(result.stdout_bytes), newline="")))


def names_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# pretrain


def test_pretrain_on_a_tree_leaves_the_target_out_and_tests_the_sources(tree, tmp_path):
    out = tmp_path / "run" / "backbone.safetensors"
    said = succeed(*pretrain(out, tree, "--target", "site-7")).stdout.splitlines()
    assert f"wrote {out}" in said
    assert [line.split(":")[0] for line in said[-2:]] == ["Art", "Real-World"]
    assert all(line.endswith("% of 3 held-out test images") for line in said[-2:])
    assert any(line.startswith("note: no official split") for line in said)
    written = load_backbone(out)
    assert written.class_names == ("bed", "lamp", "sofa")
    assert list(written.knowledge) == ["Art", "Real-World"]
    assert written.network.config.image_size == SIZE
    assert isinstance(written.network.config, NetworkConfig)
    assert written.network.config.image_size // written.network.config.patch_size == 8
    assert {path.name for path in out.parent.iterdir()} == {out.name, "pretrain.jsonl"}


def test_pretrain_without_a_target_takes_all_domains_or_those_it_is_given(tree, tmp_path):
    out = tmp_path / "backbone.safetensors"
    succeed(*pretrain(out, tree, "--network", "unshared", "--patch-size", 4))
    written = load_backbone(out)
    assert list(written.knowledge) == ["Art", "Real-World", "site-7"]
    assert written.network.config == replace(
        TINY.unshared(), image_size=SIZE, patch_size=4, num_classes=3
    )
    out = tmp_path / "one" / "backbone.safetensors"
    succeed(*pretrain(out, tree, "--source", "site-7"))
    assert list(load_backbone(out).knowledge) == ["site-7"]


def test_pretrain_takes_fewer_classes_and_pictures(tree, tmp_path):
    out, classes = tmp_path / "backbone.safetensors", tmp_path / "classes.txt"
    classes.write_text("bed\nsofa\n")
    said = succeed(*pretrain(out, tree, "--classes", classes, "--per-class", 2)).stdout
    assert load_backbone(out).class_names == ("bed", "sofa")
    assert "note: at most 2 pictures of a class in each split" in said


def test_pretrain_takes_a_benchmark_by_name(tree, tmp_path):
    (tmp_path / "root" / "pictures").mkdir(parents=True)
    tree.rename(tmp_path / "root" / "pictures" / "pacs")
    out = tmp_path / "backbone.safetensors"
    succeed(*pretrain(out, "pacs", "--target", "Art", "--data", tmp_path / "root"))
    assert list(load_backbone(out).knowledge) == ["Real-World", "site-7"]


def test_an_interrupted_pretraining_goes_on(tree, tmp_path, monkeypatch):
    out = tmp_path / "run" / "backbone.safetensors"
    with monkeypatch.context() as interrupted:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        interrupted.setattr("da_compose.training.pretrain.collect_knowledge", interrupt)
        assert call(*pretrain(out, tree)).stderr.splitlines()[-1] == "Aborted!"
    assert not out.exists() and (out.parent / STATE).exists()
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained again"))
    assert "goes on at step 2 of 2" in succeed(*pretrain(out, tree)).stderr
    assert not (out.parent / STATE).exists()
    whole = out.read_bytes()
    (out.parent / STATE).touch()  # killed right after the backbone was written
    assert succeed(*pretrain(out, tree)).stdout.endswith(f"{out} is finished: nothing to do\n")
    assert not (out.parent / STATE).exists()
    other = pretrain(out, tree, "--seed", 1)
    assert "was made with another seed" in refuse(*other)
    with alone(out.parent):
        assert f"another run writes to {out.parent} now" in refuse(*pretrain(out, tree))
    assert out.read_bytes() == whole


def test_how_often_a_state_is_saved_is_an_option(tree, tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(run, "save_state", lambda trainer, *_: saved.append(trainer.step_number))
    succeed(*pretrain(tmp_path / "b.safetensors", tree, "--save-every", 1))
    assert saved == [1, 2]


def test_pretrain_on_a_trunk(tree, tmp_path):
    out = tmp_path / "backbone.safetensors"
    trunk = ("--trunk", "resnet18.layer1", "--trunk-weights", "random", "--image-size", 32)
    succeed(*pretrain(out, tree, *trunk))
    written = load_backbone(out)
    assert isinstance(written.network.config, NetworkConfig)
    assert written.network.config.trunk == "resnet18.layer1"
    assert written.network.config.patch_size == 1
    assert written.notes["trunk_weights"] == "random"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--trunk", "resnet18.layer1"), "--trunk-weights"),
        (("--trunk-weights", "random"), "--trunk resnet18"),
        (("--trunk", "resnet18.layer1", "--trunk-weights", "no.safetensors"), "no.safetensors"),
        (("--trunk", "resnet1.layer1", "--trunk-weights", "random"), "no trunk"),
        (("--source", "Product"), "there are: Art, Real World, site-7"),
        (("--target", "Product"), "there are: Art, Real World, site-7"),
        (("--target", "Art", "--source", "Art"), "leave one of the two out"),
        (("--recipe", "paper"), "choose from strong"),
        (("--image-size", 21, "--patch-size", 2), "multiple of patch_size"),
        (("--classes", "no.txt"), "no.txt"),
        (("--recipe", "lite0", "--patch-size", 4), "lite0 has a network of its own"),
        (("--recipe", "lite0", "--network", "unshared"), "leave out trunk, patch size"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_careless_pretraining_is_refused_before_any_work(
    tree, tmp_path, monkeypatch, options, expected
):
    monkeypatch.setattr(
        "benchmarks.cli.pretraining.load_picture_domain",
        lambda *_, **__: pytest.fail("worked for nothing"),
    )
    before = names_below(tmp_path)
    assert expected in refuse(*pretrain(tmp_path / "run" / "out.safetensors", tree, *options))
    assert names_below(tmp_path) == before


def test_domains_whose_names_become_the_same_word_are_refused(tree, tmp_path):
    (tree / "site-7").rename(tree / "Real-World")
    assert "rename a folder" in refuse(*pretrain(tmp_path / "out.safetensors", tree))


@pytest.mark.parametrize("command", ["pretrain", "prepare"])
def test_options_of_pictures_do_not_go_with_digits(tmp_path, command):
    arguments = [command, tmp_path / "out.safetensors"] if command == "pretrain" else [command]
    for option in (("--image-size", 64), ("--classes", "names.txt"), ("--per-class", 3)):
        assert f"{option[0]} goes with --pictures" in refuse(*arguments, *option)


def test_a_folder_of_one_domain_is_refused_as_what_it_is(tree, tmp_path):
    for command in (pretrain(tmp_path / "out.safetensors", tree / "Art"),
                    ("prepare", "--pictures", tree / "Art")):  # fmt: skip
        assert f"{tree / 'Art'} is one domain, <class>/<picture>" in refuse(*command)
    missing = tmp_path / "missing"
    assert str(missing) in refuse(*pretrain(tmp_path / "out.safetensors", missing))


def test_one_labelled_source_is_enough(tree, tmp_path):
    for other in [path for path in tree.iterdir() if path.name != "Art"]:
        other.rename(tmp_path / other.name)
    out = tmp_path / "out.safetensors"
    succeed(*pretrain(out, tree))
    assert tuple(load_backbone(out).knowledge) == ("Art",)
    alone = refuse(*pretrain(tmp_path / "other.safetensors", tree, "--target", "Art"))
    assert "at least one labelled source domain" in alone


def test_a_targets_folders_are_no_classes_and_a_flat_one_is_no_domain(tree, tmp_path):
    write_domain(tree / "site-7", ("chair",))
    (tree / "flat").mkdir()
    noise(0).save(tree / "flat" / "a", "PNG")
    out = tmp_path / "backbone.safetensors"
    said = succeed(*pretrain(out, tree, "--target", "site-7")).stdout
    assert load_backbone(out).class_names == ("bed", "lamp", "sofa") and "chair" not in said
    out = tmp_path / "other.safetensors"
    assert "no domain falt in" in (error := refuse(*pretrain(out, tree, "--target", "falt")))
    assert error.endswith("without labels: flat")
    assert "no labelled domain in" in refuse(*pretrain(out, tree / "flat"))
    said = succeed(*pretrain(out, tree, "--target", "flat")).stdout
    assert load_backbone(out).class_names == ("bed", "chair", "lamp", "sofa")
    assert "note: flat: pictures without folders of classes, so no labelled domain" in said


def test_a_class_without_a_readable_picture_is_no_output(tree, tmp_path):
    (tree / "Art" / "stool").mkdir()
    arguments = (tree, "--source", "Art")
    assert "stool" not in succeed(*pretrain(tmp_path / "a.safetensors", *arguments)).stdout
    (tree / "Art" / "stool" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    said = refuse(*pretrain(tmp_path / "b.safetensors", *arguments))
    assert "no source has a readable training picture of stool" in said


def test_other_layouts_are_recognized_or_asked_about(tree, tmp_path):
    out, art = tmp_path / "backbone.safetensors", tree / "Art"
    for part in ("train", "test"):
        write_domain(tree / "site-9" / part, ("bed", "sofa"), each=3)
    art.rename(tree / "images")
    art.mkdir()
    (tree / "images").rename(art / "images")
    said = succeed(*pretrain(out, tree)).stdout
    assert load_backbone(out).class_names == ("bed", "lamp", "sofa")
    assert "Art: accuracy" in said and "% of 6 held-out test images" in said.splitlines()[-1]
    assert f"give {tree / 'site-9' / 'test'} or" in refuse(
        "evaluate", "--backbone", out, "--domain", tree / "site-9"
    )
    tested = succeed("evaluate", "--backbone", out, "--domain", tree / "site-9" / "test")
    assert "% of 6 pictures of the folder" in tested.stdout
    assert "expected <domain>/<class>/<picture>" in refuse(*pretrain(out, tree / "site-9"))


# prepare


def test_prepare_counts_pictures_and_what_is_wrong_with_them(tree):
    (tree / "Art" / "bed" / "broken.png").write_bytes(b"not a picture")
    (tree / "Art" / "sofa" / "twin.png").write_bytes((tree / "Art/bed/0.png").read_bytes())
    result = succeed("prepare", "--pictures", tree, "--image-size", 8)
    lines = result.stdout.splitlines()
    (art,) = [line for line in lines if line.startswith("Art: ")]
    kept = sum(int(word) for word in art.split() if word.isdigit())
    assert kept == 16 and "from: files; fingerprint" in art
    assert "note: Art: 1 of 17 pictures left out, listed in problems.csv" in lines
    assert any(line.startswith("note: Art: 1 duplicates kept") for line in lines)
    (problems,) = [line.split("see ")[1] for line in lines if line.startswith("note: Art: see ")]
    assert len(Path(problems).read_text().splitlines()) == 3
    (said,) = [line for line in result.stderr.splitlines() if "broken.png" in line]
    assert said.startswith(str(tree / "Art" / "bed" / "broken.png: "))
    assert "twin.png" not in result.stderr


def test_prepare_takes_some_domains_alone(tree):
    lines = succeed("prepare", "site-7", "--pictures", tree).stdout.splitlines()
    assert [line.split(":")[0] for line in lines if "training and" in line] == ["site-7"]
    assert "one of Art, Real World, site-7" in refuse("prepare", "site-8", "--pictures", tree)


# evaluate


def test_evaluate_on_a_folder_agrees_with_predict(tree, backbone, tmp_path):
    site, adapter = tree / "site-7", tmp_path / "site-7.safetensors"
    options = ("--backbone", backbone)
    succeed("adapt", *options, "--images", site, "--out", adapter, "--steps", 1)
    options += ("--adapter", adapter)
    _, *rows = read_csv(succeed("predict", *options, site))
    right = [Path(path).parent.name == label for path, label, _ in rows]
    said = succeed("evaluate", *options, "--domain", site).stdout.splitlines()
    assert said[0] == f"accuracy {100 * sum(right) / 10:.2f} % of 10 pictures of the folder"
    assert [line.split()[1] for line in said[1:]] == ["bed:", "sofa:"]


def test_evaluate_lists_broken_pictures_and_refuses_unknown_classes(tree, backbone):
    site = tree / "site-7"
    (site / "bed" / "a.png").write_bytes(b"")
    result = succeed("evaluate", "--backbone", backbone, "--domain", site)
    assert "of 10 pictures of the folder" in result.stdout
    assert f"{site / 'bed' / 'a.png'}: the file is empty" in result.stderr
    write_domain(site, ("chair",))
    assert "chair" in refuse("evaluate", "--backbone", backbone, "--domain", site)


# Broken pictures and odd names


def lists(text: str, path: Path) -> bool:
    """Whether a line of the text is of the path, and gives a reason."""
    return any(line.startswith(f"{path}: ") and line != f"{path}: " for line in text.splitlines())


def test_a_hundred_pictures_of_which_ten_are_broken(tree, tmp_path):
    site, out = tree / "site-8", tmp_path / "site-8.safetensors"
    broken = make_pictures(site, good=90, broken_of_each_kind=1)
    assert len(broken) == 10
    prepared = succeed("prepare", "--pictures", tree, "--image-size", SIZE)
    backbone = tmp_path / "backbone.safetensors"
    succeed(*pretrain(backbone, tree))
    options = ("--backbone", backbone)
    report = tmp_path / "site-8.html"
    adapted = succeed("adapt", *options, "--images", site, "--out", out, "--steps", 1,
                      "--report", report)  # fmt: skip
    predicted = succeed("predict", *options, "--adapter", out, site)
    evaluated = succeed("evaluate", *options, "--adapter", out, "--domain", site)
    for result in (prepared, adapted, predicted, evaluated):
        assert [path for path in broken if not lists(result.stderr, path)] == []
        assert not any(str(path) in result.stdout for path in broken)
    assert "note: site-8: 10 of 100 pictures left out, listed in problems.csv" in prepared.stdout
    assert all(path.name in report.read_text() for path in broken)
    assert len(predicted.stdout.splitlines()) == 91
    good = sorted(path for path in site.rglob("*.*") if path not in broken)
    assert [row[0] for row in read_csv(predicted)[1:]] == [str(path) for path in good]
    assert "of 90 pictures of the folder" in evaluated.stdout


def test_odd_names_of_files_come_whole_through_every_command(tree, backbone, tmp_path):
    site, out = tree / "site-7", tmp_path / "site-7.safetensors"
    odd = [b"latin-\xe9.png", b"one, two.png", b'"quoted".png', b"two\nlines.png", b"mac\rline.png",
           " leading, Ωλ 雪.png".encode(), b"=1+1.png", b"'.png"]  # fmt: skip
    for number, name in enumerate(odd):
        noise(number).save(site / "bed" / os.fsdecode(name), "PNG")
    (site / "sofa" / os.fsdecode(b"broken-\xe9.png")).write_bytes(b"")
    options = ("--backbone", backbone)
    report = ("--report", tmp_path / "site-7.html")
    succeed("prepare", "--pictures", tree, "--image-size", SIZE)
    succeed("adapt", *options, "--images", site, "--out", out, "--steps", 1, *report)
    predicted = succeed("predict", *options, "--adapter", out, site)
    found = read_csv(predicted)
    assert {len(row) for row in found} == {3}
    expected = {str(path) for path in site.rglob("*.png") if "broken" not in path.name}
    assert len(expected) == 10 + len(odd)
    assert {row[0] for row in found[1:]} == expected
    assert b"broken-" not in predicted.stdout_bytes and "broken-" in predicted.stderr
    assert "of 18 pictures of the folder" in succeed("evaluate", *options, "--domain", site).stdout

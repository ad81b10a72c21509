"""The benchmarks of pictures, on a few random ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cli import bench as bench_cli
from benchmarks.harness import picture_benchmarks
from benchmarks.harness.picture_benchmarks import ALL, PICTURES, TARGETS, at_size, load_pictures
from benchmarks.harness.rows import read_rows
from da_compose.training.picture_augmentation import PictureAugmentation
from da_compose.training.pretrained import PRETRAINED_RECIPES
from da_compose.training.recipes import PICTURE_RECIPES, Recipe, usual_recipes
from da_compose.training.trainer import PretrainConfig
from data_prep import DomainUnavailable
from tests.benchmarks.calls import refuse, succeed
from tests.benchmarks.conftest import TINY

DOMAINS = ("art_painting", "photo", "sketch")


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Networks and recipes that take no time, and a project without prepared data."""
    short = PretrainConfig(
        batch_size=4, statistics_batches=2, pooled=True, balanced=True,
        augmentation=PictureAugmentation(),
    )  # fmt: skip
    monkeypatch.setitem(
        picture_benchmarks.RECIPES, "strong", Recipe(pretraining=short, network=TINY)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with three domains of PACS, two classes, ten pictures each."""
    generator = np.random.default_rng(0)
    for domain in DOMAINS:
        for label in ("dog", "house"):
            folder = tmp_path / "data" / "pictures" / "pacs" / domain / label
            folder.mkdir(parents=True)
            for number in range(10):
                pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "data"


def bench(name: str, root: Path, folder: Path, *more: str) -> tuple[str, ...]:
    return (
        "bench", name, "--data", str(root), "--processes", "1", "--runs", str(folder / "runs"),
        "--results", str(folder / "results"), "--pretrain-steps", "2", "--adapt-steps", "1",
        "--image-size", "16", "--no-oracles",
        "--strategy", "batch_norm", "--strategy", "information_maximization", *more,
    )  # fmt: skip


def test_every_domain_is_the_target_in_turn(root):
    rotations = load_pictures("pacs", root)
    assert [data.target for data in rotations] == list(DOMAINS)
    for data in rotations:
        assert {*data.sources, data.target} == set(DOMAINS)
        assert data.target not in data.sources
        assert data.class_names == ("dog", "house")
        assert (len(data.domains[data.target].train), len(data.domains[data.target].test)) == (
            16,
            4,
        )
    assert len({data.fingerprint for data in rotations}) == 1


def test_one_target_can_be_named_and_others_are_refused(root):
    (data,) = load_pictures("pacs", root, "photo")
    assert data.target == "photo"
    with pytest.raises(ValueError, match="no target 'cartoon' in pacs; choose from all, art"):
        load_pictures("pacs", root, "cartoon")


def test_fewer_pictures_are_other_data(root, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("house\ndog\n")
    few, all_of_them = (
        load_pictures("pacs", root, "photo", classes, per_class)[0] for per_class in (3, None)
    )
    assert len(few.domains["photo"].train) == 6
    assert few.fingerprint != all_of_them.fingerprint


def test_other_sizes_are_other_data_in_as_many_patches(root):
    small, large = (load_pictures("pacs", root, "photo", image_size=size)[0] for size in (32, 96))
    assert small.domains["photo"].train.images.shape[1:] == (32, 32, 3)
    assert large.domains["photo"].train.images.shape[1:] == (96, 96, 3)
    assert small.fingerprint != large.fingerprint
    recipe = at_size(PICTURES["pacs"], 96).recipes["strong-128"]
    assert isinstance(recipe, Recipe)
    network = recipe.network
    assert (network.image_size, network.patch_size, network.num_templates) == (96, 12, 16)
    assert at_size(PICTURES["pacs"], 64).recipes["strong-128"] == REAL["strong-128"]


def test_satellite_scenes_have_each_collection_in_turn(root):
    (root / "pictures" / "pacs").rename(root / "pictures" / "satellite")
    assert [data.target for data in load_pictures("satellite", root)] == list(DOMAINS)


def test_defaults_are_the_papers_target_and_small_sets_in_turn():
    named = {"domainnet": "sketch", "emoji": "noto_line"}
    assert named | {"pacs": ALL, "satellite": ALL} == TARGETS
    assert {benchmark.name for benchmark in PICTURES.values()} == set(TARGETS)


def test_the_networks_of_the_benchmark_have_64_mixture_weights():
    network = REAL["strong"].network
    assert network.num_layers * network.num_templates == 64
    assert REAL["strong"].network_of("unshared").num_templates == network.num_layers
    assert network.image_size % network.patch_size == 0


def test_published_weights_are_usual_and_the_others_run_where_they_are_asked_for():
    more, usual = REAL["strong-128"], REAL["strong"]
    assert more.network.num_layers * more.network.num_templates == 128
    assert more.pretraining == usual.pretraining
    assert usual_recipes(REAL | dict(PRETRAINED_RECIPES)) == ("lite0",)


REAL = dict(PICTURE_RECIPES)  # before a fixture makes them tiny


def test_a_run_on_pictures_writes_rows_tables_and_plots(root, tmp_path, undrawn):
    options = ("--network", "compositional", "--recipe", "strong")
    said = succeed(*bench("pacs", root, tmp_path, *options)).output
    assert "pacs: photo, sketch -> art_painting; data: files" in said
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert {(row.benchmark, row.target) for row in rows} == {("pacs", name) for name in DOMAINS}
    networks = [row.config["job"]["network"] for row in rows]
    assert {(n["num_classes"], n["image_size"], n["patch_size"]) for n in networks} == {(2, 16, 2)}
    assert ", 16 pixels." in (tmp_path / "results" / "rotation.md").read_text()
    made = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"rotation.md", "table.md"} <= made
    assert {name.split("-")[-1] for name in made if name.endswith(".png")} == {
        "accuracy.png", "best.png", "changed.png", "confusion.png", "embeddings.png",
        "mixtures.png",
    }  # fmt: skip


def test_without_domainnet_the_emoji_benchmark_runs_and_says_so(monkeypatch, tmp_path):
    called = []

    def run_pictures(name: str, **options: object) -> None:
        called.append((name, options))
        if name == "domainnet":
            raise DomainUnavailable("domainnet is not available")

    monkeypatch.setattr(bench_cli, "run_pictures", run_pictures)
    said = succeed(
        "bench", "domainnet", "--target", "clipart", "--runs", str(tmp_path / "own")
    ).output
    assert "domainnet is not available" in said and "this is the emoji benchmark instead" in said
    (_, (name, options)) = called
    assert name == "emoji" and options["target"] is None
    assert options["runs"] == tmp_path / "own"
    assert options["results"] is None
    succeed("bench", "domainnet")
    assert called[-1][0] == "emoji" and called[-1][1]["runs"] == Path("runs/emoji")


def test_missing_pacs_ends_in_one_line(tmp_path):
    (tmp_path / "data").mkdir()
    assert "pacs is not available" in refuse(*bench("pacs", tmp_path / "data", tmp_path))


def test_recipes_of_different_sizes_are_not_mixed(root):
    said = refuse("bench", "pacs", "--data", root, "--recipe", "strong", "--recipe", "lite0")
    assert "strong 32, lite0 160 pixels" in said and "--image-size" in said

"""A digits benchmark of seconds: tiny networks, short recipes and a few synthetic images."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from adapters import adapt
from benchmarks.harness import digit_benchmark
from benchmarks.harness.benchmark import BenchmarkData, load_digits
from benchmarks.harness.cells import Splits, run_jobs
from benchmarks.harness.plan import USUAL, BackboneJob, Profile, plan
from benchmarks.harness.rows import ResultRow, read_rows
from da_compose import Backbone, CompositionalNetwork, NetworkConfig
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.recipes import DIGIT_RECIPES, Recipe
from da_compose.training.rehearsal import RehearsalConfig
from da_compose.training.trainer import PretrainConfig
from data_prep import locations
from data_prep.caches import CACHE_VARIABLE

TINY = NetworkConfig(
    num_layers=2, num_templates=2, channels=4, patch_size=16, hidden=6, embedding=5
)
SHORT = PretrainConfig(batch_size=4, statistics_batches=2)
RECIPES = {
    "paper": SHORT,
    "strong": replace(SHORT, pooled=True, augmentation=AugmentationConfig()),
}
REHEARSAL = RehearsalConfig(mock_targets=2, images=8)
PROFILE = replace(digit_benchmark.PROFILES["quick"], pretrain_steps=4, adapt_steps=2)
SOURCES = ("mnist", "meter")
TARGET = "usps"


def random_split(count: int, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
    return {"images": images, "labels": generator.permutation(count) % 10}


def write_npz(path: Path, shape: tuple[int, ...], seed: int, train: int = 30, test: int = 20):
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = {
        "train": random_split(train, shape, seed),
        "test": random_split(test, shape, seed + 1),
    }
    arrays = {f"{s}_{kind}": array for s, held in splits.items() for kind, array in held.items()}
    np.savez(path, allow_pickle=False, **arrays)


def forget_machine(patch: pytest.MonkeyPatch, project: Path) -> None:
    """No network, no data of this machine, an empty project."""
    patch.delenv(locations.DATA_VARIABLE, raising=False)
    patch.setenv(locations.OFFLINE_VARIABLE, "1")
    patch.setattr(locations, "project_data", lambda: project)
    patch.setenv(CACHE_VARIABLE, str(project))


def make_bare(patch: pytest.MonkeyPatch, project: Path) -> None:
    """A machine with nothing on it, and networks and recipes small enough for a test."""
    forget_machine(patch, project)
    patch.setenv("OMP_NUM_THREADS", "1")  # what a run sets, so that it is put back
    patch.setattr("benchmarks.harness.measure.commit", lambda: "abc1234")  # git is slow
    patch.setattr("da_compose.training.rehearsal.RehearsalConfig", lambda: REHEARSAL)
    for name, recipe in RECIPES.items():
        patch.setitem(DIGIT_RECIPES, name, Recipe(pretraining=recipe, network=TINY))


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bare(monkeypatch, tmp_path / "project")


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    write_npz(root / "digits" / "mnist.npz", (28, 28), seed=10)
    write_npz(root / "digits" / "meter.npz", (24, 20, 3), seed=20)
    write_npz(root / "digits" / "usps.npz", (16, 16), seed=30)
    return root


@pytest.fixture(scope="session")
def shared_data(shared_root: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkData:
    with pytest.MonkeyPatch.context() as patch:
        forget_machine(patch, tmp_path_factory.mktemp("project"))
        return load_digits(shared_root)


@pytest.fixture
def data_root(shared_root: Path, tmp_path: Path) -> Path:
    """A data root with mnist, meter (sources) and usps (target)."""
    return shutil.copytree(shared_root, tmp_path / "root")


@dataclass
class Benchmark:
    """The digits benchmark on synthetic domains, in folders of one test."""

    domains: dict[str, Splits]
    fingerprint: str
    folder: Path
    sources: tuple[str, ...] = SOURCES

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def results(self) -> Path:
        return self.folder / "results" / "results.jsonl"

    def rows(self) -> list[ResultRow]:
        """All rows written so far."""
        return read_rows(self.results)

    def elsewhere(self, name: str) -> "Benchmark":
        """The same benchmark that has not been run yet."""
        return replace(self, folder=self.folder / name)

    def jobs(
        self,
        networks: Iterable[str] = ("compositional",),
        recipes: Iterable[str] = ("paper",),
        profile: Profile = PROFILE,
    ) -> list[BackboneJob]:
        return list(
            plan(
                digit_benchmark.DIGITS,
                profile,
                recipes=tuple(recipes),
                networks=tuple(networks),
                sources=self.sources,
                target=TARGET,
                class_names=tuple("0123456789"),
                data="files",
                data_fingerprint=self.fingerprint,
            )
        )

    def run(
        self,
        jobs: list[BackboneJob] | None = None,
        strategies: tuple[str, ...] = USUAL,
        oracles: bool = True,
    ) -> list[ResultRow]:
        """Run in this process: all rows written so far."""
        run_jobs(
            jobs or self.jobs(),
            self.domains,
            runs=self.runs,
            results=self.results,
            processes=1,
            strategies=strategies,
            oracles=oracles,
            device="cpu",
        )
        return self.rows()

    def with_labels(self, *, train: bool = False, test: bool = False) -> "Benchmark":
        """The same benchmark, where labels of the target's training or test split are shuffled."""
        splits = {"train": train, "test": test}
        target = self.domains[TARGET]
        changed = {
            name: ImageSet(data.images, np.roll(data.labels, 1) if splits[name] else data.labels)
            for name, data in vars(target).items()
        }
        return replace(self, domains=self.domains | {TARGET: Splits(**changed)})


@pytest.fixture
def benchmark_run(shared_data: BenchmarkData, tmp_path: Path) -> Benchmark:
    return Benchmark(shared_data.domains, shared_data.fingerprint, tmp_path / "benchmark")


def build_backbone(config: NetworkConfig = TINY, seed: int = 0) -> Backbone:
    """A backbone with random weights and statistics that knows two sources."""
    network = CompositionalNetwork(config, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    sources = {}
    for place, name in enumerate(("mnist", "meter")):
        xi = None
        if config.signature is None:
            xi = torch.randn(config.num_layers, config.num_templates, generator=generator)
        domain = network.new_domain(name, xi)
        domain.set_statistics(
            0.1 * torch.randn(config.num_statistics, generator=generator),
            0.5 + torch.rand(config.num_statistics, generator=generator),
        )
        network.domains.add(domain)
        split = random_split(30, (config.image_size, config.image_size), seed=place)
        sources[name] = ImageSet(split["images"], split["labels"].astype(np.int64))
    return Backbone(network, tuple("0123456789"), collect_knowledge(network, sources))


@pytest.fixture
def backbone() -> Backbone:
    return build_backbone()


@pytest.fixture
def unshared_backbone() -> Backbone:
    return build_backbone(TINY.unshared())


@dataclass
class UserFiles:
    """What a user of the commands has lying around."""

    folder: Path
    data_root: Path
    backbone: Path
    other_backbone: Path
    adapter: Path
    pictures: Path

    @property
    def names(self) -> list[str]:
        """Every file and folder there, hidden ones too, apart from the data and its cache."""
        kept = (self.data_root, self.folder / "project")
        found = [p for p in self.folder.rglob("*") if not any(k in (p, *p.parents) for k in kept)]
        return sorted(str(path.relative_to(self.folder)) for path in found)


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    backbone = build_backbone()
    backbone.save(folder / "backbone.safetensors")
    build_backbone(seed=5).save(folder / "other.safetensors")
    (folder / "pictures").mkdir()
    images = random_split(6, (32, 32), seed=3)["images"]
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "pictures" / f"{number}.png")
    adapt(backbone, images, steps=1, name="site-7").save(folder / "site-7.safetensors")
    return folder


@pytest.fixture
def user_files(tmp_path: Path, data_root: Path, shared_files: Path) -> UserFiles:
    shutil.copytree(shared_files, tmp_path, dirs_exist_ok=True)
    return UserFiles(
        tmp_path,
        data_root,
        tmp_path / "backbone.safetensors",
        tmp_path / "other.safetensors",
        tmp_path / "site-7.safetensors",
        tmp_path / "pictures",
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are composed and not drawn: their files are empty."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())


@pytest.fixture
def bench_digits(data_root, tmp_path, undrawn) -> Callable[..., tuple[str, ...]]:
    def arguments(*more: object) -> tuple[str, ...]:
        return (
            "bench", "digits", "--data", str(data_root), "--processes", "1",
            "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"),
            "--pretrain-steps", "2", "--adapt-steps", "1", "--recipe", "paper", *map(str, more),
        )  # fmt: skip

    return arguments


@pytest.fixture
def run_study_twice(data_root: Path, tmp_path: Path, undrawn: None) -> Callable[..., Path]:
    """A study's command, twice on one seed, recipe and network and usps; its results' folder."""

    def run(command: click.Command, recipe: str, network: str) -> Path:
        arguments = [
            "--data", str(data_root), "--runs", str(tmp_path / "runs"), "--processes", "1",
            "--results", str(tmp_path / "results"), "--seed", "1", "--recipe", recipe,
            "--network", network, "--target", "usps",
        ]  # fmt: skip
        for _ in range(2):
            found = CliRunner().invoke(command, arguments, catch_exceptions=False)
            assert found.exit_code == 0, found.output
        return tmp_path / "results"

    return run

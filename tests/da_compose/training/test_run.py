import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from da_compose import CompositionalNetwork
from da_compose.images import ImageSet
from da_compose.progress import show_progress
from da_compose.storage.files import load_tensors, save_tensors
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.run import LOG, STATE, discard_state, run_training
from da_compose.training.trainer import PretrainConfig, Pretrainer

AUGMENTATION = AugmentationConfig(noise=0.1, blur=0.5, thickness=0.5, contrast=0.2)
CONFIG = PretrainConfig(
    steps=8,
    batch_size=4,
    statistics_batches=2,
    pooled=True,
    augmentation=AUGMENTATION,
)
SAVE_EVERY = 3


@dataclass
class Bench:
    """Runs of one and the same training, and the trainers that made them."""

    make_network: Callable[..., CompositionalNetwork]
    sources: dict[str, ImageSet]
    trainers: list[Pretrainer]
    interrupt_at: list[int]

    def run(self, folder: Path, config: PretrainConfig = CONFIG) -> Pretrainer:
        network = self.make_network(domains=())
        run_training(network, self.sources, config, folder, save_every=SAVE_EVERY)
        return self.trainers[-1]

    def interrupted(self, folder: Path, step: int) -> None:
        self.interrupt_at.append(step)
        with pytest.raises(KeyboardInterrupt):
            self.run(folder)
        self.interrupt_at.clear()


def make_bench(patch: pytest.MonkeyPatch, make_network, make_images) -> Bench:
    sources = {"a": make_images(10), "b": make_images(3, seed=1)}
    bench = Bench(make_network, sources, [], [])
    step, finish = Pretrainer.step, Pretrainer.finish

    def interruptible_step(trainer: Pretrainer) -> dict[str, float]:
        if trainer.step_number in bench.interrupt_at:
            raise KeyboardInterrupt
        return step(trainer)

    def recorded_finish(trainer: Pretrainer) -> None:
        bench.trainers.append(trainer)
        finish(trainer)

    patch.setattr(Pretrainer, "step", interruptible_step)
    patch.setattr(Pretrainer, "finish", recorded_finish)
    return bench


@pytest.fixture
def bench(make_network, make_images, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(monkeypatch, make_network, make_images)


@dataclass
class Finished:
    """An uninterrupted run, what lay on disk in the middle of its step 5, and one interrupted."""

    trainer: Pretrainer
    whole: Path
    midway: Path
    parts: Path


@pytest.fixture(scope="module")
def finished(make_network, make_images, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("runs")
    whole, midway, parts = (folder / name for name in ("whole", "midway", "parts"))
    with pytest.MonkeyPatch.context() as patch:
        bench = make_bench(patch, make_network, make_images)
        bench.interrupted(parts, 5)
        step = Pretrainer.step

        def copied_step(trainer: Pretrainer) -> dict[str, float]:
            if trainer.step_number == 5:
                shutil.copytree(whole, midway)
            return step(trainer)

        patch.setattr(Pretrainer, "step", copied_step)
        return Finished(bench.run(whole), whole, midway, parts)


@pytest.fixture
def interrupted(finished: Finished, tmp_path: Path) -> Path:
    """The folder of a run that was interrupted before its step 5."""
    return shutil.copytree(finished.parts, tmp_path, dirs_exist_ok=True)


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def assert_same_training(first: Pretrainer, second: Pretrainer) -> None:
    expected = first.network.state_dict()
    found = second.network.state_dict()
    assert expected.keys() == found.keys()
    assert all(value.equal(found[name]) for name, value in expected.items())
    states = [trainer.optimizer.state_dict()["state"] for trainer in (first, second)]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        assert state.keys() == states[1][number].keys()
        assert all(torch.equal(value, states[1][number][key]) for key, value in state.items())


@pytest.mark.parametrize("steps", [[2], [3], [4, 4, 7]], ids=str)
def test_killed_and_resumed_equals_uninterrupted(
    bench: Bench, finished: Finished, tmp_path: Path, steps: list[int]
) -> None:
    """Before the first save, at save points and between them, and more than once."""
    for step in steps:
        bench.interrupted(tmp_path, step)
        assert (tmp_path / STATE).exists() == (step >= SAVE_EVERY)
    assert_same_training(finished.trainer, bench.run(tmp_path))
    assert log_of(finished.whole) == log_of(tmp_path)


def test_killed_without_warning_and_resumed_equals_uninterrupted(
    bench: Bench, finished: Finished, tmp_path: Path
) -> None:
    """What lies on disk in the middle of a step is all that a power failure leaves."""
    shutil.copytree(finished.midway, tmp_path / "parts")
    assert_same_training(finished.trainer, bench.run(tmp_path / "parts"))
    assert log_of(finished.whole) == log_of(tmp_path / "parts")


def test_resuming_does_not_depend_on_the_network_that_it_starts_from(
    bench: Bench, finished: Finished, interrupted: Path, make_network
) -> None:
    def other_weights(domains: tuple[str, ...]) -> CompositionalNetwork:
        network, same = make_network(domains, seed=7), make_network(domains)
        network.first_xi.copy_(same.first_xi)
        return network

    bench.make_network = other_weights
    assert_same_training(finished.trainer, bench.run(interrupted))


def test_log_has_one_json_line_a_step(finished: Finished) -> None:
    lines = [json.loads(line) for line in (finished.whole / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    for line in lines:
        assert line.keys() == {"step", "loss", "accuracy", "images", "images_per_second"}
        assert line["loss"] > 0
        assert 0 <= line["accuracy"] <= 100
        assert line["images"] == 12


def test_finished_run_keeps_its_state_until_it_is_discarded(
    bench: Bench, finished: Finished, tmp_path: Path
) -> None:
    """Killed before its backbone was written, it is there at once; then a run starts anew."""
    shutil.copytree(finished.whole, tmp_path, dirs_exist_ok=True)
    for _ in range(2):
        assert_same_training(finished.trainer, bench.run(tmp_path))
        assert len(log_of(tmp_path)) == 8
        discard_state(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_half_a_log_line_of_a_killed_run_is_dropped(
    bench: Bench, finished: Finished, interrupted: Path
) -> None:
    with (interrupted / LOG).open("a") as log:
        log.write('{"step": 5, "lo')
    bench.run(interrupted)
    assert log_of(finished.whole) == log_of(interrupted)


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.1},
        {"seed": 1},
        {"augmentation": None},
        {"augmentation": replace(AUGMENTATION, noise=0.2)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_resume_with_another_configuration_is_refused(
    bench: Bench, interrupted: Path, changed: dict
) -> None:
    with pytest.raises(ValueError, match=r"saved with another pretraining .* delete it"):
        bench.run(interrupted, replace(CONFIG, **changed))


def test_resume_with_another_network_is_refused(
    bench: Bench, interrupted: Path, make_network
) -> None:
    bench.make_network = lambda domains: make_network(domains, hidden=7)
    with pytest.raises(ValueError, match=r"saved with another network \(hidden \d+, now 7\);"):
        bench.run(interrupted)


def test_resume_from_another_first_xi_is_refused(
    bench: Bench, interrupted: Path, make_network
) -> None:
    bench.make_network = lambda domains: make_network(domains, seed=7)
    with pytest.raises(ValueError, match="saved with another first_xi"):
        bench.run(interrupted)


def test_resume_with_other_parts_of_a_source_is_refused(
    bench: Bench, interrupted: Path, make_network
) -> None:

    def with_own_heads(domains: tuple[str, ...]) -> CompositionalNetwork:
        network = make_network(("a", "b"))
        network.own_heads(network.domains["a"], ("one", "two", "three", "four"))
        return network

    bench.make_network = with_own_heads
    with pytest.raises(ValueError, match="saved with another set of own parts"):
        bench.run(interrupted)


def test_resume_with_other_sources_is_refused(bench: Bench, interrupted: Path, make_images) -> None:
    bench.sources = bench.sources | {"a": make_images(11)}
    with pytest.raises(ValueError, match="saved with another sources"):
        bench.run(interrupted)


def test_resume_with_other_pixels_labels_or_names_of_classes_is_refused(
    bench: Bench, interrupted: Path
) -> None:
    """As many images each: content counts (AI4OPT/ML4OPF #26, raharth/PyMatch #5)."""
    given = bench.sources["a"]
    for other in (
        ImageSet(given.images[::-1].copy(), given.labels),
        ImageSet(given.images, (given.labels + 1) % 3),
    ):
        bench.sources = bench.sources | {"a": other}
        with pytest.raises(ValueError, match=r"saved with another content of sources \(a "):
            bench.run(interrupted)
    bench.sources = bench.sources | {"a": given}
    network = bench.make_network(domains=())
    with pytest.raises(ValueError, match="saved with another names of classes"):
        run_training(network, bench.sources, CONFIG, interrupted, classes=("x", "y", "z"))


def test_a_run_that_goes_on_says_so_where_progress_is_shown(
    bench: Bench, finished: Finished, tmp_path: Path, capsys
) -> None:
    shutil.copytree(finished.parts, tmp_path / "a")
    shutil.copytree(finished.parts, tmp_path / "b")
    for folder, shown in (("a", True), ("b", False)):
        network = bench.make_network(domains=())
        with show_progress(shown):
            run_training(network, bench.sources, CONFIG, tmp_path / folder)
    assert capsys.readouterr() == ("", "goes on at step 3 of 8\n")
    with pytest.raises(ValueError, match="save_every must be at least 1, got 0"):
        run_training(network, bench.sources, CONFIG, tmp_path / "c", save_every=0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("step", 9, "step is 9, expected a whole number from 0 to 8"),
        ("step", 1.5, "step is 1.5"),
        ("content of sources", None, "content of sources is missing"),
        ("optimizer.0.exp_avg", torch.zeros(2), "of another shape: optimizer.0.exp_avg"),
        ("optimizer.0.exp_avg_sq", None, "missing: optimizer.0.exp_avg_sq"),
        ("optimizer.99.step", torch.zeros(()), "unexpected: optimizer.99.step"),
        ("network.heads.0.bias", torch.zeros(3).half(), "of another type: network.heads.0.bias"),
    ],
)
def test_a_forged_state_is_refused_in_one_line(
    bench: Bench, interrupted: Path, place: str, value: object, said: str
) -> None:
    tensors, metadata = load_tensors(interrupted / STATE, "training state")
    held: dict[str, Any] = tensors if "." in place else metadata
    held.pop(place, None)
    held |= {} if value is None else {place: value}
    save_tensors(interrupted / STATE, tensors, metadata)
    with pytest.raises(ValueError, match=said) as refused:
        bench.run(interrupted)
    assert "\n" not in str(refused.value)


def test_a_training_that_diverged_is_not_saved(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not finite; the training diverged"):
        bench.run(tmp_path, replace(CONFIG, learning_rate=1e30))


def test_resume_with_sources_in_another_order_is_refused(bench: Bench, interrupted: Path) -> None:
    """Domains and samplers go by position: one would go on with another's xi."""
    bench.sources = dict(reversed(bench.sources.items()))
    with pytest.raises(ValueError, match="saved with another order of sources"):
        bench.run(interrupted)


def test_damaged_state_is_refused(bench: Bench, interrupted: Path) -> None:
    state = interrupted / STATE
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        bench.run(interrupted)

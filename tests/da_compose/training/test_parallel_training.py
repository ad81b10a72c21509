"""Pretraining by two processes, a share of every batch each, against one with whole batches."""

import io
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from da_compose import CompositionalNetwork, Network, NetworkConfig, progress
from da_compose.images import ImageSet
from da_compose.model.domain import POOLED
from da_compose.parallel import rank
from da_compose.training import run as training_run
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.regularizers import Regularization
from da_compose.training.trainer import PretrainConfig, Pretrainer
from tests.da_compose.processes import Together

Arrays = dict[str, np.ndarray]


class DoublePretrainer(Pretrainer):
    """Double precision: single leaves biases before batch norms to noise, of Adam's full step."""

    def domain_batch(self, name: str, step: int) -> tuple[Tensor, Tensor]:
        inputs, labels = super().domain_batch(name, step)
        return inputs.to(next(self.network.parameters()).dtype), labels


@dataclass(frozen=True)
class Case:
    """A small pretraining that every process builds anew."""

    network: NetworkConfig
    sources: dict[str, ImageSet]
    config: PretrainConfig
    dtype: torch.dtype = torch.float64
    own_parts: bool = False  # batch norm and logits a source

    def build(self, seed: int = 0) -> CompositionalNetwork:
        network = CompositionalNetwork(self.network, seed=seed)
        for name in (*self.sources, POOLED) if self.config.pooled else self.sources:
            domain = network.new_domain(name)
            if self.own_parts:
                network.own_batch_norm(domain)
                network.own_heads(domain, ("zero", "one", "two"), seed)
            network.domains.add(domain)
        return network.to(self.dtype)


def arrays(network: Network) -> Arrays:
    """Weights, mixtures and statistics."""
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def train(case: Case) -> tuple[list[dict[str, float]], Arrays]:
    """Figures of all steps, and the finished network; the processes start differently."""
    trainer = DoublePretrainer(case.build(seed=rank()), case.sources, case.config)
    figures = [trainer.step() for _ in range(case.config.steps)]
    trainer.finish()
    return figures, arrays(trainer.network)


@pytest.fixture
def case(make_config, make_images) -> Case:
    sources = {
        "a": make_images(20),
        "b": make_images(13, seed=1, colour=True),
        "c": make_images(5, seed=2),
    }
    config = PretrainConfig(steps=4, batch_size=8, learning_rate=0.01, statistics_batches=2)
    return Case(make_config(), sources, config)


STRONG = AugmentationConfig(noise=0.1, blur=0.5, thickness=0.5, contrast=0.2)
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pooled": {"pooled": True, "batch_size": 10, "clip": 0.01},  # 3 of each source: 5 and 4
    "strong": {"augmentation": STRONG, "pooled": True, "batch_size": 10},
    "one image each": {"batch_size": 2},
}


def assert_close(found: Arrays, expected: Arrays, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, tolerance, tolerance, err_msg=name)


def assert_same_figures(found: list, expected: list, tolerance: float) -> None:
    assert len(found) == len(expected)
    for mine, wanted in zip(found, expected, strict=True):
        assert mine == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize("change", CHANGES)
def test_two_processes_train_as_one(together: Together, case: Case, change: str) -> None:
    """Losses, weights and final statistics; pixels are augmented in single precision."""
    case = replace(case, config=replace(case.config, **CHANGES[change]))
    tolerance = 1e-4 if case.config.augmentation else 1e-9
    figures, network = train(case)
    (first_figures, first), (second_figures, second) = together(train, case)
    assert_same_figures(first_figures, figures, tolerance)
    assert_close(first, network, tolerance)
    assert first_figures == second_figures
    assert all((first[name] == second[name]).all() for name in first)


def test_unshared_network_trains_as_in_one_process(together: Together, case: Case) -> None:
    case = replace(case, network=case.network.unshared())
    figures, network = train(case)
    first, _ = together(train, case)
    assert_same_figures(first[0], figures, 1e-9)
    assert_close(first[1], network, 1e-9)


def test_a_few_tasks_a_step_train_as_in_one_process(together: Together, case: Case) -> None:
    """Also where some parameters have no gradient in a step, and mixtures are penalized."""
    penalties = Regularization(min_entropy=0.3, template_attraction=0.2)
    config = replace(case.config, domains_a_step=1, regularization=penalties)
    case = replace(case, config=config, own_parts=True)
    figures, network = train(case)
    first, _ = together(train, case)
    assert_same_figures(first[0], figures, 1e-9)
    assert_close(first[1], network, 1e-9)


def test_losses_in_single_precision_are_one_processes(together: Together, case: Case) -> None:
    case = replace(case, dtype=torch.float32)
    first, second = together(train, case)
    assert_same_figures(first[0], train(case)[0], 1e-3)
    assert all((first[1][name] == second[1][name]).all() for name in first[1])


class Interrupted(Exception):
    """In place of a keyboard interrupt."""


def run(case: Case, folder: Path, until: int | None = None) -> tuple[Arrays, list[str]]:
    """The network of a run in a folder, and what was said; interrupted before step `until`."""

    class Trainer(DoublePretrainer):
        def step(self) -> dict[str, float]:
            if self.step_number == until:
                raise Interrupted
            return super().step()

    said = io.StringIO()
    network = case.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "Pretrainer", Trainer)
        patch.setattr(progress, "FIRST_LINE", 0.0)
        try:
            with redirect_stderr(said), progress.show_progress():
                training_run.run_training(
                    network, case.sources, case.config, folder, save_every=2
                )  # fmt: skip
        except Interrupted:
            assert until is not None
    return arrays(network), said.getvalue().splitlines()


def run_in_own_folder(case: Case, folder: Path) -> list[str]:
    return run(case, folder / str(rank()))[1]


def test_process_0_alone_writes_and_speaks(
    together: Together, case: Case, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    first, second = together(run_in_own_folder, case, tmp_path / "run")
    assert first and second == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["0"]
    log = (tmp_path / "run" / "0" / training_run.LOG).read_text().splitlines()
    assert len(log) == case.config.steps
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("first", [1, 2])
def test_run_goes_on_with_another_number_of_processes(
    together: Together, case: Case, tmp_path: Path, first: int
) -> None:
    whole, _ = run(case, tmp_path / "whole")
    if first == 1:
        run(case, tmp_path / "parts", 3)
        resumed = together(run, case, tmp_path / "parts")[1][0]
    else:
        together(run, case, tmp_path / "parts", 3)
        resumed, _ = run(case, tmp_path / "parts")
    assert_close(resumed, whole, 1e-9)
    logs = [tmp_path / folder / training_run.LOG for folder in ("whole", "parts")]
    assert len({len(log.read_text().splitlines()) for log in logs}) == 1


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shares_are_every_nth_image_of_the_whole_batch(
    case: Case, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Of 3 sources' 10 images each in `pooled`, too."""
    config = replace(case.config, pooled=True, batch_size=30, augmentation=STRONG)
    trainer = Pretrainer(case.build(), case.sources, config)
    whole = {name: trainer.domain_batch(name, 1) for name in trainer.domain_names()}
    monkeypatch.setattr("da_compose.training.trainer.world", lambda: processes)
    for number in range(processes):
        monkeypatch.setattr("da_compose.training.trainer.rank", lambda number=number: number)
        for name, (inputs, labels) in whole.items():
            own_inputs, own_labels = trainer.domain_batch(name, 1)
            torch.testing.assert_close(own_inputs, inputs[number::processes], rtol=0, atol=1e-5)
            assert own_labels.equal(labels[number::processes])


@pytest.mark.parametrize(
    ("processes", "changes", "message"),
    [
        (2, {"batch_size": 7}, "batch_size 7 cannot be divided .* take a multiple of 2, or start"),
        (4, {"batch_size": 2}, "batch_size 2 cannot be divided .* take a multiple of 4, or start"),
        (4, {"batch_size": 8, "pooled": True}, "'pooled' holds 2 .* start 2 .* batch_size of 12"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(
    case: Case, monkeypatch: pytest.MonkeyPatch, processes: int, changes: dict, message: str
) -> None:
    monkeypatch.setattr("da_compose.training.trainer.world", lambda: processes)
    with pytest.raises(ValueError, match=message):
        Pretrainer(case.build(), case.sources, replace(case.config, **changes))

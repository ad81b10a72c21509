from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.plan import Profile
from benchmarks.speed import compare, gpu
from benchmarks.speed.benchmark import bench_speed
from benchmarks.speed.setting import Setting
from da_compose import Backbone
from tests.adapters.conftest import build_backbone, random_images


@dataclass(frozen=True)
class TinySetting:
    """What the suite asks of a setting, on CPU."""

    device: str = "cpu"
    profile: Profile = PROFILES["quick"]
    target = SimpleNamespace(train=SimpleNamespace(images=random_images(60)))
    domains = None

    def backbone(self, network: str) -> Backbone:
        return build_backbone()

    def job(self, network: str) -> str:
        return self.profile.name


def test_without_a_gpu_nothing_is_trained_for_the_suite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said: list[str] = []
    bench_speed(cast(Setting, None), ("gpu",), tmp_path, said.append)
    assert said == ["note: the suite gpu is left out, there is no CUDA device"]
    assert not [*tmp_path.iterdir()]


def test_the_suite_runs_on_any_device_but_for_the_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[tuple[str, Path]] = []
    single = partial(gpu.step_of, cuda_graph=False)
    monkeypatch.setattr(gpu, "step_of", lambda setting, name, cuda_graph: single(setting, name))
    monkeypatch.setattr(
        gpu, "prepare_backbone", lambda job, domains, folder, device: trained.append((job, folder))
    )
    monkeypatch.setattr(
        compare,
        "alternate",
        lambda ours, other, _, device: (compare.timed(ours, device), compare.timed(other, device)),
    )
    monkeypatch.setattr(gpu, "LEAST_EAGER", 0)
    monkeypatch.setattr(gpu, "SIDE", 64)
    monkeypatch.setattr(gpu, "MANY", 2)
    monkeypatch.setattr(gpu, "MANY_STEPS", 1)
    monkeypatch.setattr(gpu, "adapt", partial(gpu.adapt, steps=2))
    rows = {row.name: row for row in gpu.compare_device(cast(Setting, TinySetting()))}
    assert [name for name in rows if name.startswith("gpu/step/")] == [
        "gpu/step/adversarial",
        "gpu/step/moment_matching",
        "gpu/step/classifier_discrepancy",
        "gpu/step/information_maximization",
        "gpu/step/consensus",
        "gpu/step/tent",
        "gpu/step/shot",
    ]
    floor = rows["gpu/floor/information_maximization"]
    assert 0 < floor.ratio == floor.other / floor.ours
    assert rows["gpu/many/2 targets"].unit == "targets/s"
    assert rows["gpu/adapt"].ratio == 3.0 / rows["gpu/adapt"].ours
    assert rows["gpu/pretrain"].other == 60.0
    ((job, folder),) = trained
    assert job == "full" and not folder.exists()


def test_operations_of_a_depthwise_convolution_and_its_gradients_are_counted() -> None:
    inputs = torch.randn(2, 6, 5, 5, requires_grad=True)
    kernel = torch.randn(6, 1, 3, 3, requires_grad=True)

    def step() -> None:
        outputs = torch.nn.functional.conv2d(inputs, kernel, padding=1, groups=6)
        torch.autograd.grad(outputs.sum(), (inputs, kernel))

    assert gpu.operations(step) == 3 * (2 * 2 * 5 * 5 * 6 * 9)


def test_operations_of_a_matrix_product_are_counted() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert gpu.operations(lambda: left @ right) == 2 * 3 * 5 * 7

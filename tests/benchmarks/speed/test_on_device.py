import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from click.testing import CliRunner

from adapters.strategies import STRATEGIES
from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.plan import Profile
from benchmarks.speed import gpu, on_device
from benchmarks.speed.benchmark import bench_speed
from benchmarks.speed.gpu import REHEARSED
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
    monkeypatch.setattr(
        on_device,
        "prepare_backbone",
        lambda job, domains, folder, device: trained.append((job, folder)),
    )
    found = on_device.compare_device(cast(Setting, TinySetting()), REHEARSED)
    rows = {row.name: row for row in found}
    assert [name for name in rows if name.startswith("gpu/step/")] == [
        f"gpu/step/{strategy}{ending}" for strategy in STRATEGIES for ending in ("", "/bfloat16")
    ]
    floor = rows["gpu/floor/information_maximization"]
    assert 0 < floor.ratio == floor.other / floor.ours
    assert rows["gpu/many/2 targets"].unit == "targets/s"
    assert rows["gpu/adapt"].ratio == 3.0 / rows["gpu/adapt"].ours
    assert rows["gpu/pretrain"].other == 60.0
    ((job, folder),) = trained
    assert job == REHEARSED.profile.name and not folder.exists()


def test_a_stage_that_fails_is_named_and_keeps_no_other_from_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(session: gpu.Session) -> None:
        session.run("benchmarks.no_such_module")

    def late(session: gpu.Session) -> None:
        replace(session, ends=time.monotonic() + 0.1).run("timeit", "-n", "1", "while True: pass")

    def measured(session: gpu.Session) -> None:
        (session.out / "rows").write_text(session.device)

    monkeypatch.setattr(gpu, "STAGES", (missing, late, measured))
    ended = CliRunner().invoke(gpu.main, ["--rehearse", "--out", str(tmp_path / "out")])
    assert "== missing: ClickException: ended with 1" in ended.output
    assert "== late: ClickException: cut off: the time is up" in ended.output
    assert ended.exit_code == 1 and "not whole: missing, late" in ended.output
    assert (tmp_path / "out" / "rows").read_text() == "cpu"


def test_what_a_machine_without_network_lacks_is_packed(tmp_path: Path) -> None:
    data, packed = tmp_path / "data", tmp_path / "packed"
    for path in ("digits/usps.npz", *(f"pictures/pacs/sketch/dog/{n:03}.jpg" for n in range(121))):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(b"x")
    arguments = ["--pack", str(packed), "--data", str(data)]
    CliRunner().invoke(gpu.main, arguments, catch_exceptions=False)
    assert (packed / "digits" / "usps.npz").exists()
    assert len([*packed.glob("pictures/pacs/sketch/dog/*.jpg")]) == gpu.PER_CLASS
    assert {*gpu.PACKED} <= {path.name for path in (packed / "packages").iterdir()}


def test_operations_of_a_depthwise_convolution_and_its_gradients_are_counted() -> None:
    inputs = torch.randn(2, 6, 5, 5, requires_grad=True)
    kernel = torch.randn(6, 1, 3, 3, requires_grad=True)

    def step() -> None:
        outputs = torch.nn.functional.conv2d(inputs, kernel, padding=1, groups=6)
        torch.autograd.grad(outputs.sum(), (inputs, kernel))

    assert on_device.operations(step) == 3 * (2 * 2 * 5 * 5 * 6 * 9)


def test_operations_of_a_matrix_product_are_counted() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert on_device.operations(lambda: left @ right) == 2 * 3 * 5 * 7

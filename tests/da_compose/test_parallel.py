"""What processes of one group share: batch norm, files that are prepared once, devices."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from da_compose.model.domain import Domain
from da_compose.model.mixture import FixedSignature
from da_compose.model.norms import NormCursor
from da_compose.parallel import (
    process_0_first,
    process_group,
    rank,
    sum_figures,
    synchronized_batch_norm,
    world,
)
from tests.da_compose.processes import Together

Arrays = dict[str, np.ndarray]


def normalized(features: Tensor, synchronized: bool) -> Arrays:
    """Output, running statistics and gradients of batch norm, of a loss that is uneven in it."""
    features = features.clone().requires_grad_()
    channels = features.shape[1]
    gamma, beta = (
        torch.linspace(low, low + 1, channels, dtype=features.dtype, requires_grad=True)
        for low in (0.5, -1.0)
    )
    mean, var = (torch.linspace(1, 2, channels, dtype=features.dtype) for _ in range(2))
    if synchronized:
        output = synchronized_batch_norm(features, mean, var, gamma, beta, momentum=0.3, eps=1e-5)
    else:
        output = functional.batch_norm(
            features, mean, var, gamma, beta, training=True, momentum=0.3, eps=1e-5
        )
    found = {"output": output.detach().clone(), "mean": mean, "var": var}
    loss = (output.relu_() ** 2).sum() + (output * features.detach().sin()).sum()
    gradients = torch.autograd.grad(loss, (features, gamma, beta))
    found |= dict(zip(("features", "gamma", "beta"), gradients, strict=True))
    return {name: value.detach().numpy() for name, value in found.items()}


def normalized_share(whole: np.ndarray, at: int) -> Arrays:
    features = torch.from_numpy(whole)
    return normalized(features[:at] if rank() == 0 else features[at:], synchronized=True)


@pytest.mark.parametrize(
    ("shape", "at"), [((8, 3, 4, 5), 4), ((8, 3, 4, 5), 1), ((8, 3), 2)], ids=str
)
def test_batch_norm_is_that_of_the_whole_batch(
    together: Together, shape: tuple[int, ...], at: int
) -> None:
    """Means far from zero: sums of squares would lose all digits of the variance."""
    whole = np.random.default_rng(0).normal(1e5, [[1.0], [1e-2], [3.0]], (8, 3, 20))
    whole = whole[..., :1].reshape(shape) if len(shape) == 2 else whole.reshape(shape)
    expected = normalized(torch.from_numpy(whole), synchronized=False)
    first, second = together(normalized_share, whole, at)
    for name in ("output", "features"):
        found = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(found, expected[name], 1e-6, 1e-6, err_msg=name)
    for name in ("mean", "var"):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], expected[name], 1e-9, err_msg=name)
    for name in ("gamma", "beta"):
        np.testing.assert_allclose(first[name] + second[name], expected[name], 1e-6, err_msg=name)


def domain_norms(synchronized: bool) -> list[float]:
    """Stored mean after a batch of this process's number, in training and in evaluation."""
    domain = Domain("a", FixedSignature((0,), 1), 1)
    domain.synchronized, domain.momentum = synchronized, 1.0
    features = torch.full((3, 1), float(rank()))
    means = []
    for mode in (True, False):
        NormCursor(domain.use_batch_statistics(mode)).norm(features, torch.ones(1), torch.zeros(1))
        means.append(float(domain.mean))
        domain.mean.zero_()
    return means


def test_only_synchronized_domains_in_training_share_batches(together: Together) -> None:
    """Processes may well adapt to domains of their own, one each."""
    assert together(domain_norms, True) == [[0.5, 0], [0.5, 0]]
    assert together(domain_norms, False) == [[0, 0], [1, 0]]


def prepare(file: Path) -> str:
    with process_0_first():
        if rank() == 0:
            time.sleep(0.3)
            file.write_text("prepared")
        return file.read_text()


def fail_first() -> str:
    try:
        with process_0_first():
            raise ValueError(f"no data in process {rank()}")
    except ValueError as error:
        return str(error)


def test_process_0_prepares_what_the_others_find(together: Together, tmp_path: Path) -> None:
    assert together(prepare, tmp_path / "data") == ["prepared", "prepared"]
    assert together(fail_first) == ["no data in process 0", "no data in process 1"]


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cuda:1") as device, process_0_first():
        assert (device, world(), rank()) == ("cuda:1", 1, 0)
        assert sum_figures(1.5, 2, device=torch.device("cpu")) == [1.5, 2]


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:1", "cpu or cuda, a GPU each, got 'cuda:1'"), ("cuda", "start 1 processes, or")],
)
def test_processes_without_a_gpu_each_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=message), process_group(device):
        pytest.fail("joined")

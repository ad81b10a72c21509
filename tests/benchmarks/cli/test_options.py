"""Options that cannot be right, refused before any work."""

import os
import sys
from pathlib import Path

import pytest

from da_compose import DomainModel
from data_prep.caches import CACHE_VARIABLE
from tests.benchmarks.calls import commands_of, outputs, refuse, succeed

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors


@pytest.mark.parametrize("number", ["-1", "0", "many", "1.5"])
def test_steps_that_are_no_number_of_steps_are_refused(user_files, bench_digits, number):
    before = user_files.names
    for name, arguments in outputs(user_files).items():
        right = arguments(user_files.folder / "run" / "out.safetensors")
        assert "steps" in refuse(*right, "--steps", number), name
    for option in ("--pretrain-steps", "--adapt-steps"):
        assert "steps" in refuse(*bench_digits(option, number))
    assert user_files.names == before


@pytest.mark.parametrize("seed", ["-1", str(2**64), "one"])
def test_a_seed_that_some_generator_does_not_take_is_refused(user_files, bench_digits, seed):
    before = user_files.names
    for arguments in outputs(user_files).values():
        right = arguments(user_files.folder / "run" / "out.safetensors")
        assert "seed" in refuse(*right, "--seed", seed)
    assert "seed" in refuse(*bench_digits("--seed", seed))
    assert user_files.names == before


@pytest.mark.parametrize("processes", ["0", "-1"])
def test_a_benchmark_needs_a_process(bench_digits, processes):
    assert "--processes" in refuse(*bench_digits("--processes", processes))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "meta"])
def test_an_unknown_device_is_refused(user_files, bench_digits, device):
    before = user_files.names
    for arguments in outputs(user_files).values():
        right = arguments(user_files.folder / "run" / "out.safetensors")
        assert "--device cpu" in refuse(*right, "--device", device)
    assert "--device cpu" in refuse(*bench_digits("--device", device))
    assert user_files.names == before


def test_an_unknown_domain_is_refused_with_the_known_ones(user_files, bench_digits):
    data = ("--data", user_files.data_root)
    out = user_files.folder / "run" / "out.safetensors"
    before = user_files.names
    assert "usps" in refuse("prepare", "upsp", *data)
    assert "usps" in refuse("pretrain", out, "--source", "upsp", *data)
    assert "usps" in refuse("pretrain", out, "--target", "upsp", *data)
    assert "usps" in refuse(*bench_digits("--target", "upsp"))
    evaluate = ("evaluate", "--backbone", user_files.backbone, *data)
    assert "usps" in refuse(*evaluate, "--domain", "upsp")
    assert user_files.names == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--domain", "upsp", "--out", "out.pt2"), "there are: mnist, meter"),
        (("--domain", "mnist", "--adapter", "a.safetensors", "--out", "out.pt2"), "leave one"),
        (("--out", "out.pth"), "out.pth must end in .onnx or .pt2"),
        (("--out", "out"), "out must end in .onnx or .pt2"),
        (("--out", "pictures"), "pictures must end in .onnx or .pt2"),
        (("--out", "folder.pt2"), "folder.pt2 is a folder"),
        (("--out", "backbone.safetensors/out.pt2"), "backbone.safetensors is a file"),
        (("--out", "out.pt2", "--int8", "pictures"), "must end in .onnx"),
        ((), "Missing option '--out'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_careless_export_is_refused_before_any_work(user_files, monkeypatch, options, expected):
    (user_files.folder / "folder.pt2").mkdir()
    monkeypatch.setattr(DomainModel, "export", lambda *_: pytest.fail("worked for nothing"))
    monkeypatch.chdir(user_files.folder)
    before = user_files.names
    assert expected in refuse("export", "--backbone", user_files.backbone, *options)
    assert user_files.names == before


def test_an_export_without_its_packages_names_the_remedy(user_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    options = ("--backbone", user_files.backbone, "--out", user_files.folder / "out.onnx")
    before = user_files.names
    assert "pip install 'da-compose[export]'" in refuse("export", *options)
    assert user_files.names == before


def test_an_export_that_differs_from_pytorch_is_not_kept(user_files, monkeypatch):
    monkeypatch.setattr("da_compose.storage.export.TOLERANCE", -1.0)
    before = user_files.names
    assert "differ from PyTorch's" in refuse(*commands_of(user_files)["export"])
    assert user_files.names == before


def test_a_target_among_the_sources_is_refused(user_files):
    out = user_files.folder / "out.safetensors"
    options = ("--data", user_files.data_root, "--steps", 1, "--source", "mnist")
    assert "mnist" in refuse("pretrain", out, *options, "--target", "mnist")
    assert not out.exists()


def test_an_unknown_start_or_name_of_a_domain_is_refused(user_files):
    before = user_files.names
    right = commands_of(user_files)["adapt"]
    assert "choose from mean, nearest, mnist, meter" in refuse(*right, "--start", "usps")
    assert "domain name" in refuse(*right, "--name", "two words")
    assert user_files.names == before


def test_prepared_data_goes_to_the_cache_that_is_named(data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = os.environ[CACHE_VARIABLE]
    succeed("prepare", "usps", "--data", data_root, "--cache", "here")
    (folder,) = (tmp_path / "here" / "prepared").iterdir()
    assert folder.name.startswith("usps-")
    assert os.environ[CACHE_VARIABLE] == before and not Path(before).exists()
    (tmp_path / "file").touch()
    refused = refuse("prepare", "usps", "--data", data_root, "--cache", "file")
    assert f"{tmp_path / 'file'} is none" in refused

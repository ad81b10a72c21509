from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from da_compose import files
from da_compose.files import load_metadata, load_tensors, replacing, save_tensors


def test_tensors_and_metadata_round_trip(tmp_path: Path) -> None:
    tensors = {
        "transposed": torch.randn(3, 5).T,
        "half": torch.randn(4).half(),
        "whole": torch.arange(3),
        "scalar": torch.tensor(2.0),
        "learned": torch.nn.Parameter(torch.randn(2)),
        "empty": torch.zeros(0, 3),
    }
    metadata = {"kind": "test", "names": ["b", "a"], "ü": {"x": 1.5, "none": None}}
    save_tensors(tmp_path / "file", tensors, metadata)
    loaded, found = load_tensors(tmp_path / "file", "test")
    assert found == metadata
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].equal(value)
        assert loaded[name].dtype == value.dtype


def test_metadata_is_read_alone(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", {"a": torch.ones(2)}, {"kind": "test", "names": ["b"]})
    assert load_metadata(tmp_path / "file", "test") == {"kind": "test", "names": ["b"]}
    with pytest.raises(ValueError, match="holds a test, expected a other"):
        load_metadata(tmp_path / "file", "other")


def test_one_of_several_kinds_is_accepted(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", {}, {"kind": "b"})
    assert load_tensors(tmp_path / "file", "a", "b") == ({}, {"kind": "b"})
    with pytest.raises(ValueError, match="holds a b, expected a a or c"):
        load_tensors(tmp_path / "file", "a", "c")


def test_a_write_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SafetensorError("I/O error")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match=r"file cannot be written \(I/O error\); is the disk full"):
        save_tensors(tmp_path / "file", {}, {"kind": "test"})
    assert not [*tmp_path.iterdir()]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x" / "y" / "file", {}, {"kind": "test"})
    assert (tmp_path / "x" / "y" / "file").is_file()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files, "save_file", full_disk)
    with pytest.raises(OSError, match="disk full"):
        save_tensors(tmp_path / "file", {"x": torch.zeros(1)}, {"kind": "test"})
    assert not list(tmp_path.iterdir())


def test_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # the same disk: replacing is one step
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{}", b"not safetensors" * 100], ids=len)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_tensors(tmp_path / "file", "test")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no test or other file at .*nowhere"):
        load_tensors(tmp_path / "nowhere", "test", "other")

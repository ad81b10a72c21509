import os
from errno import ENOSPC
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from da_compose.storage import files
from da_compose.storage.files import (
    check_replaceable,
    load_metadata,
    load_tensors,
    replacing,
    save_tensors,
)
from tests.forks import ended


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
    with pytest.raises(ValueError, match="holds a test, expected an other"):
        load_metadata(tmp_path / "file", "other")


def test_one_of_several_kinds_is_accepted(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", {}, {"kind": "b"})
    assert load_tensors(tmp_path / "file", "a", "b") == ({}, {"kind": "b"})
    with pytest.raises(ValueError, match="holds a b, expected an a or c"):
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


def half_saved(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        os._exit(9)


def test_what_a_killed_save_left_is_swept_and_nothing_that_lives(tmp_path: Path) -> None:
    path, long = tmp_path / "file", tmp_path / ("é" * 127)
    for killed in (path, long):
        assert ended(partial(half_saved, killed)) == 9
    assert len(list(tmp_path.iterdir())) == 2 and not path.exists()
    (tmp_path / ".other.0123abcd").touch()
    with replacing(path) as living:
        living.write_text("new")
        for again in (path, long):
            with replacing(again) as temporary:
                temporary.write_text("other")
        assert living.exists()
    assert path.read_text() == "new" and long.read_text() == "other"
    assert {*tmp_path.iterdir()} == {path, long, tmp_path / ".other.0123abcd"}


def test_a_name_too_long_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        check_replaceable(tmp_path / ("n" * 256))


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device.*table\.md'"),
        replacing(tmp_path / "table.md"),
    ):
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "store" / "file", tmp_path / "link"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_new_files_heed_the_umask(tmp_path: Path) -> None:
    kept = os.umask(0o027)
    try:
        save_tensors(tmp_path / "file", {}, {"kind": "test"})
    finally:
        os.umask(kept)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(OSError, match=r"expected the path of a file"), replacing(path):
        pass
    assert not path.is_file()
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="x is read-only"), replacing(path):
        pass
    assert path.read_text() == "old"


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensors, metadata = {"a": torch.randn(3), "b": torch.arange(2)}, {"kind": "test", "format": 2}
    save_tensors(path, tensors, metadata)
    whole = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            loaded, found = load_tensors(path, "test")
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
            continue
        assert all(value.equal(tensors[name]) for name, value in loaded.items())
        assert found == metadata
    assert noticed > 0.9 * 8 * len(whole)


def test_a_file_of_before_checksums_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "file", {"da_compose": '{"kind": "test"}'})
    with pytest.warns(UserWarning, match=r"file has no checksum: it is of an early version"):
        assert load_tensors(tmp_path / "file", "test")[1] == {"kind": "test"}
    later = '{"kind": "test", "format": 2}'
    save_file({"a": torch.ones(1)}, tmp_path / "file", {"da_compose": later})
    with pytest.raises(ValueError, match="its checksum differs"):
        load_tensors(tmp_path / "file", "test")


def test_a_name_that_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"nu\xff")
    with pytest.raises(ValueError, match="not UTF-8, which safetensors needs; rename it"):
        save_tensors(path, {}, {"kind": "test"})
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_tensors(path, "test")


def test_metadata_that_are_no_object_are_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "file", {"da_compose": "[]"})
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_tensors(tmp_path / "file", "test")


@pytest.mark.parametrize("content", [b"", b"{}", b"not safetensors" * 100], ids=len)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_tensors(tmp_path / "file", "test")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no test or other file at .*nowhere"):
        load_tensors(tmp_path / "nowhere", "test", "other")

"""Where data is looked for, and downloads that are whole or not there at all."""

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torchvision

from data_prep import DomainUnavailable, load_digit_domain, locations


@pytest.fixture
def network(digit_files, monkeypatch: pytest.MonkeyPatch):
    """torchvision's USPS replaced: each call takes the next of `answers`, or succeeds."""
    files = digit_files.write("usps") / "digits" / "usps"
    content = {path.name: path.read_bytes() for path in files.iterdir()}
    digit_files.write()
    for path in files.iterdir():
        path.unlink()

    class Network:
        def __init__(self) -> None:
            self.answers: list[str] = []
            self.calls = 0
            self.fetched: list[str] = []
            self.timeouts: set[float | None] = set()

        def usps(self, root: str, train: bool, download: bool) -> None:
            assert download
            self.calls += 1
            self.timeouts.add(socket.getdefaulttimeout())
            name = "usps.bz2" if train else "usps.t.bz2"
            file = Path(root) / name
            if file.exists() and file.read_bytes() == content[name]:
                return  # torchvision's checksum
            answer = self.answers.pop(0) if self.answers else "whole"
            self.fetched.append(name)
            if answer == "ctrl-c":
                file.write_bytes(content[name][:20])
                raise KeyboardInterrupt
            if answer == "none":
                raise OSError("no route to host")
            if answer == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if answer == "broken":
                (Path(root) / name).write_bytes(content[name][:50])
                raise RuntimeError("File not found or corrupted.")
            (Path(root) / name).write_bytes(content[name])

    network = Network()
    monkeypatch.setattr(torchvision.datasets, "USPS", network.usps)
    monkeypatch.delenv(locations.OFFLINE_VARIABLE)
    return network


def downloads() -> list[Path]:
    return sorted(locations.project_data().joinpath("downloads").glob("**/*"))


def test_download_is_moved_into_place_whole_and_used_again(network, digit_files) -> None:
    domain = load_digit_domain("usps")
    assert domain.origin == "download"
    np.testing.assert_array_equal(domain.test.labels, digit_files.usps.test.labels)
    assert [path.name for path in downloads()] == ["usps", "usps.bz2", "usps.t.bz2"]
    (locations.project_data() / "downloads" / ".usps-unfinished").mkdir()  # of a killed call
    assert load_digit_domain("usps", size=16).origin == "download"
    assert len(downloads()) == 3
    assert network.calls == 2  # one for each split, none the second time
    assert network.timeouts == {locations.NETWORK_TIMEOUT} and socket.getdefaulttimeout() is None


def test_broken_download_is_tried_again(network) -> None:
    network.answers = ["broken", "whole", "broken", "whole", "whole"]
    assert load_digit_domain("usps").origin == "download"


def test_a_full_disk_is_no_missing_network(network) -> None:
    network.answers = ["full"]
    with pytest.raises(OSError, match=r"No space left on device: .*usps"):
        load_digit_domain("usps")


def test_download_that_never_succeeds_is_not_taken_for_whole(network) -> None:
    network.answers = ["broken"] * 3
    with pytest.raises(DomainUnavailable):
        load_digit_domain("usps")
    assert network.calls == locations.DOWNLOAD_ATTEMPTS
    assert [path.name for path in downloads()] == [".usps-unfinished", "usps.bz2"]
    assert load_digit_domain("usps").origin == "download"  # goes on where it stopped
    assert [path.name for path in downloads()] == ["usps", "usps.bz2", "usps.t.bz2"]


def test_interrupted_download_fetches_only_what_is_missing(network) -> None:
    network.answers = ["whole", "ctrl-c"]
    with pytest.raises(KeyboardInterrupt):
        load_digit_domain("usps")
    assert not (locations.project_data() / "downloads" / "usps").exists()
    network.fetched.clear()
    assert load_digit_domain("usps").origin == "download"
    assert network.fetched == ["usps.t.bz2"]


def test_missing_network_is_noticed_at_once_and_remembered(network, capsys) -> None:
    network.answers = ["none"] * 10
    for _ in range(3):
        with pytest.raises(DomainUnavailable):
            load_digit_domain("usps")
    assert network.calls == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_download_can_be_forbidden(network, monkeypatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv(locations.OFFLINE_VARIABLE, "1")
    with pytest.raises(DomainUnavailable):
        load_digit_domain("usps", allow_download=how != "argument")
    assert network.calls == 0


def test_files_come_before_a_download(network, digit_files) -> None:
    assert load_digit_domain("usps", data_root=digit_files.write("usps")).origin == "files"
    assert network.calls == 0


def test_process_that_comes_second_keeps_the_first_download(network) -> None:
    folder = locations.project_data() / "downloads" / "usps"

    folder.mkdir(parents=True)
    (folder / "usps.bz2").write_bytes(b"first")
    assert locations.download("usps", folder)
    assert (folder / "usps.bz2").read_bytes() == b"first"
    assert network.calls == 0


def test_explicit_root_comes_before_environment_and_project(digit_files, monkeypatch) -> None:
    root = digit_files.write("usps")
    for name in ("named", "project"):
        (root.parent / name / "digits").mkdir(parents=True)
    monkeypatch.setenv(locations.DATA_VARIABLE, str(root.parent / "named"))
    folders = [folder.parent.name for folder in locations.digit_folders(root)]
    assert folders == ["root", "project"]
    folders = [folder.parent.name for folder in locations.digit_folders(None)]
    assert folders == ["named", "project"]


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_named_root_must_exist(tmp_path: Path, monkeypatch, how: str) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setenv(locations.DATA_VARIABLE, str(missing) if how == "environment" else "")
    with pytest.raises(FileNotFoundError, match="missing") as caught:
        load_digit_domain("mnist", data_root=missing if how == "argument" else None)
    assert not isinstance(caught.value, DomainUnavailable)

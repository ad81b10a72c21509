"""What is known of DomainNet's files, and fetching tiny ones of the same names."""

import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import domainnet, fetch
from data_prep.domainnet import (
    CLASSES_126,
    DOMAINS,
    FILES,
    PublishedFile,
    describe,
    fetch_domainnet,
    unpack,
)
from tests.data_prep.web import Web, serve

PICTURES = {
    f"sketch/{name}/sketch_{number}.jpg": np.random.default_rng(number).bytes(500)
    for number, name in enumerate(("cat", "dog", "zebra"))
}
LIST = b"sketch/cat/sketch_0.jpg 0\n"


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A mirror that has the sketches, and `FILES` that fits it."""
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    served = {
        "sketch.zip": zipped(PICTURES),
        "domainnet/txt/sketch_train.txt": LIST,
        "domainnet/txt/sketch_test.txt": LIST[::-1],
    }
    for path, content in served.items():
        (tmp_path / "web" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / path).write_bytes(content)
    files = tuple(
        PublishedFile(path, len(content), hashlib.md5(content).hexdigest())
        for path, content in served.items()
    )
    monkeypatch.setattr(domainnet, "FILES", files)
    with serve(tmp_path / "web") as web:
        yield web


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pictures" / "domainnet"


def fetch_sketch(folder: Path, web: Web, **options) -> None:
    fetch_domainnet(folder, ["sketch"], base_url=web.url, **options)


WHOLE = PICTURES | {"sketch_train.txt": LIST, "sketch_test.txt": LIST[::-1]}


def test_every_domain_has_pictures_and_two_lists() -> None:
    expected = {f"{d}{end}" for d in DOMAINS for end in (".zip", "_train.txt", "_test.txt")}
    assert {file.name for file in FILES} == expected
    assert len({file.md5 for file in FILES}) == len(FILES) == 18
    assert all(file.md5 and len(file.md5) == 32 and file.size for file in FILES)


def test_subset_has_126_classes() -> None:
    assert len(set(CLASSES_126)) == len(CLASSES_126) == 126


def test_dry_run_names_files_bytes_place_and_room(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7_000_000_000))
    folder = tmp_path / "not" / "yet"
    said = describe(folder, ["sketch", "real"], base_url="http://mirror.example")
    assert "2,633,992,926 bytes  http://mirror.example/sketch.zip" in said
    assert "6,062,039,589 bytes  http://mirror.example/real.zip" in said
    assert "painting" not in said
    assert f"8,705,195,589 bytes in 6 files (8.7 GB), sizes as of 2021, to {folder}" in said
    assert "about 14.8 GB are needed; 7.0 GB are free" in said
    assert list(tmp_path.iterdir()) == []
    assert "(18.5 GB)" in describe(folder)


def test_dry_run_leaves_out_what_is_there(folder: Path) -> None:
    (folder / "sketch").mkdir(parents=True)
    (folder / "sketch_train.txt").touch()
    assert "850,581 bytes in 1 files" in describe(folder, ["sketch"])


def test_fetched_and_unpacked_without_a_trace(web: Web, folder: Path) -> None:
    fetch_sketch(folder, web)
    assert tree(folder) == WHOLE
    asked = len(web.asked)
    fetch_sketch(folder, web)
    assert len(web.asked) == asked == 3
    assert {path.name for path in folder.iterdir()} == {
        "sketch",
        "sketch_train.txt",
        "sketch_test.txt",
    }


def test_what_a_killed_unpacking_left_is_swept(web: Web, folder: Path) -> None:
    fetch_sketch(folder, web)
    (folder / ".sketch-unfinished").mkdir()
    fetch_sketch(folder, web)
    assert tree(folder) == WHOLE and not (folder / ".sketch-unfinished").exists()


def test_zip_is_kept_on_demand(web: Web, folder: Path) -> None:
    fetch_sketch(folder, web, keep_zips=True)
    assert tree(folder) == WHOLE | {"sketch.zip": zipped(PICTURES)}


def test_users_pictures_are_left_alone(web: Web, folder: Path) -> None:
    (folder / "sketch" / "mine").mkdir(parents=True)
    fetch_sketch(folder, web)
    assert [path.name for path in (folder / "sketch").iterdir()] == ["mine"]
    assert (folder / "sketch_train.txt").read_bytes() == LIST


def test_interrupted_download_goes_on(web: Web, folder: Path) -> None:
    web.break_after = [10**6, 10**6, 700, 0, 0, 0]
    with pytest.raises(fetch.FetchError, match="700 bytes are kept"):
        fetch_sketch(folder, web)
    assert not (folder / "sketch").exists()
    fetch_sketch(folder, web)
    assert tree(folder) == WHOLE
    assert web.asked[-1] == ("/sketch.zip", "bytes=700-")


@pytest.mark.parametrize("damage", ["short", "other bytes"])
def test_interrupted_unpacking_goes_on(tmp_path: Path, damage: str, monkeypatch) -> None:
    (archive := tmp_path / "sketch.zip").write_bytes(zipped(PICTURES))
    names = list(PICTURES)
    unfinished = tmp_path / ".sketch-unfinished"
    for name in names[:2]:
        (unfinished / name).parent.mkdir(parents=True)
        (unfinished / name).write_bytes(PICTURES[name])
    (unfinished / names[0]).write_bytes(b"\0" * (500 if damage == "other bytes" else 499))
    read, original = [], zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile,
        "open",
        lambda self, entry: (read.append(entry.filename), original(self, entry))[1],
    )
    unpack(archive, tmp_path / "sketch")
    assert read == [names[0], names[2]]
    assert tree(tmp_path) == PICTURES | {"sketch.zip": archive.read_bytes()}


def test_wrong_bytes_from_a_mirror_are_refused(web: Web, folder: Path) -> None:
    other = zipped(PICTURES | {"sketch/cat/sketch_0.jpg": b"\0" * 500})
    (web.folder / "sketch.zip").write_bytes(other)
    with pytest.raises(ValueError, match="expected MD5"):
        fetch_sketch(folder, web)
    assert not (folder / "sketch").exists()


def test_users_checksums_come_before_the_recorded_ones(web: Web, folder: Path) -> None:
    content = zipped(PICTURES | {"sketch/new/1.jpg": b"new"})
    (web.folder / "sketch.zip").write_bytes(content)
    checksums = folder.parent / "md5sums"
    folder.mkdir(parents=True)
    checksums.write_text(f"{hashlib.md5(content).hexdigest()} *somewhere/sketch.zip\n")
    fetch_sketch(folder, web, checksums=checksums)
    assert (folder / "sketch/new/1.jpg").read_bytes() == b"new"


def test_line_that_is_no_checksum_is_named(web: Web, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{'0' * 32}  a.zip\nb.zip\n")
    with pytest.raises(ValueError, match=r"sums, line 2: expected an MD5 and a path"):
        fetch_sketch(folder, web, checksums=tmp_path / "sums")


def test_unknown_domain_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"expected domains of DomainNet, clipart.*; got photo"):
        fetch_domainnet(folder, ["sketch", "photo"])


@pytest.mark.parametrize("name", ["../evil.jpg", "sketch/../../evil.jpg", "/tmp/evil.jpg"])
def test_zip_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (archive := tmp_path / "sketch.zip").write_bytes(zipped({**PICTURES, name: b"evil"}))
    with pytest.raises(ValueError, match="outside its folder"):
        unpack(archive, tmp_path / "sketch")
    assert list(tree(tmp_path)) == ["sketch.zip"]


def test_damaged_picture_in_a_zip_is_refused(tmp_path: Path) -> None:
    picture = next(iter(PICTURES.values()))
    damaged = zipped(PICTURES).replace(picture[:100], picture[1:101])
    (archive := tmp_path / "sketch.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"sketch\.zip cannot be unpacked: Bad CRC-32"):
        unpack(archive, tmp_path / "sketch")
    assert not (tmp_path / "sketch").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<html>", "not a zip"), (zipped({"photo/cat/1.jpg": b""}), "no files in sketch/")],
)
def test_zip_of_something_else_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (archive := tmp_path / "sketch.zip").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        unpack(archive, tmp_path / "sketch")


def test_disk_too_small_to_unpack_is_told(tmp_path: Path, monkeypatch) -> None:
    (archive := tmp_path / "sketch.zip").write_bytes(zipped(PICTURES))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_499))
    with pytest.raises(fetch.FetchError, match="1,500 bytes are needed and 1,499 are free"):
        unpack(archive, tmp_path / "sketch")
    assert not (tmp_path / "sketch").exists()

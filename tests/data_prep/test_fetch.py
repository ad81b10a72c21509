"""Fetching one file from a server that breaks off, changes its mind or lies."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep import fetch as fetching
from data_prep.fetch import FetchError, Part, fetch
from tests.data_prep.web import Web, serve

CONTENT = np.random.default_rng(0).bytes(10_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setattr(fetching, "CHUNK", 1_000)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file.zip").write_bytes(CONTENT)
    with serve(tmp_path / "web") as web:
        yield web


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "here" / "file.zip"


def ranges(web: Web) -> list[str | None]:
    return [asked for _, asked in web.asked]


def alone(path: Path) -> bool:
    return [found.name for found in path.parent.iterdir()] == [path.name]


def test_whole_file_comes_in_one_answer(web: Web, path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    fetch(
        f"{web.url}/file.zip",
        path,
        size=len(CONTENT),
        md5=MD5.upper(),
        report=lambda held, total: reports.append((held, total)),
    )
    assert path.read_bytes() == CONTENT
    assert alone(path)
    assert ranges(web) == [None]
    assert reports[-1] == (10_000, 10_000)
    assert reports == sorted(reports)


def test_file_that_is_there_is_left_alone(web: Web, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"mine")
    fetch(f"{web.url}/file.zip", path, size=len(CONTENT), md5=MD5)
    assert path.read_bytes() == b"mine"
    assert web.asked == []


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_broken_connection_goes_on_where_it_stopped(web: Web, path: Path, validator: str) -> None:
    web.etag = '"one"' if validator == "etag" else 'W/"weak"'
    web.modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    web.break_after = [3_000, 10, 5_000]
    fetch(f"{web.url}/file.zip", path, md5=MD5)
    assert path.read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=3000-", "bytes=3010-", "bytes=8010-"]


def test_next_call_goes_on_where_the_last_one_gave_up(web: Web, path: Path) -> None:
    web.break_after = [4_000, 0, 0]
    with pytest.raises(FetchError, match=r"2 attempts without a new byte; 4,000 bytes are kept"):
        fetch(f"{web.url}/file.zip", path, attempts=2)
    assert not path.exists()
    fetch(f"{web.url}/file.zip", path, md5=MD5)
    assert ranges(web)[-1] == "bytes=4000-"
    assert path.read_bytes() == CONTENT
    assert alone(path)


@pytest.mark.parametrize("lost", ["ranges", "validator"])
def test_starts_again_where_parts_cannot_be_joined(web: Web, path: Path, lost: str) -> None:
    web.break_after = [4_000]
    if lost == "ranges":
        web.ranges = False
    else:
        web.etag = None
    fetch(f"{web.url}/file.zip", path, md5=MD5)
    assert path.read_bytes() == CONTENT
    assert len(web.asked) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_file_that_changed_meanwhile_comes_anew(web: Web, path: Path, heeds_if_range: bool) -> None:
    web.break_after = [4_000, 0]
    with pytest.raises(FetchError, match="4,000 bytes are kept"):
        fetch(f"{web.url}/file.zip", path, attempts=1)
    (web.folder / "file.zip").write_bytes(changed := CONTENT[::-1])
    web.etag, web.heeds_if_range = '"two"', heeds_if_range
    fetch(f"{web.url}/file.zip", path)
    assert path.read_bytes() == changed


def test_wrong_checksum_is_refused_and_forgotten(web: Web, path: Path) -> None:
    with pytest.raises(ValueError, match=f"expected MD5 {'0' * 32}, got {MD5}"):
        fetch(f"{web.url}/file.zip", path, md5="0" * 32)
    assert not path.exists()
    fetch(f"{web.url}/file.zip", path, md5=MD5)
    assert ranges(web) == [None, None]
    assert path.read_bytes() == CONTENT


def test_other_size_is_refused_before_anything_is_fetched(web: Web, path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 9,999 bytes, the server offers 10,000"):
        fetch(f"{web.url}/file.zip", path, size=9_999)
    assert not path.exists()
    assert path.with_name("file.zip.part").stat().st_size == 0


def test_truncated_answer_without_length_is_told_by_size(web: Web, path: Path) -> None:
    web.says_length = False
    web.break_after = [2_500]
    fetch(f"{web.url}/file.zip", path, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert ranges(web) == [None, "bytes=2500-"]
    web.break_after = []
    with pytest.raises(ValueError, match=r"expected 5,000 bytes, got 10,000"):
        fetch(f"{web.url}/file.zip", path.with_name("other"), size=5_000)


def test_whole_part_needs_no_more_bytes(web: Web, path: Path) -> None:
    web.break_after = [10_000]
    with Part.open(path.with_name("file.zip.part")) as part:
        part.file.write(CONTENT)
        part.version_file.write_text('["\\"one\\"", null]')
    fetch(f"{web.url}/file.zip", path, md5=MD5)  # answered by 416: there is no more
    assert ranges(web) == ["bytes=10000-"]
    assert path.read_bytes() == CONTENT


def test_server_that_is_busy_is_asked_again(web: Web, path: Path) -> None:
    web.refuse = [503, 429]
    fetch(f"{web.url}/file.zip", path)
    assert path.read_bytes() == CONTENT
    assert len(web.asked) == 3


def test_refusal_is_told_at_once(web: Web, path: Path) -> None:
    with pytest.raises(FetchError, match=r"missing\.zip: the server answers 404, Not Found"):
        fetch(f"{web.url}/missing.zip", path)
    assert len(web.asked) == 1


def test_unreachable_server_is_given_up(path: Path, web: Web) -> None:
    with pytest.raises(FetchError, match="3 attempts without a new byte; 0 bytes are kept"):
        fetch("http://127.0.0.1:9/file.zip", path)


def test_small_disk_is_told_before_anything_is_fetched(
    web: Web, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9_999))
    with pytest.raises(FetchError, match=r"10,000 bytes are needed and 9,999 are free"):
        fetch(f"{web.url}/file.zip", path)
    assert not path.exists()


def test_two_at_once_do_not_write_into_each_other(web: Web, path: Path) -> None:
    with (
        Part.open(path.with_name("file.zip.part")),
        pytest.raises(FetchError, match="another process fetches"),
    ):
        fetch(f"{web.url}/file.zip", path)
    fetch(f"{web.url}/file.zip", path, md5=MD5)
    assert path.read_bytes() == CONTENT

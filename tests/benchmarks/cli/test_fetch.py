"""`da-compose fetch domainnet`, from a mirror on this machine."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import domainnet, fetch
from data_prep.domainnet import PublishedFile
from tests.benchmarks.calls import refuse, succeed
from tests.data_prep.web import Web, serve

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, b"a picture")
    return content.getvalue()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A mirror that has the real pictures and the sketches, and knows their checksums."""
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    files = []
    for domain in ("real", "sketch"):
        for name in (f"{domain}.zip", f"{domain}_train.txt", f"{domain}_test.txt"):
            content = zipped(f"{domain}/cat/1.jpg") if name.endswith("zip") else b"list\n"
            (tmp_path / "web").mkdir(exist_ok=True)
            (tmp_path / "web" / name).write_bytes(content)
            files.append(PublishedFile(name, len(content), hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(domainnet, "FILES", tuple(files))
    with serve(tmp_path / "web") as web:
        yield web


def below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


SKETCH = ["sketch/cat/1.jpg", "sketch_test.txt", "sketch_train.txt"]


def test_dry_run_says_what_and_fetches_nothing(web, tmp_path):
    to = tmp_path / "to"
    options = ("--domain", "sketch", "--to", to, "--mirror", web.url, "--dry-run")
    lines = succeed("fetch", "domainnet", *options).stdout.splitlines()
    assert f"{web.url}/sketch.zip" in "\n".join(lines) and "real.zip" not in "\n".join(lines)
    assert any("in 3 files" in line and str(to) in line for line in lines)
    assert web.asked == [] and not to.exists()


def test_one_domain_at_a_time_comes_to_the_folder_that_is_named(web, tmp_path):
    options = ("--to", tmp_path / "to", "--mirror", web.url, "--domain")
    said = succeed("fetch", "domainnet", *options, "sketch").stdout
    assert said.splitlines()[-1] == f"sketch: in {tmp_path / 'to'}"
    assert below(tmp_path / "to") == SKETCH
    succeed("fetch", "domainnet", *options, "sketch", "--domain", "real", "--keep-zips")
    assert {"real/cat/1.jpg", "real.zip", *SKETCH} <= set(below(tmp_path / "to"))
    assert sum(path == "/sketch.zip" for path, _ in web.asked) == 1  # it was there


@pytest.mark.parametrize("named", [True, False])
def test_the_usual_folder_is_the_one_that_is_searched(web, tmp_path, named):
    root = tmp_path / ("root" if named else "project")
    root.mkdir()
    data = ("--data", root) if named else ()
    succeed("fetch", "domainnet", "--domain", "sketch", "--mirror", web.url, *data)
    assert below(root / "pictures" / "domainnet") == SKETCH


def test_what_goes_wrong_is_said_in_one_line(web, tmp_path):
    options = ("--to", tmp_path / "to", "--mirror", web.url, "--domain", "sketch")
    assert "sketch" in refuse("fetch", "domainnet", "--domain", "scetch")
    checksums = tmp_path / "md5.txt"
    assert str(checksums) in refuse("fetch", "domainnet", *options, "--checksums", checksums)
    checksums.write_text(f"{'0' * 32}  sketch.zip\n")
    assert "expected MD5 000" in refuse("fetch", "domainnet", *options, "--checksums", checksums)
    web.refuse = [404]
    assert f"{web.url}/sketch" in refuse("fetch", "domainnet", *options)
    (tmp_path / "file").write_text("kept")
    elsewhere = ("--to", tmp_path / "file", "--mirror", web.url)
    assert str(tmp_path / "file") in refuse("fetch", "domainnet", *elsewhere)
    succeed("fetch", "domainnet", *options)
    assert below(tmp_path / "to") == SKETCH

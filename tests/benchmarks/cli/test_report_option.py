"""`da-compose adapt --report`."""

from pathlib import Path

import pytest

from tests.benchmarks.calls import refuse, succeed
from tests.benchmarks.pages import read, skip_plots


@pytest.fixture(autouse=True)
def _without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_plots(monkeypatch)


def call_of_adapt(files, report: Path, *more: object) -> tuple[object, ...]:
    options = ("--backbone", files.backbone, "--images", files.pictures, "--steps", 2, *more)
    return ("adapt", *options, "--out", files.folder / "new.safetensors", "--report", report)


@pytest.mark.filterwarnings("always")
def test_adapt_writes_a_report_that_names_its_pictures(user_files):
    (user_files.pictures / "broken.png").write_bytes(b"not a picture")
    path = user_files.folder / "new" / "site 8.html"
    result = succeed(*call_of_adapt(user_files, path, "--seed", 3))
    assert f"wrote {path}" in result.stdout
    page = read(path)
    assert "Adaptation to new" in page.text[""]
    assert {figure["title"] for figure in page.named("figure")} <= {
        str(picture) for picture in user_files.pictures.iterdir()
    }
    left_out = page.text["Pictures left out"]
    assert f"{user_files.pictures / 'broken.png'}|" in left_out and "1 could not" in left_out
    assert f"--steps 2 --guard --report '{path}' --seed 3" in page.text["How it was made"]
    assert "Seed|3|" in page.text["What was adapted"]


def test_a_report_changes_nothing_in_the_adapter(user_files):
    call = call_of_adapt(user_files, user_files.folder / "new.html")
    succeed(*call)
    with_report = (user_files.folder / "new.safetensors").read_bytes()
    succeed(*call[:-2])
    assert (user_files.folder / "new.safetensors").read_bytes() == with_report


def test_a_report_that_cannot_be_written_is_refused_before_any_work(user_files, monkeypatch):
    monkeypatch.setattr(
        "benchmarks.cli.adapt.adapt", lambda *_, **__: pytest.fail("worked for nothing")
    )
    before = user_files.names
    for path, said in (
        (user_files.folder / "new.safetensors", "--report and --out are both"),
        (user_files.backbone, "is read by this command"),
        (user_files.pictures, "is a folder"),
        (user_files.backbone / "report.html", "is a file, expected a folder"),
    ):
        assert said in refuse(*call_of_adapt(user_files, path))
    assert user_files.names == before

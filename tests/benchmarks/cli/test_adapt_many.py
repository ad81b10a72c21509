"""`da-compose adapt-many`: one call for a folder of sites, whatever is wrong with some of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from da_compose.storage.files import load_tensors
from tests.benchmarks.calls import call, refuse, succeed

Call = tuple[object, ...]


@pytest.fixture
def sites(user_files) -> Path:
    folder = user_files.folder / "sites"
    for name in ("north", "south wing"):
        shutil.copytree(user_files.pictures, folder / name)
    (folder / ".cache").mkdir()
    return folder


@pytest.fixture
def many(user_files, sites: Path) -> Call:
    out = user_files.folder / "adapters"
    options = ("--out", out, "--steps", 1, "--processes", 1)
    return ("adapt-many", sites, "--backbone", user_files.backbone, *options)


def test_each_site_is_adapted_as_alone_and_only_once(user_files, sites: Path, many: Call):
    said = succeed(*many).stdout
    out = user_files.folder / "adapters"
    files = [out / "north.safetensors", out / "south-wing.safetensors"]
    assert sorted(out.glob("*.safetensors")) == files
    assert "north: guard: " in said and "south-wing: guard: " in said
    alone = user_files.folder / "alone.safetensors"
    succeed("adapt", "--backbone", user_files.backbone, "--images", sites / "north",
            "--steps", 1, "--out", alone, "--name", "north")  # fmt: skip
    one, other = (load_tensors(path, "adapter")[0] for path in (files[0], alone))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    written = [path.stat().st_mtime_ns for path in files]
    again = json.loads(succeed(*many, "--json", "--quiet").stdout)["sites"]
    assert [path.stat().st_mtime_ns for path in files] == written
    assert [row["domain"] for row in again] == ["north", "south-wing"]
    assert all(row["error"] is None for row in again)


@pytest.mark.filterwarnings("default:left out")
def test_a_site_that_cannot_be_read_is_named_and_the_others_are_adapted(
    user_files, sites: Path, many: Call
):
    (sites / "broken").mkdir()
    (sites / "broken" / "notes.txt").write_text("no picture")
    (sites / "empty").mkdir()
    said = call(*many)
    assert said.exit_code == 1
    assert "warning: left out, as they hold no file: empty" in said.stderr
    assert said.stderr.splitlines()[-1].startswith("Error: 1 of 3 sites were not adapted: broken")
    assert "broken: not adapted: " in said.stdout and "notes.txt" in said.stdout
    assert len([*(user_files.folder / "adapters").glob("*.safetensors")]) == 2


def test_other_options_or_pictures_are_refused_where_a_site_is_finished(
    user_files, sites: Path, many: Call
):
    succeed(*many)
    kept = (user_files.folder / "adapters" / "north.safetensors").read_bytes()
    assert "north, south-wing" in refuse(*many, "--seed", 1)
    extra = next((sites / "north").iterdir())
    shutil.copy(extra, extra.with_stem("one-more"))
    said = call(*many)
    assert "north: not adapted: " in said.stdout and "move it away" in said.stdout
    assert "south-wing: not adapted" not in said.stdout
    assert (user_files.folder / "adapters" / "north.safetensors").read_bytes() == kept


def test_names_and_places_are_looked_at_before_any_work(user_files, sites: Path, many: Call):
    (sites / "south-wing").mkdir()
    shutil.copy(next((sites / "north").iterdir()), sites / "south-wing")
    assert "all would be called south-wing; rename all but one" in refuse(*many)
    shutil.rmtree(sites / "south-wing")
    shutil.copytree(sites / "north", sites / "***")
    assert "no letter or digit in ***" in refuse(*many)
    empty = user_files.folder / "nothing"
    empty.mkdir()
    assert "no site in" in refuse("adapt-many", empty, *many[2:])
    assert "is no folder" in refuse("adapt-many", user_files.backbone, *many[2:])
    assert not (user_files.folder / "adapters").exists()

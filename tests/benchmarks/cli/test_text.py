"""What is printed of names that a terminal or a spreadsheet would obey."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli.text import csv_line, printable
from tests.benchmarks.calls import call, succeed
from tests.pictures import noise

pytestmark = pytest.mark.filterwarnings("always")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    (row,) = csv.reader([csv_line(f"{start}1+1.png", f"{start}A1", "0.5")])
    assert row == [f"./{start}1+1.png", f"'{start}A1", "0.5"]


def test_codes_for_terminals_are_spelled_out() -> None:
    assert printable("a\x1b[31m\x9b\n\té雪\udce9") == "a\\x1b[31m\\x9b\n\té雪\udce9"


def test_paths_of_a_folder_come_safe_and_whole(user_files, monkeypatch) -> None:
    monkeypatch.chdir(user_files.pictures)
    for number, name in enumerate(("=1+1.png", "\x1b[31mred.png", "雪.png")):
        noise(number).save(name)
    (user_files.pictures / "\x1b[2Jbroken.png").touch()
    predicted = succeed("predict", "--backbone", user_files.backbone, ".")
    assert "\x1b" not in predicted.output
    assert {"./=1+1.png", "\\x1b[31mred.png", "雪.png"} < {
        row[0] for row in csv.reader(predicted.stdout.splitlines())
    }
    assert "\x1b" not in call("predict", "--backbone", "\x1b[2J", ".").output


def test_a_file_of_predictions_is_whole_whatever_the_terminal(user_files) -> None:
    noise(0).save(user_files.pictures / "雪.png")
    noise(0).save(user_files.pictures / os.fsdecode(b"latin-\xe9.png"), "PNG")
    arguments = ["predict", "--backbone", str(user_files.backbone), str(user_files.pictures)]
    found = subprocess.run(
        [sys.executable, "-m", "da_compose", *arguments],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    assert len(lines) == 9
    assert sum("雪.png".encode() in line or b"latin-\xe9.png" in line for line in lines) == 2


def test_a_full_disk_is_named(user_files) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "da_compose", "predict", "--backbone", user_files.backbone,
             user_files.pictures],
            stdout=full, stderr=subprocess.PIPE, check=False, text=True,
        )  # fmt: skip
    assert found.returncode == 1 and found.stderr.startswith("Error: [Errno 28] No space left")
    assert found.stderr.splitlines()[0].endswith("'standard output'")


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--name", "two words"), "domain name 'two words'"), (("--out", "n" * 256), "too long")],
)
def test_a_name_that_cannot_be_is_refused_before_any_work(
    user_files, monkeypatch, options, said
) -> None:
    monkeypatch.setattr("benchmarks.cli.adapt.load_backbone", None)
    out = ("--out", user_files.folder / "x.st")
    backbone = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    found = call("adapt", *backbone, *out, *options)
    assert found.exit_code == 1 and said in found.stderr


def test_a_long_name_that_can_be_is_written(user_files) -> None:
    out = user_files.folder / ("n" * 249 + ".st")
    backbone = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    succeed("adapt", *backbone, "--out", out, "--steps", 1)
    assert out.is_file()

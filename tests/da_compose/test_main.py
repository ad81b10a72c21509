"""The doorbell: packages of others under our names are said in one line."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from da_compose import __main__ as doorbell

ROOT = Path(__file__).parents[2]
PACKAGES = ("da_compose", "adapters", "benchmarks", "data_prep")
FILES = ("--backbone", "missing.safetensors", "--images", "x", "--out", "y.safetensors")
COMMAND = (sys.executable, "-m", "da_compose", "adapt", *FILES)


def start(folder: Path, *path: Path) -> list[str]:
    """Lines of a command that fails, started in a folder with others before it on the path."""
    done = subprocess.run(
        COMMAND,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()


COMMAND_FILE = """
import click
from adapters import adapt

@click.command("adapt", context_settings={"ignore_unknown_options": True})
@click.argument("files", nargs=-1)
def adapt_command(files):
    adapt(files)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Our packages in a folder, as an installation has them, with a command that starts at once."""
    site = tmp_path / "site"
    for name in PACKAGES:
        (site / name).mkdir(parents=True)
        first = (ROOT / name / "__init__.py").read_text().splitlines()[0].strip('"')
        (site / name / "__init__.py").write_text(f'"""{first}"""\n')
    shutil.copy(ROOT / "da_compose" / "__main__.py", site / "da_compose")
    shutil.copy(ROOT / "benchmarks" / "allocator.py", site / "benchmarks")
    (site / "benchmarks" / "cli").mkdir()
    for name in ("__init__.py", "main.py", "text.py"):
        shutil.copy(ROOT / "benchmarks" / "cli" / name, site / "benchmarks" / "cli")
    (site / "benchmarks" / "cli" / "adapt.py").write_text(COMMAND_FILE)
    with (site / "adapters" / "__init__.py").open("a") as ours:
        ours.write("def adapt(files):\n    raise ValueError(f'no {files[1]}')\n")
    return site


def distribution(site: Path, name: str, *packages: str) -> None:
    """The record of a distribution that has packages of these names."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "top_level.txt").write_text("\n".join(packages))
    (folder / "RECORD").write_text("")


def test_packages_beside_one_another_are_ours(installed, tmp_path):
    (line,) = start(tmp_path, installed)
    assert line.startswith("Error: ") and "missing.safetensors" in line
    assert doorbell.hidden() is None


def test_this_checkout_and_its_editable_install_trip_nothing():
    (line,) = start(ROOT)
    assert line.startswith("Error: ") and "missing.safetensors" in line
    assert doorbell.overwritten() is None


@pytest.mark.parametrize("name", ["adapters", "benchmarks"])
def test_a_foreign_package_first_on_the_path_is_named(installed, tmp_path, name):
    foreign = tmp_path / "foreign"
    (foreign / name).mkdir(parents=True)
    (foreign / name / "__init__.py").write_text("STRATEGIES = {}\n")
    (line,) = start(tmp_path, foreign, installed)
    assert str(foreign / name) in line and "environment of its own" in line


def test_a_foreign_module_is_named(installed, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "adapters.py").touch()
    (line,) = start(tmp_path, tmp_path / "foreign", installed)
    assert str(tmp_path / "foreign" / "adapters.py") in line


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapters/__init__.py", "loads = 'fine'\n"),
        ("benchmarks/cli/main.py", "no_command = 1\n"),
        ("benchmarks/cli/adapt.py", "from adapters import gone\n"),
    ],
)
def test_packages_that_another_distribution_has_overwritten_are_named(
    installed, tmp_path, file, content
):
    distribution(installed, "da-compose", *PACKAGES)
    (installed / file).write_text(content)
    first = start(tmp_path, installed)[0]  # nobody else is known
    assert "Traceback" in first or "another has overwritten it" in first
    name = file.partition("/")[0]
    distribution(installed, "other-tool", name)
    (line,) = start(tmp_path, installed)
    assert f"{name} is also of other-tool" in line and "environment of its own" in line


def test_other_distributions_alone_change_nothing(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(
        doorbell,
        "packages_distributions",
        lambda: {"adapters": ["da-compose", "peft-tools", "zoo"], "benchmarks": ["da-compose"]},
    )
    said = doorbell.overwritten()
    assert said is not None and "adapters is also of peft-tools and zoo" in said
    distribution(installed, "other-tool", "adapters")
    (line,) = start(tmp_path, installed)  # ours came last and works
    assert line.startswith("Error: ") and "missing.safetensors" in line
    assert metadata.version("da-compose")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_output_is_said_in_one_line(installed):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (*COMMAND[:3], "--help"),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, cwd=installed,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: standard output: No space left on device"

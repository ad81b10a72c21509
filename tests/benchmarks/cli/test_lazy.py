"""A command is imported when it is called, with the packages that it needs and no others."""

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks.cli.main import COMMANDS, EXTRAS, main

ROOT = Path(__file__).parents[3]
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # None: not to be imported
"""
CALLS = """
from click.testing import CliRunner
from benchmarks.cli.main import main

def call(*arguments):
    found = CliRunner().invoke(main, arguments)
    return found.exit_code, found.output

def succeed(*arguments):
    code, output = call(*arguments)
    assert code == 0, (arguments, output)

def refuse(*arguments):
    code, output = call(*arguments)
    assert code == 1, (arguments, output)
    last = output.splitlines()[-1]
    assert last.endswith("pip install 'da-compose[bench]'"), output
"""


def run(code: str, folder: Path) -> None:
    """Run code in a Python of its own, in that folder."""
    path = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", path + code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two domains of two classes of pictures, <domain>/<class>/<picture>."""
    generator = np.random.default_rng(0)
    for domain in ("ink", "chalk"):
        for shown in ("cat", "dog"):
            folder = tmp_path / "pictures" / domain / shown
            folder.mkdir(parents=True)
            for number in range(5):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_help_says(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.name == name
    listed = click.Command(name, help=COMMANDS[name].help)
    assert listed.get_short_help_str(500) == command.get_short_help_str(500)
    assert name in main.list_commands(click.Context(main))


def test_help_lists_commands_and_imports_none(tmp_path):
    run(
        "from click.testing import CliRunner\n"
        "from benchmarks.cli.main import main\n"
        "found = CliRunner().invoke(main, ['--help'])\n"
        "assert found.exit_code == 0 and 'Adapt a backbone to a folder' in found.output\n"
        "assert not {'torch', 'pandas', 'matplotlib', 'adapters'} & set(sys.modules)\n",
        tmp_path,
    )


def test_an_unknown_command_is_refused():
    assert main.get_command(click.Context(main), "adopt") is None


@pytest.mark.slow
def test_what_users_need_works_without_the_packages_of_benchmarks(pictures, tmp_path):
    run(
        WITHOUT
        + "from benchmarks.reliability.material import tiny_recipes\ntiny_recipes()\n"
        + CALLS
        + "a = ('--backbone', 'b.safetensors')\n"
        "to = ('--images', 'pictures/chalk', '--out', 'a.safetensors', '--steps', '1')\n"
        "succeed('pretrain', 'b.safetensors', '--pictures', 'pictures', '--image-size', '16',\n"
        "    '--steps', '1', '--cache', 'cache', '--source', 'ink')\n"
        "succeed('adapt', *a, *to)\n"
        "succeed('predict', *a, '--adapter', 'a.safetensors', 'pictures/chalk')\n"
        "succeed('evaluate', *a, '--adapter', 'a.safetensors', '--domain', 'pictures/chalk')\n"
        "succeed('inspect', 'a.safetensors')\n"
        "succeed('export', *a, '--out', 'a.pt2')\n"
        "refuse('adapt', *a, *to[:3], 'other.safetensors', '--report', 'a.html')\n"
        "refuse('bench', 'digits')\n"
        "refuse('report')\n",
        tmp_path,
    )
    assert not (tmp_path / "other.safetensors").exists()  # refused before any work

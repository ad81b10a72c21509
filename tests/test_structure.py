"""Which package may import which, and what none of them may contain."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import adapters
from adapters import STRATEGIES

ROOT = Path(__file__).parents[1]
OURS = ("da_compose", "adapters", "data_prep", "benchmarks", "tests")
ALLOWED = {
    "da_compose": {"da_compose"},
    "adapters": {"adapters", "da_compose"},
    "data_prep": {"data_prep", "da_compose"},
    "benchmarks": {"benchmarks", "adapters", "data_prep", "da_compose"},
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules that a file imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction; name the package"
            yield node.module or ""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_package_has_files():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ALLOWED)


@every_file
def test_imports_point_downward(path: Path):
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(parse(path))} & set(OURS)
    assert ours <= ALLOWED[package]


@every_file
def test_nothing_is_pickled(path: Path):
    tree = parse(path)
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
    assert not {name.split(".")[0] for name in imported(tree)} & forbidden
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            named = (node.value.id, node.attr)
            assert named not in {("torch", "load"), ("torch", "save"), ("pd", "read_pickle")}
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


@every_file
def test_no_error_is_swallowed_by_a_bare_except(path: Path):
    handlers = (node for node in ast.walk(parse(path)) if isinstance(node, ast.ExceptHandler))
    assert all(handler.type is not None for handler in handlers)


def strategy_classes() -> set[type]:
    """Classes of `adapters` that take an `AdaptationTask` and have a `step`."""
    found = set()
    for module in pkgutil.walk_packages(adapters.__path__, "adapters."):
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            made_from = list(inspect.signature(item.__init__).parameters)
            if "step" in vars(item) and made_from == ["self", "task"] and not is_protocol(item):
                found.add(item)
    return found


def is_protocol(item: type) -> bool:
    return getattr(item, "_is_protocol", False)


def test_every_strategy_has_one_row_in_the_table():
    rows = [strategy for strategy in STRATEGIES.values() if strategy is not None]
    assert len(rows) == len(set(rows))
    assert set(rows) == strategy_classes()


def test_every_strategy_is_in_a_file_of_its_own_name():
    for name, strategy in STRATEGIES.items():
        if strategy is not None:
            assert strategy.__module__ == f"adapters.strategies.{name}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_a_row_in_the_readme(strategy: str):
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md yet")
    rows = [line for line in readme.read_text(encoding="utf-8").splitlines() if "|" in line]
    assert any(f"`{strategy}`" in row for row in rows)

"""Which package may import which, and what none of them may contain."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import adapters
from adapters import STRATEGIES
from adapters.config import CHOICES

ROOT = Path(__file__).parents[1]
OURS = ("da_compose", "adapters", "data_prep", "benchmarks", "tests")
ALLOWED = {
    "da_compose": {"da_compose"},
    "adapters": {"adapters", "da_compose"},
    "data_prep": {"data_prep", "da_compose"},
    "benchmarks": {"benchmarks", "adapters", "data_prep", "da_compose"},
}
# What stands on one line may import what stands on lines above it, never the other way round.
# A room is a folder, or a file beside the folders.
STOREYS = (
    ("da_compose.opening",),
    ("da_compose.context", "da_compose.images", "da_compose.options", "da_compose.parallel"),
    ("da_compose.depth", "da_compose.progress"),
    ("da_compose.pictures", "da_compose.pixel_range"),
    ("da_compose.folders",),
    (
        "da_compose.centroids",
        "da_compose.evidence",
        "da_compose.items",
        "da_compose.model",
        "da_compose.trees",
    ),
    ("da_compose.knowledge", "da_compose.statistics"),
    ("da_compose.estimate", "da_compose.likeness", "da_compose.source_heads"),
    ("da_compose.storage",),
    ("da_compose.archives",),
    ("da_compose.reading",),
    ("da_compose.inference", "da_compose.sources"),
    ("da_compose.starts",),
    ("da_compose.training",),
    ("da_compose",),
    ("adapters.strategies", "adapters.parts", "adapters.replay"),
    ("adapters.prototypes", "adapters.selection"),
    ("adapters.guard", "adapters.start"),
    ("adapters.config", "adapters.transfer"),
    ("adapters.prepare", "adapters.streaming"),
    ("adapters.adaptation", "adapters.estimates", "adapters.loop"),
    ("adapters.adapt",),
    ("adapters.labelled", "adapters.many"),
    ("adapters.estimator", "adapters"),
    ("data_prep", "benchmarks.allocator"),
    ("benchmarks.harness",),
    ("benchmarks.options", "benchmarks.reports"),
    ("benchmarks.reliability", "benchmarks.speed", "benchmarks.studies", "benchmarks.tasks"),
    ("benchmarks.committed",),
    ("benchmarks.cli", "benchmarks"),
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules that a file imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction; name the package"
            yield node.module or ""


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_package_has_files():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ALLOWED)


def test_imports_point_downward():
    wrong = [
        (module_of(path), name)
        for path in FILES
        for name in imported(parse(path))
        if name.split(".")[0] in {*OURS} - ALLOWED[path.relative_to(ROOT).parts[0]]
    ]
    assert not wrong


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports; names of a package itself count as the package."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES} - {module_of(path)}


def room_of(module: str) -> str:
    """The longest name of a room that a module's begins with."""
    names = module.split(".")
    parts = (".".join(names[:count]) for count in range(len(names), 0, -1))
    return next(part for part in parts if part in STOREY)


def may_import(own: str, room: str) -> bool:
    inside = own.split(".")[0] == "da_compose" and room == "da_compose"
    return room == own or (STOREY[room] < STOREY[own] and not inside)


def test_rooms_import_what_stands_above_them():
    wrong = [
        (own, other)
        for own, path in MODULES.items()
        for other in imported_modules(path)
        if not may_import(room_of(own), room_of(other))
    ]
    assert not wrong


def test_no_files_import_one_another_in_a_circle():
    left = {module: imported_modules(path) for module, path in MODULES.items()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def pickles(node: ast.AST) -> bool:
    """Whether a piece of code pickles, or reads what may be pickled."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return bool({name.split(".")[0] for name in imported(node)} & forbidden)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return (node.value.id, node.attr) in {("torch", "save"), ("pd", "read_pickle")}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
        return "weights_only=True" not in map(ast.unparse, node.keywords)
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        return not (isinstance(node.value, ast.Constant) and node.value.value is False)
    return False


def catches_all(node: ast.AST) -> bool:
    """Whether it is a bare except, which swallows errors."""
    return isinstance(node, ast.ExceptHandler) and node.type is None


@pytest.mark.parametrize("forbidden", [pickles, catches_all])
def test_nothing_is_pickled_and_no_error_swallowed(forbidden: Callable[[ast.AST], bool]):
    wrong = [
        f"{path}:{getattr(node, 'lineno', '?')}"
        for path in FILES
        for node in ast.walk(parse(path))
        if forbidden(node)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill.source import x",
        "torch.save(x, y)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "try: pass\nexcept: pass",
    ],
)
def test_what_is_forbidden_is_found(code: str):
    assert any(pickles(node) or catches_all(node) for node in ast.walk(ast.parse(code)))


def strategy_classes() -> set[type]:
    """Classes of `adapters` that are prepared for an `AdaptationTask` and have a `step`."""
    found = set()
    for module in pkgutil.walk_packages(adapters.__path__, "adapters."):
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if {"prepare", "step"} <= vars(item).keys() and not is_protocol(item):
                found.add(item)
    return found


def is_protocol(item: type) -> bool:
    return getattr(item, "_is_protocol", False)


def test_every_strategy_has_one_row_in_the_table():
    rows = list(STRATEGIES.values())
    assert len(rows) == len(set(rows))
    assert set(rows) == strategy_classes()


def test_every_strategy_is_in_a_file_of_its_own_name():
    for name, strategy in STRATEGIES.items():
        assert strategy.__module__ == f"adapters.strategies.{name}"


def test_every_strategy_has_a_row_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if "|" in line]
    assert [name for name in CHOICES if not any(f"`{name}`" in row for row in rows)] == []

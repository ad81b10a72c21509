"""Short calls of the commands that write something, and what they wrote, to compare."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import Ended, call
from benchmarks.reliability.material import NEW, SIZE, Material, tiny_recipes
from benchmarks.reliability.outcome import Wrong, shortened
from da_compose.__main__ import main
from da_compose.storage.files import checksum, load_tensors

KINDS = ("backbone", "adapter", "training state")
PASSING = ("seconds", "images_per_second", "peak_memory_mb")  # what no two runs have in common
DRAWN = {".png", ".pdf", ".html", ".md", ".tex", "table.csv"}  # times are in them
Arguments = Callable[[Material, Path], list[object]]


def _adapt(material: Material, folder: Path) -> list[object]:
    return [
        "adapt", "--backbone", material.backbone, "--images", material.tree / NEW, "--steps", 4,
        "--out", folder / "new.safetensors", "--report", folder / "new.html",
    ]  # fmt: skip


def _bench(material: Material, folder: Path) -> list[object]:
    return [
        "bench", "digits", "--data", material.data, "--runs", folder / "runs", "--processes", 1,
        "--recipe", "paper", "--network", "compositional", "--seed", 0, "--no-oracles",
        "--strategy", "source_only", "--strategy", "information_maximization",
        "--pretrain-steps", 4, "--adapt-steps", 2,
    ]  # fmt: skip


COMMANDS: Mapping[str, Arguments] = {
    "pretrain": lambda material, folder: [
        "pretrain", folder / "run" / "backbone.safetensors", "--pictures", material.tree,
        "--target", NEW, "--image-size", SIZE, "--steps", 6,
    ],
    "prepare digits": lambda material, folder: ["prepare", "mnist", "--data", material.data],
    "prepare pictures": lambda material, folder: [
        "prepare", "--pictures", material.tree, "--image-size", SIZE,
    ],
    "adapt": _adapt,
    "train-tasks": lambda material, folder: [
        "train-tasks", folder / "run" / "backbone.safetensors", "--task", "kmnist",
        "--task", material.tree / NEW, "--steps", 6, "--image-size", SIZE, "--data", material.data,
    ],
    "bench": _bench,
}  # fmt: skip
TOGETHER: Mapping[str, Arguments] = {  # in two processes of its own
    "bench, two processes": lambda material, folder: [
        *_bench(material, folder), "--processes", 2, "--network", "unshared",
    ],
}  # fmt: skip
ONLY_WRITE: Mapping[str, Arguments] = {  # besides: nothing to go on from
    "transfer": lambda material, folder: [
        "transfer", "--backbone", material.backbone, "--task", "kmnist", "--steps", 2,
        "--out", folder / "kmnist.safetensors", "--data", material.data,
    ],
    "export": lambda material, folder: [
        "export", "--backbone", material.backbone, "--adapter", material.adapter,
        "--out", folder / "new.pt2",
    ],
}  # fmt: skip
WRITING = {**COMMANDS, **ONLY_WRITE}
ALL = {**WRITING, **TOGETHER}


def command(*arguments: object) -> None:
    """The command line in this process, which must be a child, with tiny recipes."""
    tiny_recipes()
    sys.argv = ["da-compose", *map(str, arguments)]
    main()


_REFERENCES: dict[object, tuple[Ended, dict[str, str]]] = {}


def reference(
    material: Material, name: str, entry: Callable[..., None] = command
) -> tuple[Ended, dict[str, str]]:
    """How a command ends where nothing disturbs it, and what it writes."""
    key = material, name, entry
    if key not in _REFERENCES:
        folder = material.folder / "references" / name.replace(" ", "-")
        ended = call(entry, *ALL[name](material, folder), folder=folder)
        if ended.code:
            raise Wrong(f"{name} failed undisturbed: {shortened(ended.errors, last=True)}")
        _REFERENCES[key] = ended, contents(folder)
    return _REFERENCES[key]


def contents(folder: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Every file and empty folder below one, hidden ones too, with a digest of what it holds.

    An empty folder of temporary files is none: INT may come before Python knows what to remove.
    without: parts of names that are passed over.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if any(part in name for part in without):
            continue
        if path.is_file():
            found[name] = _digest(path)
        elif not name.startswith("tmp") and not any(path.iterdir()):
            found[f"{name}/"] = "empty folder"
    return found


def _digest(path: Path) -> str:
    """Of the content without what no two runs have in common."""
    if DRAWN & {path.suffix, path.name}:
        return "empty" if not path.stat().st_size else "drawn"
    if path.suffix == ".pt2":
        return "exported"  # an archive with times
    if path.suffix == ".safetensors":
        tensors, metadata = load_tensors(path, *KINDS)
        return checksum(tensors, _lasting(metadata))
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        text = "".join(sorted(json.dumps(_lasting(line)) for line in lines))  # of any processes
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _lasting(value: Any) -> Any:
    """JSON without figures of time and memory."""
    if isinstance(value, dict):
        return {key: _lasting(held) for key, held in value.items() if key not in PASSING}
    return [_lasting(held) for held in value] if isinstance(value, list) else value


def same(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Wrong where files are missing, others are there, or hold something else."""
    missing, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = [name for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    for what, names in (("missing", missing), ("left", more), ("other content in", other)):
        if names:
            raise Wrong(f"{what} {', '.join(names[:4])}")

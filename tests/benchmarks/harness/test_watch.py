"""How far a grid is, by what its processes have written."""

from pathlib import Path
from typing import Any

from benchmarks.harness.rows import append_line
from benchmarks.harness.watch import OF_MOCK, Training, Watch, watched
from da_compose.progress import show_progress
from da_compose.training.pretrained import MOCK_DOMAINS
from da_compose.training.run import LOG


class Noted:
    """A phase that remembers what it was told."""

    def __init__(self) -> None:
        self.done, self.note = 0, ""

    def advance(self, number: int = 1, note: str = "") -> None:
        raise AssertionError

    def to(self, done: int, note: str = "") -> None:
        self.done, self.note = done, note


def test_steps_mock_domains_and_new_rows_are_counted(tmp_path: Path):
    results, folder = tmp_path / "results.jsonl", tmp_path / "run"
    append_line(results, {"accuracy": 1})  # of an earlier run
    training = Training(name="lite0 seed 0", folder=folder, steps=3, mock_domains=2)
    seen: list[Any] = []
    watch, running = Watch([training], 2, 10.0, results, seen.extend), Noted()
    assert watch.total == 3 + 2 * OF_MOCK + 20
    watch.look(running)
    assert (running.done, running.note) == (0, "0 of 2 results")

    folder.mkdir()
    (folder / LOG).write_text("{}\n{}\n")
    watch.look(running)
    assert running.done == 2 and running.note.endswith("lite0 seed 0: step 2 of 3")
    (folder / LOG).write_text("{}\n{}\n{}\n")
    (folder / MOCK_DOMAINS).mkdir()
    (folder / MOCK_DOMAINS / "mock-000.safetensors").touch()
    watch.look(running)
    assert running.done == 3 + OF_MOCK and running.note.endswith("mock domain 1 of 2")

    (folder / "backbone.safetensors").touch()
    append_line(results, {"accuracy": 2})
    with results.open("a") as file:
        file.write('{"accuracy"')  # is being written
    watch.look(running)
    assert seen == [{"accuracy": 2}]
    assert running.done == 3 + 2 * OF_MOCK + 10 and running.note == "1 of 2 results"


def test_the_last_rows_are_seen_however_soon_the_grid_ends(tmp_path: Path):
    seen: list[Any] = []
    watch = Watch([], 1, 1.0, tmp_path / "results.jsonl", seen.extend)
    with show_progress(), watched("benchmark", watch):
        append_line(tmp_path / "results.jsonl", {"accuracy": 3})
    assert seen == [{"accuracy": 3}]

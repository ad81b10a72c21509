"""The campaign in its tiniest form; planted faults are counted as wrong."""

import json
import signal
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import adapters.adaptation
from benchmarks.reliability import disks, inputs, kills, mutations, pictures, streams, threads
from benchmarks.reliability.__main__ import main
from benchmarks.reliability.campaign import KINDS, Campaign, Kind
from benchmarks.reliability.children import Stop, call
from benchmarks.reliability.material import Material, loaded, make_material, shapes
from benchmarks.reliability.outcome import REFUSED, RIGHT, Outcome, Wrong, refusal
from benchmarks.reliability.table import TITLES, by_part, markdown
from benchmarks.reliability.worker import Worker
from da_compose.reading import read_images
from tests.benchmarks.reliability import faulty

pytestmark = pytest.mark.slow
Trial = Callable[..., Outcome]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("campaign") / "material")


def run(trial: Trial, material: Material, folder: Path, number: int = 0, **options) -> Outcome:
    return trial(material, folder / "trial", number, np.random.default_rng(number), **options)


@pytest.mark.parametrize(
    ("trial", "number"),
    [(kills.trial, 0), (disks.trial, 3), (pictures.trial, 3)],
    ids=lambda value: getattr(value, "__module__", value),
)
def test_commands_pass_the_tiniest_form(material, tmp_path, trial, number):
    assert run(trial, material, tmp_path, number).verdict in (RIGHT, REFUSED)


@pytest.mark.parametrize(
    ("trial", "number"),
    [(mutations.trial, 0), (mutations.trial, 4), (streams.trial, 3), (threads.trial, 3),
     (threads.trial, 6), *((inputs.trial, number) for number in (0, 2, 5, 12, 13))],
    ids=lambda value: getattr(value, "__module__", value),
)  # fmt: skip
def test_the_library_passes_the_tiniest_form(material, tmp_path, trial, number, monkeypatch):
    monkeypatch.setattr(streams, "LENGTHS", (200,))
    assert run(trial, material, tmp_path, number).verdict in (RIGHT, REFUSED)


def test_a_command_that_leaves_files_is_found(material, tmp_path):
    last = lambda low, high: high - 1  # noqa: E731
    at_the_last_event = SimpleNamespace(random=lambda: 0.0, integers=last, uniform=last)
    with pytest.raises(Wrong, match="left try-1"):
        kills.trial(material, tmp_path / "trial", 1, cast(Any, at_the_last_event), faulty.untidy)


def test_a_command_that_does_not_say_of_a_full_disk_is_found(material, tmp_path):
    with pytest.raises(Wrong, match=r"missing new\.html|missing new\.safetensors"):
        run(disks.trial, material, tmp_path, 3, entry=faulty.bluff)


def test_broken_pictures_that_are_not_named_are_found(material, tmp_path):
    with pytest.raises(Wrong, match="does not name 2 of 2"):
        run(pictures.trial, material, tmp_path, 3, entry=faulty.mute)


def test_another_answer_is_found(material, tmp_path):
    read = {name: lambda *_: torch.zeros(2) for name in mutations.READ}
    with pytest.raises(Wrong, match="another answer"):
        run(mutations.trial, material, tmp_path, 0, read=read)


def test_memory_and_bare_errors_are_found(material, tmp_path):
    def greedy(*_: object) -> np.ndarray:
        block = mmap(-1, 100 * 2**20)  # of the system, not what the process has kept
        block[:: 2**12] = bytes(len(block) // 2**12)
        return np.frombuffer(block, np.uint8)

    with pytest.raises(Wrong, match="MB of memory"):
        run(mutations.trial, material, tmp_path, 0, read=dict.fromkeys(mutations.READ, greedy))
    for error in (ValueError("two\nlines of it.txt"), KeyError("it.txt"), ValueError("no file")):
        with pytest.raises(Wrong):
            refusal(error, "it.txt")
    assert refusal(OSError("no it.txt"), "it.txt") == "no it.txt"


def test_a_stream_that_takes_nan_in_is_found(material, monkeypatch):
    def careless(images, size):
        kept = np.nan_to_num(images, posinf=0, neginf=0) if images.dtype.kind == "f" else images
        return read_images(kept, size)

    monkeypatch.setattr(adapters.adaptation, "read_images", careless)
    adapted = adapters.adapt(loaded(material), shapes(20, 0)[0], "batch_norm")
    with pytest.raises(Wrong, match="'NaN' were taken in"):
        streams._give_broken(adapted, shapes(5, 0)[0], cast(Any, First()))


class First:
    """A generator that always draws the first."""

    def integers(self, *_: int) -> int:
        return 0

    def choice(self, names: list[str]) -> str:
        return names[0]


def test_threads_that_share_a_generator_are_found(material, tmp_path):
    def shared(*_: object):
        return [lambda: torch.rand(3)] * 2

    with pytest.raises(Wrong, match="something else than alone"):
        run(threads.trial, material, tmp_path, 1, jobs_of=shared)


def test_rows_in_another_order_are_found(material, tmp_path):
    with pytest.raises(Wrong, match="pixels differ"):
        run(inputs.trial, material, tmp_path, 0, read=lambda *given: read_images(*given)[::-1])
    with pytest.raises(Wrong, match="NaN was read"):
        run(inputs.trial, material, tmp_path, 13, read=lambda *_: np.zeros((1, 2), np.uint8))


def test_a_child_is_stopped_at_an_event_and_a_worker_is_replaced(tmp_path):
    stopped = call(faulty.untidy, folder=tmp_path, stop=Stop(signal.SIGKILL, event=1))
    assert stopped.code == -signal.SIGKILL
    worker = Worker(tmp_path / "worker")
    with pytest.raises(Wrong, match=r"died \(7\)"):
        worker.call(faulty.die)
    with pytest.raises(Wrong, match="no end after 1 seconds"):
        worker.call(faulty.sleep, seconds=1)
    with pytest.raises(Wrong, match="MemoryError"):
        worker.call(faulty.allocate)
    worker.stop()


def test_the_command_counts_and_ends_with_1_where_anything_is_wrong(
    tmp_path, material, monkeypatch
):
    monkeypatch.setattr(
        Campaign, "at", classmethod(lambda cls, folder, seed: Campaign(folder, material, seed))
    )
    monkeypatch.setattr("benchmarks.harness.measure.commit", lambda: "abc1234")
    planted = Kind(faulty.__name__, (2, 5, 9))
    monkeypatch.setitem(KINDS, "kills", planted)
    arguments = ["--runs", str(tmp_path), "--only", "kills"]
    assert CliRunner().invoke(main, [*arguments, "--profile", "short"]).exit_code == 0
    found = CliRunner().invoke(main, [*arguments, "--profile", "quick"])
    assert found.exit_code == 1
    assert "WRONG --only kills --trial 3 (odd): planted in kills/3" in found.stdout
    assert (tmp_path / "work" / "kills" / "3").is_dir()
    assert not (tmp_path / "work" / "kills" / "2").exists()
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert "| kills | odd | 2 | 1 | 0 | 1 |" in by_part(rows)
    assert "- kills --trial 3: planted in kills/3" in by_part(rows)
    assert markdown(rows).splitlines()[-1] == "| All | 5 | 4 | 0 | 1 |"
    assert len(markdown(rows).splitlines()[0]) <= 135
    one = CliRunner().invoke(main, [*arguments, "--trial", "3"])
    assert one.exit_code == 1 and one.stdout == "odd: wrong. planted in kills/3\n"
    one = CliRunner().invoke(main, [*arguments, "--trial", "4"])
    assert one.exit_code == 0 and one.stdout == "even: right. \n"


def test_every_kind_has_its_counts_and_a_title():
    assert all(len(kind.counts) == 3 for kind in KINDS.values())
    assert set(KINDS) == set(TITLES)


def test_a_kind_that_was_tried_again_counts_by_its_last_commit():
    whole = {"part": "a", "tried": 2, "right": 1, "refused": 0, "wrong": 1, "found": ["--trial 1"],
             "seconds_of_kind": 60, "profile": "full", "seed": 0, "commit": "one", "device": "cpu",
             "versions": {}}  # fmt: skip
    rows = [whole | {"kind": "kills", "wrong": 0, "right": 2}, whole | {"kind": "disks"}]
    rows += [whole | {"kind": "disks", "part": "old"}]
    rows += [whole | {"kind": "disks", "commit": "two", "right": 2, "wrong": 0, "found": []}]
    table = markdown(rows)
    assert "commit one, disks: two." in table and "| All | 4 | 4 | 0 | 0 |" in table

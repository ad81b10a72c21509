from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.few_labels import draw_labelled
from benchmarks.harness.rows import read_lines
from benchmarks.studies.few_labels import LABELS, TARGETS, identity, main, markdown
from da_compose.images import ImageSet
from data_prep.digits import MNIST_SOURCES


def line(accuracy: float, **changes: Any) -> dict[str, Any]:
    values = {"recipe": "strong", "network": "compositional", "target": "usps", "seed": 0}
    return values | {"labels_a_class": 1, "accuracy": accuracy} | changes


def test_targets_are_no_sources() -> None:
    assert not set(TARGETS) & {*MNIST_SOURCES, "svhn", "meter"}


def test_a_draw_has_as_many_of_every_class_and_their_own_labels() -> None:
    labels = np.repeat(np.arange(3), [10, 4, 2])
    images = np.arange(16, dtype=np.uint8).repeat(4).reshape(16, 2, 2)
    held = ImageSet(images, labels)
    for count, expected in ((0, [0, 0, 0]), (1, [1, 1, 1]), (5, [5, 4, 2])):
        few, drawn = draw_labelled(held, count, seed=0)
        assert np.bincount(drawn, minlength=3).tolist() == expected
        numbers = few[:, 0, 0]
        assert len(set(numbers)) == len(few) and np.array_equal(labels[numbers], drawn)
    again, other = draw_labelled(held, 5, seed=0), draw_labelled(held, 5, seed=1)
    assert np.array_equal(draw_labelled(held, 5, seed=0)[0], again[0])
    assert not np.array_equal(other[0], again[0])


def test_fewer_labels_are_part_of_more() -> None:
    held = ImageSet(np.arange(40, dtype=np.uint8).reshape(40, 1, 1), np.arange(40) % 4)
    one, five = (set(draw_labelled(held, count, seed=3)[0].flat) for count in (1, 5))
    assert one < five


def test_a_line_is_known_by_its_cell_not_by_its_result() -> None:
    assert identity(line(80.0)) == identity(line(10.0))
    for changes in ({"seed": 1}, {"labels_a_class": 5}, {"target": "mnist_m"}):
        assert identity(line(80.0)) != identity(line(80.0, **changes))


def test_means_are_over_seeds_and_the_last_line_of_a_cell_counts() -> None:
    table = markdown(
        [line(10.0), line(80.0), line(90.0, seed=1), line(70.0, labels_a_class=0),
         line(60.0, network="unshared", target="mnist_m", labels_a_class=5)]
    )  # fmt: skip
    assert "| strong | MW | usps | 70.0 ± - (1) | 85.0 ± 7.1 (2) | - |" in table
    assert "| strong | IA | mnist_m | - | - | 60.0 ± - (1) |" in table
    assert "which is not" in table  # a label makes it supervised, and the table says so


def test_study_writes_every_number_of_labels_once(
    run_study_twice: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(PROFILES["full"], pretrain_steps=2, adapt_steps=1)
    monkeypatch.setitem(PROFILES, "full", short)
    results = run_study_twice(main, "paper", "unshared")
    lines = read_lines(results / "results.jsonl")
    assert [line["labels_a_class"] for line in lines] == list(LABELS)
    assert ["labels" in line["adaptation"] for line in lines] == [False, True, True]
    assert {line["commit"] for line in lines} == {"abc1234"}
    table = (results / "table.md").read_text(encoding="utf-8")
    assert table == markdown(lines)


def test_a_users_mistake_ends_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--data", str(tmp_path / "missing")])
    assert found.exit_code == 1
    assert found.output.startswith("Error: expected a data root")

"""What `bench` says of its rows, as they come and in the end."""

from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.cli.findings import RowsSeen, closing
from benchmarks.harness.digit_benchmark import DIGITS
from benchmarks.harness.rows import append_row
from da_compose.progress import show_progress
from tests.benchmarks.rows import ROW

NOTHING = {"trains": "nothing", "learned_parameters": 0}
ROWS = [
    replace(ROW, strategy="source_only", accuracy=56.0, **NOTHING),
    replace(ROW, strategy="batch_norm", accuracy=65.5, **NOTHING),
    replace(ROW, strategy="chosen_start", accuracy=66.0, **NOTHING),
    replace(ROW, accuracy=74.25),
    replace(ROW, accuracy=76.25, seed=1),
    replace(ROW, strategy="oracle", oracle=True, accuracy=95.0),
]


def test_three_lines_say_what_was_found_where_it_is_and_what_to_do_next():
    found, where, then = closing(DIGITS, ROWS, Path("runs/results"), Path("b.safetensors"))
    assert found == (
        "found: paper on usps: Source only 56.0 %, AdaBN 65.5 %, Chosen start 66.0 %, "
        "Information maximization (MW) 75.2 %, a bound, with target labels 95.0 %"
    )
    assert "runs/results" in where and "changed.png" in where
    assert then.startswith("next: da-compose adapt --backbone b.safetensors --images FOLDER")


def test_fewer_rows_say_less():
    lines = list(closing(DIGITS, ROWS[:1], Path("results"), None))
    assert lines[0] == "found: paper on usps: Source only 56.0 %"
    assert len(lines) == 3 and "docs/guides/shell.md" in lines[2]


def test_rows_are_told_as_they_come_and_a_table_soon(tmp_path: Path, capsys):
    seen = RowsSeen(tmp_path, {(ROW.profile, ROW.data_fingerprint)})
    with show_progress():
        for row in ROWS:
            append_row(tmp_path / "results.jsonl", row)
            seen([asdict(row)])
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("paper → usps") == 1  # the next table comes later
    assert "paper compositional seed 0 -> usps: AdaBN (learns nothing): 65.50 %" in said.err
    assert said.err.index("Chosen start (learns nothing)") < said.err.index("MW accuracy")

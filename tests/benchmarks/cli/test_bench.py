"""`bench digits --target all`: real domains take turns as the target."""

from pathlib import Path

from benchmarks.cli import bench as bench_cli
from benchmarks.harness.rows import read_rows
from da_compose.storage.locks import alone
from tests.benchmarks.calls import commands_of, refuse, succeed

SHORT = (
    *("--recipe", "strong", "--network", "compositional", "--strategy", "batch_norm"),
    *("--no-oracles", "--pretrain-steps", "1", "--adapt-steps", "1", "--processes", "1"),
)


def test_every_real_domain_gets_its_row_and_a_table_has_them_side_by_side(
    data_root, tmp_path, undrawn
):
    folders = ("--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"))
    said = succeed(
        "bench", "digits", "--target", "all", "--data", str(data_root), *SHORT, *folders
    ).output
    assert "note: mnist_m is missing" in said
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert [row.target for row in rows] == ["mnist", "usps", "meter", "optdigits"]
    assert all(len(row.sources) == 3 and row.target not in row.sources for row in rows)
    assert len({row.data_fingerprint for row in rows}) == 1
    header = "| Strategy | meter | mnist | optdigits | usps | mean |"
    assert header in (tmp_path / "results" / "rotation.md").read_text(encoding="utf-8")


def test_turns_have_folders_of_their_own_unless_others_are_named(monkeypatch, data_root, tmp_path):
    given: list[dict[str, object]] = []
    monkeypatch.setattr(bench_cli, "run", lambda *_, **options: given.append(options))
    succeed("bench", "digits", "--target", "all", "--runs", str(tmp_path))
    (options,) = given
    assert options["runs"] == tmp_path
    assert options["results"] is None  # those in the runs that are named
    succeed("bench", "digits", "--target", "all")
    assert given[1]["runs"] == Path("runs/digits-all")


def test_a_second_run_to_one_place_is_refused(user_files, tmp_path):
    calls = commands_of(user_files)
    with alone(tmp_path / "runs" / "results"):
        said = refuse("bench", "digits", "--runs", tmp_path / "runs")
    assert f"another run writes to {tmp_path / 'runs' / 'results'} now" in said
    out = user_files.folder / "out.safetensors"
    with alone(out, folder=False):
        assert f"another run writes to {out} now" in refuse(*calls["adapt"])
    succeed(*calls["adapt"])
    assert not [*out.parent.glob(".*")]

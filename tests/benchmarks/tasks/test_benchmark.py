"""The tasks benchmark on tiny networks and synthetic tasks: rows, resumption, tables, claims."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.cli.main import main
from benchmarks.harness.rows import append_line
from benchmarks.tasks import plan, train
from benchmarks.tasks.benchmark import texts, write_task_report
from benchmarks.tasks.claims import Claim, fewer_runs_than_chance, filter_of, set_of
from benchmarks.tasks.plan import JOBS, PROFILES, TaskData, TaskProfile, load_task_data, plan_tasks
from benchmarks.tasks.tables import spread
from benchmarks.tasks.train import TaskRow, read_task_rows, run_job
from da_compose.model.signature import signature_xi
from tests.benchmarks.conftest import TINY, make_bare, write_npz

PARTS = tuple(JOBS)
SHORT = replace(
    PROFILES["quick"],
    alone_steps=2,
    joint_steps=2,
    bank_steps=2,
    transfer_steps=1,
    labels=(2, None),
)


def make_tiny(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan, "NETWORK", TINY)
    patch.setattr(plan, "SIGNATURE_LAYERS", 5)
    patch.setattr(plan, "STATISTICS_BATCHES", 2)
    for name in ("quick", "full"):
        patch.setitem(PROFILES, name, replace(SHORT, name=name, seeds=PROFILES[name].seeds))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch)


@dataclass
class Measured:
    """The benchmark in a folder: mnist, kmnist and usps, few and random, and what was measured."""

    folder: Path
    data: TaskData

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def measure(self, *parts: str, profile: TaskProfile = SHORT) -> list[TaskRow]:
        """Rows of the parts, measured in this process where they are not there."""
        for job in plan_tasks(profile, self.data, parts):
            run_job(job, self.data, self.folder / "runs", self.results)
        return [row for row in read_task_rows(self.results) if row.part in parts]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """After all parts; only to be read."""
    folder = tmp_path_factory.mktemp("tasks")
    for number, name in enumerate(("digits/mnist", "tasks/kmnist", "digits/usps")):
        write_npz(folder / "root" / f"{name}.npz", (28, 28), seed=number)
    with pytest.MonkeyPatch.context() as patch:
        make_bare(patch, folder / "project")
        make_tiny(patch)
        made = Measured(folder, load_task_data(folder / "root"))
        made.measure(*PARTS)
    return made


@pytest.fixture
def root(finished: Measured) -> Path:
    return finished.folder / "root"


@pytest.fixture
def data(finished: Measured) -> TaskData:
    return finished.data


@pytest.fixture
def measured(finished: Measured, tmp_path: Path) -> Measured:
    """After all parts, in a folder of this test."""
    for name in ("runs", "results"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return replace(finished, folder=tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_plans_cells_of_tasks_at_hand(data: TaskData, part: str) -> None:
    jobs = [*plan_tasks(SHORT, data, (part,))]
    assert {job.part for job in jobs} == {part}
    known = {*data.chosen.tasks} if part != "transfer" else {*data.chosen.transfer}
    assert {cell.task for job in jobs for cell in job.cells} <= known
    assert len({job.folder(Path()) for job in jobs}) == len(jobs)


def test_a_task_gets_as_many_images_together_as_alone(data: TaskData) -> None:
    steps = replace(SHORT, joint_steps=60)
    jobs = [*plan_tasks(steps, data, ("tasks",))]
    tasks = len(data.chosen.tasks)
    for job in jobs:
        own = job.pretraining
        images = own.steps * own.batch_size * (own.domains_a_step or 1) / len(job.tasks)
        assert images == 60 * 32 * plan.TASKS_A_STEP / tasks


def test_rows_say_what_was_measured(finished: Measured) -> None:
    rows = finished.measure("signatures", "depth")
    assert [row.setting for row in rows if row.part == "signatures"][:3] == [
        "learned",
        "learned, min-entropy",
        "learned, attraction",
    ]
    for row in rows:
        assert 0 <= row.accuracy <= 100
        learned = row.setting.startswith("learned")
        assert ("hardened_accuracy" in row.found) == learned
        assert all(abs(sum(layer) - 1) < 1e-3 for layer in row.found["mixture"])
    depth = [row for row in rows if row.part == "depth"]
    assert len({(row.task, row.total_parameters) for row in depth}) == len(
        {row.task for row in depth}
    )  # equal parameters at every depth


def test_finished_cells_are_not_run_again(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_task_rows(measured.results)
    monkeypatch.setattr(train, "trained", None)  # whoever calls it fails
    assert measured.measure(*PARTS) == before
    with pytest.raises(TypeError):
        measured.measure("transfer", profile=replace(SHORT, transfer_steps=2))


def test_rows_of_a_network_that_is_not_here_do_not_count(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone comes with rows: of another machine, whose network is not the one trained here."""
    shutil.rmtree(measured.folder / "runs")
    monkeypatch.setattr(train, "train_tasks", None)  # whoever calls it fails
    with pytest.raises(TypeError):
        measured.measure("transfer")


def test_a_killed_run_goes_on_with_the_network_it_has(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured.measure("transfer")
    for path in measured.results.iterdir():
        path.unlink()
    for row in rows[:-3]:
        append_line(measured.results / "results.jsonl", asdict(row))
    monkeypatch.setattr(train, "train_tasks", None)
    again = measured.measure("transfer")
    assert [(row.cell, row.accuracy) for row in again] == [(row.cell, row.accuracy) for row in rows]


def test_learned_numbers_of_a_new_task_are_counted_by_part(finished: Measured) -> None:
    rows = finished.measure("transfer")
    counts = {tuple(row.trains): row.found["learned_parameters"] for row in rows}
    heads, xi = 2 * 10 * (TINY.embedding + 1), TINY.num_layers * TINY.num_templates
    assert counts[("heads",)] == {"heads": heads}
    assert counts[("heads", "mixture_weights")] == {"heads": heads, "mixture_weights": xi}
    assert counts[("heads", "batch_norm")]["batch_norm"] == 2 * TINY.num_statistics


def test_rows_of_before_a_renaming_are_the_same_cells_and_tables(
    finished: Measured, tmp_path: Path
) -> None:
    rows = finished.measure("transfer")
    for row in rows:
        line = asdict(row)
        assert "heads" in line["trains"]
        line["trains"] = ["logits" if part == "heads" else part for part in line["trains"]]
        learned = line["found"]["learned_parameters"]
        learned = {"logits" if part == "heads" else part: learned[part] for part in learned}
        line["found"] |= {"learned_parameters": learned}
        append_line(tmp_path / "old" / "results.jsonl", line)
    old = read_task_rows(tmp_path / "old")
    assert [row.cell for row in old] == [row.cell for row in rows]
    assert texts(old) == texts(rows)


def test_tables_and_figures_are_made_of_rows_alone(finished: Measured, tmp_path: Path) -> None:
    rows = finished.measure(*PARTS)
    rows += [replace(row, seed=1, accuracy=100 - row.accuracy) for row in rows]
    for row in rows:
        append_line(tmp_path / "results" / "results.jsonl", asdict(row))
    results = tmp_path / "results"
    write_task_report(results)
    name = f"quick-{rows[0].data_fingerprint[:6]}"
    for part, text in texts(rows).items():
        assert (results / f"{name}-{part}.md").read_text() == text
    for figure in ("organization", "few-shots"):
        assert (results / f"{name}-{figure}.png").read_bytes()[:4] == b"\x89PNG"
    transfer = (results / f"{name}-transfer.md").read_text()
    for words in (
        "| mean | random | chosen |",
        "New task usps:",
        "| logits + γ, β + ξ | 2 |",
        "| logits | all |",
        "seeds: 0, 1.",
    ):
        assert words in transfer
    tasks = (results / f"{name}-tasks.md").read_text()
    single = [row for row in rows if row.setting == "single" and row.seed == 0]
    assert f"{sum(row.total_parameters for row in single):,}" in tasks
    claims = (results / f"{name}-claims.md").read_text()
    assert "tasks of one image transform share early layers" in claims


@pytest.mark.parametrize(
    ("margins", "verdict"),
    [
        ([1.0], "open (one seed)"),
        ([1.0, 1.1, 0.9], "reproduced"),
        ([-1.0, -1.1, -0.9], "not reproduced"),
        ([1.0, -1.1, 0.5], "open"),
        ([0.0, 0.0], "open"),
    ],
)
def test_a_claim_is_decided_by_its_spread_over_seeds(margins: list[float], verdict: str) -> None:
    assert Claim(part="depth", text="", margins=margins).verdict == verdict


def test_runs_are_compared_with_shuffled_layers() -> None:
    alternating = signature_xi((0, 1, 0, 1), 2).softmax(dim=-1)
    sequential = signature_xi((0, 0, 1, 1), 2).softmax(dim=-1)
    # the six orders of two and two have 2, 3, 4, 4, 3 and 2 runs
    assert fewer_runs_than_chance(alternating) == pytest.approx(3 - 4)
    assert fewer_runs_than_chance(sequential) == pytest.approx(3 - 2)


def test_tasks_belong_to_a_set_and_a_filter() -> None:
    assert [filter_of(name) for name in ("kmnist", "kmnist_edges", "mnist_blur")] == [
        "",
        "edges",
        "blur",
    ]
    assert [set_of(name) for name in ("kmnist", "kmnist_edges", "emnist_letters_blur")] == [
        "kmnist",
        "kmnist",
        "emnist_letters",
    ]


def test_a_spread_needs_two_numbers() -> None:
    assert spread([]) == "-"
    assert spread([1.25], 2) == "1.25 ± -"
    assert spread([1.0, 3.0]) == "2.0 ± 1.4"


def bench(root: Path, tmp_path: Path, *options: str) -> Result:
    command = ["bench", "tasks", "--data", str(root), "--processes", "1"]
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    return CliRunner().invoke(main, [*command, *folders, *options])


def test_the_command_writes_tables_and_says_what_is_missing(root: Path, tmp_path: Path) -> None:
    result = bench(root, tmp_path, "--part", "depth", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "note: emnist_letters is missing" in result.output
    assert "depth, 16 layers, seed 3: kmnist:" in result.output
    assert {row.seed for row in read_task_rows(tmp_path / "results")} == {3}
    assert [*(tmp_path / "results").glob("quick-*-depth.md")]


def test_a_results_folder_that_is_a_file_is_refused_before_work(root: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    result = bench(root, tmp_path)
    assert result.exit_code == 1
    assert "expected a folder" in result.output

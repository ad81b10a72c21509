"""The commands on files and folders that cannot be right."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from da_compose.training.run import STATE
from da_compose.training.trainer import Pretrainer
from tests.benchmarks.calls import call, commands_of, outputs, refuse, succeed

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors


READ = [
    *(
        (name, "backbone")
        for name in ("adapt", "predict", "evaluate", "export", "inspect backbone")
    ),
    *((name, "adapter") for name in ("predict", "evaluate", "export", "inspect adapter")),
]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [Path.unlink, cut, empty, garble, to_folder]
damage = pytest.mark.parametrize("spoil", DAMAGE, ids=lambda function: function.__name__)


@damage
@pytest.mark.parametrize(("command", "kind"), READ)
def test_a_missing_or_damaged_file_is_named(user_files, command, kind, spoil):
    path = getattr(user_files, kind)
    spoil(path)
    before = user_files.names
    assert str(path) in refuse(*commands_of(user_files)[command])
    assert user_files.names == before


@pytest.mark.parametrize(("command", "kind"), [read for read in READ if "inspect" not in read[0]])
def test_backbone_and_adapter_are_not_mistaken_for_one_another(user_files, command, kind):
    other, said = {
        "backbone": ("adapter", "an adapter, expected a backbone"),
        "adapter": ("backbone", "a backbone, expected an adapter"),
    }[kind]
    path = getattr(user_files, kind)
    path.write_bytes(getattr(user_files, other).read_bytes())
    before = user_files.names
    error = refuse(*commands_of(user_files)[command])
    assert f"{path} holds {said}" in error or other == "adapter"
    assert user_files.names == before


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_an_adapter_of_another_backbone_is_refused(user_files, command):
    user_files.backbone.write_bytes(user_files.other_backbone.read_bytes())
    assert "belongs to backbone" in refuse(*commands_of(user_files)[command])


@pytest.mark.parametrize("command", ["adapt", "pretrain"])
@pytest.mark.parametrize("place", ["file/out.safetensors", "file/deeper/out.safetensors", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    user_files, monkeypatch, command, place
):
    (user_files.folder / "file").write_text("kept")
    (user_files.folder / "folder").mkdir()
    for work in ("benchmarks.cli.adapt.adapt", "benchmarks.cli.pretraining.train_backbone"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("worked for nothing"))
    before = user_files.names
    out = user_files.folder / place
    error = refuse(*outputs(user_files)[command](out))
    assert str(user_files.folder / Path(place).parts[0]) in error
    assert user_files.names == before


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.npz"])
@pytest.mark.parametrize("command", ["adapt", "transfer"])
def test_an_output_that_could_be_read_as_an_input_is_refused(user_files, command, name):
    before = user_files.names
    assert "name another to write" in refuse(
        *outputs(user_files)[command](user_files.folder / name)
    )
    assert user_files.names == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "--pictures", ""),
        ("predict", "--backbone", "b", ""),
        ("evaluate", "--backbone", "b", "--domain", ""),
        ("transfer", "--backbone", "b", "--out", "o", "--task", ""),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_path_is_not_the_folder_here(arguments):
    assert "got an empty text; is a shell variable unset?" in refuse(*arguments)


def test_a_cuda_graph_without_a_gpu_is_refused(user_files):
    adapt = commands_of(user_files)["adapt"]
    before = user_files.names
    assert "this backbone is on cpu; leave it out" in refuse(
        *adapt, "--cuda-graph", "--device", "cpu"
    )
    assert user_files.names == before


def test_adapt_does_not_overwrite_its_backbone(user_files):
    before = user_files.backbone.read_bytes()
    refuse(*outputs(user_files)["adapt"](user_files.backbone))
    refuse(*outputs(user_files)["adapt"](user_files.pictures / ".." / user_files.backbone.name))
    assert user_files.backbone.read_bytes() == before


@pytest.mark.parametrize("command", ["adapt", "pretrain"])
def test_a_full_disk_leaves_nothing_half_written(user_files, monkeypatch, command):
    def full(_: object, path: Path, *__: object) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("da_compose.storage.files.save_file", full)
    out = user_files.folder / "new" / "out.safetensors"
    assert "No space left" in refuse(*outputs(user_files)[command](out))
    left = [*out.parent.iterdir()] if out.parent.exists() else []  # a folder made for nothing goes
    assert [path.name for path in left if path.name != "pretrain.jsonl"] == []


def test_a_data_root_that_does_not_exist_is_named(tmp_path, user_files, bench_digits):
    root = tmp_path / "nowhere"
    for arguments in (
        ("prepare", "usps"),
        ("pretrain", tmp_path / "out.safetensors"),
        ("evaluate", "--backbone", user_files.backbone, "--domain", "usps"),
        bench_digits(),
    ):
        assert str(root) in refuse(*arguments, "--data", root)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_damaged_data_file_is_named(user_files, bench_digits):
    path = user_files.data_root / "digits" / "usps.npz"
    cut(path)
    data = ("--data", user_files.data_root)
    assert str(path) in refuse("prepare", "usps", *data)
    assert str(path) in refuse(*bench_digits())
    evaluate = ("evaluate", "--backbone", user_files.backbone, *data, "--domain")
    assert str(path) in refuse(*evaluate, "usps")
    assert str(path) in refuse(*evaluate, path)


def archive(folder: Path, **changed: object) -> Path:
    path = folder / "labelled.npz"
    arrays = {
        "test_images": np.zeros((3, 32, 32), dtype=np.uint8),
        "test_labels": np.arange(3),
    } | changed
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items() if v is not None})  # pyright: ignore
    return path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"test_labels": [0, 1, 10]}, "0..9"),
        ({"test_labels": [0, -1, 2]}, "0..9"),
        ({"test_labels": [0, 1]}, "labels"),
        ({"test_labels": [[0], [1], [2]]}, "labels"),
        ({"test_labels": ["a", "b", "c"]}, "labels"),
        ({"test_labels": [0.5, 1, 2]}, "labels"),
        ({"test_labels": None}, "test_labels"),
        ({"test_images": None}, "test_images"),
        (
            {"test_images": np.zeros((0, 32, 32), dtype=np.uint8), "test_labels": np.zeros(0, int)},
            "no images",
        ),
    ],
)
def test_a_labelled_archive_that_does_not_fit_is_refused(user_files, changed, expected):
    path = archive(user_files.folder, **changed)
    assert expected in refuse("evaluate", "--backbone", user_files.backbone, "--domain", path)


@damage
def test_a_missing_or_damaged_archive_is_refused(user_files, spoil):
    path = archive(user_files.folder)
    spoil(path)
    assert str(path) in refuse("evaluate", "--backbone", user_files.backbone, "--domain", path)


@pytest.mark.parametrize("command", ["adapt", "predict"])
def test_images_that_are_none_are_refused(user_files, command):
    nothing = user_files.folder / "nothing"
    nothing.mkdir()
    broken = user_files.folder / "broken"
    broken.mkdir()
    (broken / "1.png").write_bytes(b"not a picture")
    for images in (nothing, broken, user_files.folder / "missing", user_files.backbone):
        arguments = [images if a == user_files.pictures else a for a in
                     commands_of(user_files)[command]]  # fmt: skip
        before = user_files.names
        assert str(images) in refuse(*arguments)
        assert call(*arguments).stdout == ""
        assert user_files.names == before


@pytest.mark.parametrize("name", ["runs", "results"])
def test_a_file_in_the_place_of_a_folder_is_refused_before_any_training(
    bench_digits, tmp_path, monkeypatch, name
):
    (tmp_path / name).write_text("kept")
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained for nothing"))
    assert str(tmp_path / name) in refuse(*bench_digits())
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize("line", ["{}", "[1]", "3", "not JSON", '{"benchmark": "digits"}'])
def test_a_broken_line_of_results_is_named_and_kept(bench_digits, tmp_path, monkeypatch, line):
    results = tmp_path / "results"
    results.mkdir()
    path = results / "results.jsonl"
    path.write_text(line + "\n")
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained for nothing"))
    assert f"{path}, line 1" in refuse("report", "--results", results)
    assert f"{path}, line 1" in refuse(*bench_digits())
    assert path.read_text() == line + "\n"
    assert [p.name for p in results.iterdir()] == [path.name]


def test_a_report_without_results_is_refused(tmp_path):
    assert "no results" in refuse("report", "--results", tmp_path / "missing")


def test_ctrl_c_says_that_the_same_command_goes_on(user_files, monkeypatch):
    out = user_files.folder / "run" / "out.safetensors"
    arguments = outputs(user_files)["pretrain"](out)
    with monkeypatch.context() as interrupted:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        interrupted.setattr("da_compose.training.pretrain.collect_knowledge", interrupt)
        result = call(*arguments)
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == "Aborted!"
    assert "interrupted: the same command goes on from what was saved" in result.stderr
    assert "Traceback" not in result.output
    assert not out.exists() and (out.parent / STATE).exists()
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained again"))
    succeed(*arguments)
    assert not (out.parent / STATE).exists()


def test_a_temporary_folder_without_room_is_named_as_what_it_is(monkeypatch):
    def unusable(*_):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("benchmarks.cli.inspect.description", unusable)
    said = refuse("inspect", __file__).strip()
    assert said.endswith("the disk is full, or they are read-only; name another by TMPDIR")

"""`train-tasks` and `transfer`: from labelled tasks to predictions in a task's own classes."""

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from adapters.transfer import transfer
from da_compose import load_adapter, load_backbone
from da_compose.training.recipes import usual_patch_size
from da_compose.training.trainer import Pretrainer
from data_prep import task_classes
from tests.benchmarks.calls import call, refuse, succeed
from tests.benchmarks.conftest import write_npz
from tests.pictures import noise

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors
ROOMS = ("bed", "lamp", "sofa")
HIRAGANA = task_classes("kmnist")


@pytest.fixture
def root(data_root: Path) -> Path:
    """Digits and hiragana."""
    write_npz(data_root / "tasks" / "kmnist.npz", (28, 28), seed=40)
    return data_root


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of five pictures of each of three classes, its name two words."""
    folder = tmp_path / "my rooms"
    for place, name in enumerate(ROOMS):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            noise(10 * place + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def bank(root: Path, rooms: Path, tmp_path: Path) -> Path:
    out = tmp_path / "bank" / "backbone.safetensors"
    succeed("train-tasks", out, "--task", "kmnist", "--task", rooms, "--steps", 1, "--data", root)
    return out


def transferred(
    backbone: Path, task: Path | str, root: Path, *more: object
) -> tuple[Path, list[str]]:
    """The adapter file of a new task, and what `transfer` said."""
    out = root.parent / "new.safetensors"
    options = ("--backbone", backbone, "--task", task, "--out", out, "--data", root)
    return out, succeed("transfer", *options, "--steps", 1, *more).stdout.splitlines()


def test_tasks_with_classes_of_their_own_are_written_and_tested(root, rooms, tmp_path):
    out = tmp_path / "run" / "backbone.safetensors"
    tasks = ("--task", "kmnist_edges", "--task", rooms, "--task", "usps")
    said = succeed("train-tasks", out, *tasks, "--steps", 2, "--image-size", 16, "--data", root)
    *before, wrote, hiragana, pictures, digits = said.stdout.splitlines()
    assert [line for line in before if line.startswith("note: ")] == [
        "note: kmnist_edges: 30 training and 20 test images, not the official split"
    ]
    assert wrote == f"wrote {out}"
    assert hiragana.startswith("kmnist_edges: accuracy ")
    assert pictures.startswith("my-rooms: accuracy ")
    assert pictures.endswith("% of 3 held-out test images")
    assert digits.endswith("% of 20 held-out test images")
    written = load_backbone(out)
    domains = written.network.domains
    assert [written.class_names_of(d) for d in domains] == [HIRAGANA, ROOMS, tuple("0123456789")]
    assert written.network.config.image_size == 16
    assert {path.name for path in out.parent.iterdir()} == {out.name, "pretrain.jsonl"}


@pytest.mark.parametrize(
    ("image_size", "expected"), [(1, 1), (13, 1), (16, 2), (20, 2), (21, 3), (28, 4), (32, 4)]
)
def test_images_of_any_size_are_cut_into_whole_patches(image_size, expected):
    assert usual_patch_size(image_size) == expected


def test_without_names_the_tasks_are_the_benchmarks(root, tmp_path):
    out = tmp_path / "backbone.safetensors"
    options = ("--steps", 1, "--tasks-a-step", 1, "--data", root)
    said = succeed("train-tasks", out, *options).stdout.splitlines()
    assert load_backbone(out).network.domains.names == (
        "mnist", "mnist_edges", "mnist_blur", "kmnist", "kmnist_edges", "kmnist_blur",
    )  # fmt: skip
    assert "note: emnist_letters is missing" in said
    assert len(set(said)) == len(said)


def test_an_interrupted_training_of_tasks_goes_on(root, tmp_path, monkeypatch):
    arguments = outputs_of(root, tmp_path)
    with monkeypatch.context() as interrupted:

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        interrupted.setattr(Pretrainer, "finish", interrupt)
        assert call(*arguments).stderr.splitlines()[-1] == "Aborted!"
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained again"))
    succeed(*arguments)
    assert len(list((tmp_path / "run").iterdir())) == 2


def outputs_of(root: Path, folder: Path) -> tuple[object, ...]:
    out = folder / "run" / "backbone.safetensors"
    return ("train-tasks", out, "--task", "kmnist", "--steps", 1, "--data", root)


# A new task, from the backbone to predictions


def test_a_new_task_goes_the_whole_round(bank, root, rooms):
    new = rooms.rename(root.parent / "other-rooms")
    adapter, said = transferred(bank, new, root)
    assert [line.split(":")[0] for line in said] == [
        "start mean", "start kmnist", "start my-rooms", "other-rooms", f"wrote {adapter}",
    ]  # fmt: skip
    files = ("--backbone", bank, "--adapter", adapter)
    header, *rows = csv.reader(io.StringIO(succeed("predict", *files, new).stdout))
    assert header[1] == "class" and len(rows) == 15
    assert {row[1] for row in rows} <= set(ROOMS)
    total, *classes = succeed("evaluate", *files, "--domain", new).stdout.splitlines()
    right = sum(Path(path).parent.name == found for path, found, _ in rows)
    assert total == f"accuracy {100 * right / 15:.2f} % of 15 pictures of the folder"
    assert [line.split()[1] for line in classes] == [f"{name}:" for name in ROOMS]
    shown = succeed("inspect", adapter).stdout.splitlines()
    assert "classes: bed, lamp, sofa" in shown and "domain: other-rooms" in shown
    exported = succeed("export", *files, "--out", root.parent / "new.pt2").stdout
    assert "domain other-rooms," in exported and "class probabilities, (batch, 3)" in exported


def test_a_task_of_the_backbone_predicts_by_its_name(bank, rooms):
    printed = succeed("predict", "--backbone", bank, "--domain", "my-rooms", rooms).stdout
    rows = [*csv.reader(io.StringIO(printed))]
    assert len(rows) == 16
    assert {row[1] for row in rows[1:]} <= set(ROOMS)
    neither = call("predict", "--backbone", bank, rooms)
    assert "expected --adapter, or as --domain one of its own: kmnist, my-rooms" in neither.stderr
    both = call("predict", "--backbone", bank, "--adapter", bank, "--domain", "kmnist", rooms)
    assert "leave one of the two out" in both.stderr


def test_a_class_of_one_picture_is_named(rooms, tmp_path):
    for picture in sorted((rooms / "lamp").iterdir())[1:]:
        picture.unlink()
    refused = call("train-tasks", tmp_path / "backbone.safetensors", "--task", rooms, "--steps", 1)
    assert refused.exit_code == 1
    assert "fewer than two pictures of lamp" in refused.stderr


def test_domains_of_a_pretrained_backbone_are_starts_too(user_files, root):
    adapter, said = transferred(user_files.backbone, "kmnist", root, "--start", "nearest")
    compared = [line.split()[1] for line in said if line.startswith("start ")]
    assert compared == ["mean:", "mnist:", "meter:"]
    assert said[-1].rpartition(" ")[2] + ":" in compared
    files = ("--backbone", user_files.backbone, "--adapter", adapter, "--data", root)
    tested = succeed("evaluate", *files, "--domain", "kmnist").stdout.splitlines()
    assert [line.split()[1][:-1] for line in tested[1:]] == list(HIRAGANA)
    assert next(line for line in said if line.startswith("kmnist: ")).split()[2] in tested[0]
    error = refuse("evaluate", *files, "--domain", "usps")
    assert "usps has the classes 0, 1" in error and "the model has o, ki, su" in error


def test_learned_numbers_are_counted_by_part(bank, root):
    network = load_backbone(bank).network
    *_, said = transferred(bank, "usps", root, "--trains", "mixture_weights", "--trains", "heads")[
        1
    ]
    heads, xi = 2 * 10 * (network.config.embedding + 1), 2 * 2
    assert f"{heads + xi} learned numbers (heads {heads}, mixture_weights {xi}), " in said
    adapter, (*_, said) = transferred(bank, "usps", root, "--start", "kmnist")
    batch_norm = 2 * network.config.num_statistics
    assert f"(heads {heads}, batch_norm {batch_norm}, mixture_weights {xi}), " in said
    assert f"{adapter.stat().st_size:,} bytes; start kmnist" in said
    assert load_adapter(adapter, load_backbone(bank))[1]["start"] == "kmnist"


def test_few_labels_of_each_class_are_drawn(bank, root, monkeypatch):
    seen = []

    def record(backbone, task, **options):
        seen.append(task.train)
        return transfer(backbone, task, **options)

    monkeypatch.setattr("benchmarks.cli.task_actions.transfer", record)
    for labels in ((), ("--labels", 2)):
        _, said = transferred(bank, "usps", root, "--start", "mean", *labels)
        assert said[-2].endswith("of 20 held-out test images")
    whole, few = (Counter(train.labels.tolist()) for train in seen)
    assert whole.total() == 30 and few == dict.fromkeys(range(10), 2)


# A backbone of tasks has no source-only model


def test_a_task_of_the_backbone_is_evaluated_by_its_name(bank, root, rooms):
    evaluate = ("evaluate", "--backbone", bank, "--data", root, "--domain")
    assert "class ki:" in succeed(*evaluate, "kmnist").stdout
    assert "class lamp:" in succeed(*evaluate, rooms).stdout
    error = refuse(*evaluate, "usps")
    assert "knows no source domain" in error
    assert "expected --adapter, or as --domain one of its own: kmnist, my-rooms" in error


def test_a_task_of_the_backbone_is_exported_by_its_name(bank, tmp_path):
    options = ("--backbone", bank, "--out", tmp_path / "out.pt2")
    assert "one of its own: kmnist, my-rooms" in refuse("export", *options)
    assert not (tmp_path / "out.pt2").exists()
    assert "(batch, 3)" in succeed("export", *options, "--domain", "my-rooms").stdout


def test_inspect_names_the_classes_of_each_task(bank):
    shown = succeed("inspect", bank).stdout.splitlines()
    assert "classes of my-rooms: bed, lamp, sofa" in shown
    assert not any(line.startswith("classes: ") for line in shown)


def test_adapting_a_backbone_of_tasks_is_refused(bank, user_files):
    out = user_files.folder / "new.safetensors"
    error = refuse("adapt", "--backbone", bank, "--images", user_files.pictures, "--out", out)
    assert "knows no source domain" in error and "`transfer`" in error
    assert not out.exists()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train-tasks", "new", "--task", "minst"), "'minst', and no folder <class>/<picture>"),
        (("train-tasks", "new", "--task", "emnist_letters"), "is not available"),
        (("train-tasks", "new", "--task", "one"), "holds one class, bed; expected at least two"),
        (("train-tasks", "new", "--task", "pictures"), "pictures of no class"),
        (("train-tasks", "new", "--task", "usps", "--task", "usps"), "different names"),
        (("train-tasks", "new", "--task", "mean"), "cannot be named mean"),
        (("train-tasks", "new", "--task", "usps", "--tasks-a-step", "0"), "--tasks-a-step"),
        (("train-tasks", "one", "--task", "usps"), "one is a folder"),
        (("transfer", "--out", "new", "--task", "minst"), "one of emnist_letters, kmnist, mnist"),
        (("transfer", "--out", "new", "--task", "one"), "holds one class"),
        (("transfer", "--out", "new", "--task", "usps", "--start", "usps"),
         "no start 'usps'; choose from nearest, mean, random, mnist, meter"),
        (("transfer", "--out", "new", "--task", "usps", "--labels", "0"), "--labels"),
        (("transfer", "--out", "new", "--task", "usps", "--trains", "xi"), "--trains"),
        (("transfer", "--out", "one", "--task", "usps"), "one is a folder"),
        (("transfer", "--out", "backbone.safetensors", "--task", "usps"), "read by this command"),
        (("transfer", "--out", "new"), "Missing option '--task'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_mistakes_are_refused_before_any_training(user_files, monkeypatch, arguments, expected):
    monkeypatch.setenv("DA_COMPOSE_CACHE", str(user_files.data_root))
    for folder in ("one/bed", "mean/bed", "mean/sofa"):
        (user_files.folder / folder).mkdir(parents=True)
        for number in range(2):
            noise(number).save(user_files.folder / folder / f"{number}.png")
    monkeypatch.setattr(Pretrainer, "step", lambda *_: pytest.fail("trained for nothing"))
    monkeypatch.chdir(user_files.folder)
    backbone = ("--backbone", user_files.backbone) if arguments[0] == "transfer" else ()
    before = user_files.names
    assert expected in refuse(*arguments, *backbone, "--data", user_files.data_root)
    assert user_files.names == before


def test_a_fixed_signature_has_no_mixture_weights_to_transfer(root, tmp_path):
    bank = tmp_path / "bank.safetensors"
    options = ("--steps", 1, "--signature", "2,1", "--data", root)
    succeed("train-tasks", bank, "--task", "kmnist", *options)
    new = ("--backbone", bank, "--task", "usps", "--out", tmp_path / "new", "--data", root)
    assert "no mixture weights to learn" in refuse("transfer", *new, "--trains", "mixture_weights")
    said = transferred(bank, "usps", root)[1][-1]
    config = load_backbone(bank).network.config
    heads, batch_norm = 2 * 10 * (config.embedding + 1), 2 * config.num_statistics
    assert (
        f"{heads + batch_norm} learned numbers (heads {heads}, batch_norm {batch_norm}), " in said
    )

from dataclasses import replace
from pathlib import Path

from adapters.parts import DIRECTED
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.picture_benchmarks import PICTURES
from benchmarks.harness.picture_benchmarks import PROFILES as PICTURE_PROFILES
from benchmarks.harness.plan import PUBLISHED, USUAL, BackboneJob, Cell, plan, without_what_is_off
from benchmarks.harness.rows import read_rows
from benchmarks.reports.report import RESULTS
from da_compose.training.recipes import usual_recipes

# before a fixture makes recipes tiny
REAL = replace(DIGITS, recipes=dict(DIGITS.recipes))


def job(**changes: object) -> BackboneJob:
    (made,) = plan(
        DIGITS,
        replace(PROFILES["full"], seeds=(0,)),
        recipes=("strong",),
        networks=("compositional",),
        sources=("mnist",),
        target="usps",
        class_names=("a", "b", "c"),
        data="files",
        data_fingerprint="f00d",
    )
    return replace(made, **changes)


def test_a_network_has_the_classes_of_the_data():
    assert job().network_config.num_classes == 3


def test_strong_long_is_strong_for_twice_as_many_steps_where_it_is_asked_for():
    assert usual_recipes(REAL.recipes) == ("paper", "strong")
    short, long = (job(benchmark=REAL, recipe=name) for name in ("strong", "strong-long"))
    assert short.pretrain_config.steps == PROFILES["full"].pretrain_steps
    assert long.pretrain_config == replace(
        short.pretrain_config, steps=2 * short.pretrain_config.steps
    )
    assert long.network_config == short.network_config


def test_what_is_off_may_be_missing():
    off = {"a": 0, "b": None, "c": False, "d": {"e": None, "f": [None]}, "g": ""}
    assert without_what_is_off(off) == {"a": 0, "d": {"f": [None]}, "g": ""}
    assert without_what_is_off(None) is None


def test_identity_tells_apart_what_makes_another_backbone(tmp_path):
    others = [job(seed=1), job(data_fingerprint="beef"), job(class_names=("a", "b"))]
    assert len({made.folder(tmp_path) for made in (job(), *others)}) == 4


def test_committed_digits_rows_are_of_the_configuration_as_it_is():
    """So that a run after a clone finds its cells finished."""
    for row in read_rows(RESULTS / "digits" / "results.jsonl"):
        (made,) = plan(
            REAL,
            replace(REAL.profiles[row.profile], seeds=(row.seed,)),
            recipes=(row.recipe,),
            networks=(row.network,),
            sources=tuple(row.sources),
            target=row.target,
            class_names=tuple("0123456789"),
            data=row.data,
            data_fingerprint=row.data_fingerprint,
        )
        assert without_what_is_off(row.config["job"]) == made.cell_config(row.trains)


def test_both_networks_of_a_pretrained_recipe_stand_on_one_backbone():
    full = PICTURE_PROFILES["full"]
    mixed = job(benchmark=PICTURES["pacs"], profile=full, recipe="lite0")
    ordinary = replace(mixed, network="unshared")
    assert mixed.folder(Path("runs")) == ordinary.folder(Path("runs"))
    assert mixed.folder(Path("runs")) != replace(mixed, seed=1).folder(Path("runs"))
    assert {cell.trains for cell in mixed.cells(oracles=False)} == {"nothing", "mixture_weights"}
    learned = {cell.trains for cell in ordinary.cells(oracles=False)} - {"nothing"}
    assert learned == {"input_adapter", "batch_norm"}
    assert mixed.adapt_steps("mixture_weights") == DIRECTED.steps["mixture_weights"]
    quick = replace(mixed, profile=PICTURE_PROFILES["quick"])
    assert mixed.finetune_steps == 3 * quick.finetune_steps
    assert mixed.identity != quick.identity


def test_published_methods_are_rows_of_ordinary_pretrained_networks_alone():
    ordinary = job(
        benchmark=PICTURES["pacs"], profile=PICTURE_PROFILES["full"], recipe="lite0",
        network="unshared",
    )  # fmt: skip
    found = ordinary.cells(oracles=False)
    assert found[len(USUAL) :] == [
        Cell(strategy="consensus", trains="input_adapter"),
        Cell(strategy="information_maximization", trains="batch_norm"),
        Cell(strategy="consensus", trains="batch_norm"),
        Cell(strategy="tent", trains="batch_norm"),
        Cell(strategy="shot", trains="batch_norm"),
        Cell(strategy="t3a", trains="nothing"),
    ]
    named = ordinary.cells(("t3a", "tent"), oracles=False)
    assert len(named) == len(set(named))
    assert Cell(strategy="tent", trains="input_adapter") in named
    for others in (replace(ordinary, network="compositional"), job(), job(network="unshared")):
        assert not {cell.strategy for cell in others.cells()} & {*PUBLISHED}


def test_a_first_look_at_published_weights_has_few_cells_unless_some_are_named():
    for network, trains in (("compositional", "mixture_weights"), ("unshared", "input_adapter")):
        made = job(benchmark=PICTURES["emoji"], recipe="lite0", network=network)
        brief = replace(made, profile=PICTURES["emoji"].profiles["quick"])
        learned = ("moment_matching", "information_maximization", "consensus")
        assert [c for c in brief.cells() if c.trains != "nothing"] == [
            Cell(strategy=name, trains=trains) for name in learned
        ]
        whole = replace(made, profile=PICTURES["emoji"].profiles["full"])
        assert len(whole.cells()) > 2 * len(brief.cells())
        assert any(c.oracle for c in brief.cells(("batch_norm",)))

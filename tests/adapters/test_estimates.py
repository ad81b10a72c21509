from dataclasses import replace

import pytest
import torch

from adapters import AdaptConfig, StartConfig, adapt, load_adaptation
from adapters.estimates import of_outcome
from adapters.prepare import prepare
from da_compose import Backbone, DomainModel
from da_compose.estimate import Estimate, Estimator
from da_compose.training.rehearsal import RehearsalConfig, rehearse

START = Estimate(0.6, 0.5, 0.7)
ANY = StartConfig(least_informed=-1.0)
MODELS = ("source_only", "batch_norm", "start", "adapted")


@pytest.fixture
def rehearsed(make_backbone, make_images) -> Backbone:
    held_out = {"left": make_images(60), "right": make_images(60, seed=1)}
    return rehearse(make_backbone(), held_out, RehearsalConfig(mock_targets=6, images=24))


def random_predictions(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(40, 4, generator=generator)).softmax(dim=1)


def test_an_outcome_that_changes_nothing_is_as_good_as_its_start():
    before = random_predictions(0)
    found = of_outcome(START, before, before)
    for name in ("accuracy", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(START, name), abs=1e-4)


def test_an_outcome_that_is_surer_is_not_called_better():
    before = random_predictions(0)
    surer = (before**3) / (before**3).sum(dim=1, keepdim=True)
    assert of_outcome(START, before, surer).accuracy == pytest.approx(0.6, abs=0.01)


def test_the_more_an_outcome_changes_the_less_it_is_expected_to_be_right():
    before, other = random_predictions(0), random_predictions(1)
    found = []
    for count in (0, 10, 40):
        after = torch.cat([other[:count], before[count:]])
        found.append(of_outcome(START, before, after))
    assert found[0].accuracy > found[1].accuracy > found[2].accuracy
    assert all(0 <= one.low <= one.accuracy <= one.high <= 1 for one in found)


@pytest.mark.parametrize("strategy", ["batch_norm", "information_maximization"])
def test_an_adaptation_says_how_accurate_it_is_and_so_does_its_file(
    rehearsed, make_pixels, tmp_path, strategy: str
):
    images = make_pixels(60)
    options = {"start_config": ANY, "batch_size": 8, "steps": 4}
    found = adapt(rehearsed, images, strategy, **options)
    assert tuple(found.estimates) == MODELS and found.estimate == found.estimates["adapted"]
    if strategy == "batch_norm":
        assert found.estimates["adapted"] == found.estimates["start"]
        assert found.estimates["start"] == found.estimates["batch_norm"]
    sure = found.predict_proba(images, calibrated=True).max(dim=1).values.mean().item()
    assert found.estimate is not None
    assert sure == pytest.approx(found.estimate.accuracy, abs=0.02)
    assert torch.equal(
        found.predict_proba(images, calibrated=True).argmax(1), found.predict(images)
    )
    found.save(tmp_path / "site.safetensors")
    loaded = load_adaptation(tmp_path / "site.safetensors", rehearsed)
    assert loaded.estimates == found.estimates
    again = loaded.predict_proba(images, calibrated=True)
    assert torch.equal(again, found.predict_proba(images, calibrated=True))


def test_figures_of_the_start_alone_make_its_estimate(rehearsed, make_pixels):
    """No labels, no teacher: the estimate is a function of what the model says."""
    one, other = (
        adapt(rehearsed, make_pixels(60), strategy, start_config=ANY, seed=3)
        for strategy in ("chosen_start", "source_only")
    )
    assert one.estimates["source_only"] == other.estimates["source_only"]
    assert rehearsed.rehearsal is not None
    assert Estimator(rehearsed.rehearsal, 60).half >= 0


def test_without_a_rehearsal_there_is_no_estimate(make_backbone, make_pixels):
    found = adapt(make_backbone(), make_pixels(60), "chosen_start", start_config=ANY)
    assert found.estimate is None and found.estimates == {}
    assert not found.is_calibrated
    with pytest.raises(ValueError, match="no estimate of its accuracy to calibrate by"):
        found.predict_proba(make_pixels(3), calibrated=True)


def test_of_images_that_mean_nothing_there_is_no_estimate(rehearsed, make_pixels):
    deaf = replace(ANY, least_informed=1.0)
    found = adapt(rehearsed, make_pixels(60), "chosen_start", start_config=deaf)
    assert found.estimates == {} and found.notes["meaningless"] is True
    assert not DomainModel(rehearsed, found.domain, notes=found.notes).is_calibrated


def test_images_mean_nothing_only_where_no_start_knows_them(make_backbone, make_pixels):
    """Also where source only is asked for, and AdaBN would know them."""
    ready = prepare(make_backbone(), make_pixels(60), "target", AdaptConfig(strategy="source_only"))
    deaf, hears = torch.zeros(4, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64)
    told = {"source_only": deaf, "batch_norm": hears, "start": deaf}
    assert not replace(ready, evidence=told).meaningless
    assert replace(ready, evidence=told | {"batch_norm": deaf}).meaningless

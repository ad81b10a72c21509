from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters import Adaptation, adapt, load_adaptation, streaming
from adapters.guard import Verdict
from adapters.parts import ADAPTED
from adapters.streaming import Stream, StreamConfig, StreamUpdate
from da_compose import Backbone
from da_compose.inference import batches
from da_compose.model.mixture import MixtureWeights
from da_compose.statistics import blend_statistics, estimate_statistics

SMALL: dict[str, Any] = {"chunk": 6, "memory": 10, "prior_images": 6, "least_diversity": 0.0}


def content(adaptation: Adaptation) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in adaptation.domain.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def always(monkeypatch):
    """Set what the guard says of every outcome from now on."""

    def say(*trusted: bool) -> None:
        answers = iter(trusted)
        verdict = Verdict(True, 0.25, 1.0, "said so")
        monkeypatch.setattr(
            "adapters.streaming.judge",
            lambda start, adapted: replace(verdict, trusted=next(answers, trusted[-1])),
        )

    return say


@pytest.fixture
def adapted(backbone: Backbone, make_pixels) -> Adaptation:
    return adapt(backbone, make_pixels(15), steps=3, batch_size=8, guard=False)


def stream_of(backbone: Backbone, adapted: Adaptation, **options: Any) -> Stream:
    return Stream(backbone, adapted.domain, StreamConfig(**SMALL | options))


@pytest.mark.parametrize("cuts", [[1] * 20, [6, 6, 6, 2], [5, 15], [7, 1, 12]])
def test_how_a_stream_is_cut_does_not_matter(adapted: Adaptation, make_pixels, always, cuts):
    images = make_pixels(20, seed=3)
    always(True)
    whole = adapted.update(images, **SMALL)
    assert (whole.moves, whole.refused, whole.waiting) == (3, 0, 2)
    expected = content(adapted)
    adapted.reset()
    updates = [adapted.update(part, **SMALL) for part in np.split(images, np.cumsum(cuts)[:-1])]
    assert same(content(adapted), expected)
    assert sum(update.moves for update in updates) == 3
    assert replace(updates[-1], moves=3) == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("place", ["judge", "begun"])
def test_an_update_that_is_broken_off_has_not_happened(
    backbone: Backbone, adapted: Adaptation, make_pixels, always, monkeypatch, error, place: str
):
    images = make_pixels(20, seed=3)
    always(True)
    stream = stream_of(backbone, adapted)
    stream.update(images[:4])
    expected = Stream(backbone, stream.adapted, stream.config)
    expected.update(images[:4])
    last = stream.last
    calls = iter(range(100))

    def breaks(*given: Any) -> Any:
        if next(calls) == 1:
            raise error
        return whole(*given)

    whole = getattr(streaming, place)
    with monkeypatch.context() as patch:
        patch.setattr(streaming, place, breaks)
        with pytest.raises(error):
            stream.update(images[4:])
    assert stream.last == last
    assert not any(value.requires_grad for value in stream.domain.parameters())
    always(True)
    assert stream.update(images[4:]) == expected.update(images[4:])
    assert same(stream.domain.state_dict(), expected.domain.state_dict())


def test_one_image_waits_and_moves_nothing(adapted: Adaptation, make_pixels):
    before = content(adapted)
    update = adapted.update(make_pixels(1), **SMALL)
    assert update == StreamUpdate(0, 0, 1, 0.0, 0.0, 0.0, "no chunk yet")
    assert same(content(adapted), before)


def test_statistics_are_a_running_average_by_the_size_of_a_chunk(
    backbone: Backbone, adapted: Adaptation, make_pixels, always
):
    always(True)
    images = make_pixels(6, seed=3)
    stream = stream_of(backbone, adapted, steps=0, prior_images=18, statistics_radius=100.0)
    domain = adapted.domain
    own = estimate_statistics(backbone.network, domain, batches(backbone.network, images))
    mean, var = blend_statistics((domain.mean, domain.var), own, 6 / (6 + 18))
    stream.update(images)
    torch.testing.assert_close(stream.domain.mean, mean)
    torch.testing.assert_close(stream.domain.var, var)
    assert torch.equal(stream.domain.mixture(), domain.mixture())


@pytest.mark.parametrize("trains", ADAPTED)
def test_only_statistics_and_what_was_trained_move(
    backbone, make_pixels, always, moving, trains: str
):
    always(True)
    made = adapt(backbone, make_pixels(15), trains=trains, steps=3, batch_size=8)
    before, shared = content(made), backbone.fingerprint
    adapted = made.domain
    made.update(make_pixels(12, seed=3), **SMALL)
    after = content(made)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"mean", "var"} | moving[trains]
    assert backbone.fingerprint == shared
    assert same(before, adapted.state_dict())
    assert not any(parameter.requires_grad for parameter in made.domain.parameters())


@pytest.mark.parametrize("strategy", ["source_only", "batch_norm"])
@pytest.mark.parametrize("kind", ["backbone", "unshared"])
def test_where_nothing_was_learned_statistics_alone_move(
    request, make_pixels, always, strategy: str, kind: str
):
    always(True)
    made = adapt(request.getfixturevalue(kind), make_pixels(15), strategy)
    before = made.domain
    update = made.update(make_pixels(12, seed=3), **SMALL)
    assert update.drift == 0.0 and update.statistics_drift > 0
    assert torch.equal(made.domain.mixture(), before.mixture())


def test_no_stream_leaves_the_ball(backbone: Backbone, adapted: Adaptation, always):
    """The guard looks away, the stream is black and white noise, and steps are large."""
    always(True)
    radii = {"statistics_radius": 0.2, "radius": 0.05}
    stream = stream_of(backbone, adapted, rate=10.0, prior_images=1, **radii)
    noise = 255 * np.random.default_rng(0).integers(0, 2, (60, 8, 8, 3), dtype=np.uint8)
    update = stream.update(noise)
    mean, var = adapted.domain.mean, adapted.domain.var
    move = (stream.domain.mean - mean).abs() / var.sqrt()
    spread = (stream.domain.var / var).sqrt()
    assert move.max() <= 0.2 * (1 + 1e-5) and move.max() > 0.19
    assert spread.max() <= 1.2 * (1 + 1e-5) and spread.min() >= (1 - 1e-5) / 1.2
    assert update.statistics_drift == pytest.approx(move.square().mean().sqrt().item())
    assert update.drift == pytest.approx(0.05)
    assert isinstance(stream.domain.mixture, MixtureWeights)
    assert isinstance(adapted.domain.mixture, MixtureWeights)
    xi, started = stream.domain.mixture.xi, adapted.domain.mixture.xi
    assert (xi - started).norm() == pytest.approx(0.05 * started.norm().item(), rel=1e-4)


def test_a_move_that_is_not_trusted_is_taken_back(adapted: Adaptation, make_pixels, always):
    always(True)
    adapted.update(make_pixels(6, seed=3), **SMALL)
    before = content(adapted)
    always(False, True)
    update = adapted.update(make_pixels(6, seed=4))
    assert (update.moves, update.refused, update.reason) == (0, 1, "said so")
    assert same(content(adapted), before)


def test_where_no_move_is_trusted_the_domain_is_the_adapted_one(
    adapted: Adaptation, make_pixels, always
):
    start = content(adapted)
    always(True)
    adapted.update(make_pixels(6, seed=3), **SMALL)
    assert not same(content(adapted), start)
    always(False)
    update = adapted.update(make_pixels(6, seed=4))
    assert update.refused == 1 and update.drift == update.statistics_drift == 0.0
    assert same(content(adapted), start)


def test_images_of_one_class_move_nothing(adapted: Adaptation, make_pixels):
    sure = deepcopy(adapted.backbone.network.heads)
    with torch.no_grad():
        for parameter in sure.parameters():
            parameter.zero_()
            if parameter.ndim == 1:
                parameter[0] = 9.0  # the bias of one class
    adapted.domain.heads = sure
    before = content(adapted)
    update = adapted.update(make_pixels(12, seed=3), **SMALL | {"least_diversity": 0.5})
    assert (update.moves, update.refused) == (0, 2)
    assert update.reason.startswith("nothing moves: diversity of predictions is")
    assert same(content(adapted), before)


def test_what_moved_before_is_judged_where_diversity_lacks(
    backbone: Backbone, adapted: Adaptation, make_pixels, always
):
    stream = stream_of(backbone, adapted)
    always(True)
    assert stream.update(make_pixels(6, seed=3)).moves == 1
    stream.config = replace(stream.config, least_diversity=2.0)  # nothing is so diverse
    always(False)
    update = stream.update(make_pixels(6, seed=4))
    assert (update.moves, update.refused, update.changed) == (0, 1, 0.25)
    assert update.reason.startswith("nothing moves: diversity of predictions is")
    assert torch.equal(stream.domain.mean, adapted.domain.mean)


def test_the_memory_is_bounded_and_recent(backbone: Backbone, adapted: Adaptation, make_pixels):
    stream = stream_of(backbone, adapted)
    images = make_pixels(40, seed=3)
    stream.update(images)
    assert np.array_equal(stream.memory, images[26:36])
    assert np.array_equal(stream.waiting, images[36:])
    assert stream.before.shape == (2, 10, 3)


def test_grey_and_colour_images_may_alternate(adapted: Adaptation, make_pixels, always):
    always(True)
    grey = make_pixels(4, colour=False, seed=3)
    adapted.update(grey, **SMALL)
    assert adapted.update(make_pixels(4, seed=4)).waiting == 2
    mixed = content(adapted)
    adapted.reset()
    colour = np.repeat(grey[..., None], 3, axis=-1)
    adapted.update(np.concatenate([colour, make_pixels(4, seed=4)]), **SMALL)
    assert same(content(adapted), mixed)


def test_a_domain_with_classes_of_its_own_is_followed(backbone: Backbone, make_pixels):
    network = backbone.network
    domain = network.new_domain("task")
    network.own_batch_norm(domain)
    network.own_heads(domain, ("no", "yes"))
    task = Adaptation(backbone, domain.requires_grad_(False), 1)
    said = task.update(make_pixels(12), **SMALL)
    assert said.moves + said.refused == 2


def test_reset_goes_back_to_the_adapted_domain(adapted: Adaptation, make_pixels, always):
    always(True)
    domain, notes, before = adapted.domain, dict(adapted.notes), content(adapted)
    adapted.reset()  # with no stream: nothing to do
    adapted.update(make_pixels(12, seed=3), **SMALL)
    assert adapted.domain is not domain and adapted.domain.name == domain.name
    adapted.reset()
    assert adapted.domain is domain and same(content(adapted), before)
    assert adapted.notes == notes


def test_a_stream_is_saved_as_it_stands(adapted: Adaptation, make_pixels, always, tmp_path: Path):
    always(True)
    update = adapted.update(make_pixels(12, seed=3), **SMALL)
    adapted.save(tmp_path / "a.safetensors")
    loaded = load_adaptation(tmp_path / "a.safetensors", adapted.backbone)
    assert same(content(loaded), content(adapted))
    assert loaded.notes["stream"] == asdict(update)
    loaded.update(make_pixels(6, seed=4), **SMALL)
    loaded.reset()
    assert same(content(loaded), content(adapted))


def test_an_update_draws_nothing_from_the_global_generator(adapted: Adaptation, make_pixels):
    state = torch.get_rng_state()
    adapted.update(make_pixels(12, seed=3), **SMALL)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"chunk": 1}, "chunk must be at least 2, got 1"),
        ({"memory": 0}, "memory must be at least 2, got 0"),
        ({"prior_images": 0}, "prior_images must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": 1.5}, r"steps must be an int, got 1\.5"),
        ({"chunk": 2.5}, r"chunk must be an int, got 2\.5"),
        ({"rate": float("nan")}, "rate must be at least 0, got nan"),
        ({"radius": -0.1}, "radius must be at least 0"),
    ],
)
def test_wrong_options_are_refused(adapted: Adaptation, make_pixels, options, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        adapted.update(make_pixels(2), **options)
    assert adapted.stream is None


def test_options_stay_until_reset(adapted: Adaptation, make_pixels):
    adapted.update(make_pixels(2), **SMALL)
    adapted.update(make_pixels(2), chunk=6)
    with pytest.raises(ValueError, match=r"goes on with StreamConfig\(chunk=6"):
        adapted.update(make_pixels(2), chunk=7)
    assert adapted.update(make_pixels(1)).waiting == 5

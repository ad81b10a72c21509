import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters.parts import unlock
from adapters.selection import certainty, score, trust
from adapters.start import NEAREST, USUAL, StartConfig, best_start, check_start, gain_much
from da_compose import Backbone, CompositionalNetwork, Domain, NetworkConfig, probabilities
from da_compose.images import to_pixels
from da_compose.inference import predict_logits
from da_compose.model.domain import POOLED
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import MEAN, Start, make_start, plain_start_name
from da_compose.statistics import estimate_statistics

LEAST_COMPARED, SHARES = USUAL.least_compared, USUAL.shares
UNSURE, SURE = StartConfig(least_certainty=1.1), StartConfig(least_certainty=-1.0)  # every start


def xi_of(domain: Domain) -> Tensor:
    assert isinstance(domain.mixture, MixtureWeights)
    return domain.mixture.xi


def test_a_named_start_copies_the_domain(backbone: Backbone, make_pixels):
    start = make_start(backbone, "middle", "site-7", make_pixels(9))
    source = backbone.network.domains["middle"]
    start.use_statistics(0.0)
    assert torch.equal(xi_of(start.target), xi_of(source))
    assert torch.equal(start.target.mean, source.mean)
    assert torch.equal(start.target.var, source.var)
    assert (start.target.name, start.name) == ("site-7", "middle")


def test_the_copy_shares_no_memory_with_the_domain(backbone: Backbone, make_pixels):
    target = make_start(backbone, "middle", "site-7", make_pixels(9)).target
    kept = backbone.network.domains["middle"].mean.clone()
    with torch.no_grad():
        xi_of(target).add_(1)
    target.mean.add_(1)
    assert torch.equal(backbone.network.domains["middle"].mean, kept)
    assert not torch.equal(xi_of(backbone.network.domains["middle"]), xi_of(target))


def test_the_mean_start_averages_sources_in_any_order(backbone: Backbone, make_pixels):
    images = make_pixels(9)
    expected = sum(xi_of(domain).double() for domain in backbone.network.domains) / 3
    starts = []
    for order in itertools.permutations(backbone.knowledge):
        reordered = Backbone(
            backbone.network, backbone.class_names, {n: backbone.knowledge[n] for n in order}
        )
        start = make_start(reordered, MEAN, "target", images)
        start.use_statistics(0.0)
        starts.append(start.target)
        torch.testing.assert_close(xi_of(start.target).double(), expected, check_dtype=False)
    for start in starts[1:]:
        torch.testing.assert_close(start.mean, starts[0].mean)
        torch.testing.assert_close(start.var, starts[0].var)


def test_mean_statistics_are_those_of_an_equal_mixture(backbone: Backbone, make_pixels):
    start = make_start(backbone, MEAN, "target", make_pixels(9))
    means = torch.stack([domain.mean for domain in backbone.network.domains]).double()
    variances = torch.stack([domain.var for domain in backbone.network.domains]).double()
    second = (variances + means**2).mean(0)  # raw moment of the mixture
    mean, var = start.source_statistics
    torch.testing.assert_close(mean.double(), means.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var.double(), second - means.mean(0) ** 2, rtol=1e-5, atol=1e-6)


def test_only_known_sources_enter_the_mean(make_backbone, make_pixels):
    backbone = make_backbone()
    backbone.network.domains.add(backbone.network.new_domain("stranger"))
    expected = torch.stack([xi_of(backbone.network.domains[n]) for n in backbone.knowledge]).mean(0)
    found = make_start(backbone, MEAN, "target", make_pixels(5)).target
    torch.testing.assert_close(xi_of(found), expected)


@pytest.mark.parametrize("count", [1, 16, 40])
def test_the_targets_own_statistics_are_shrunk_toward_the_sources(
    backbone: Backbone, make_pixels, count: int
):
    images = make_pixels(count)
    start = make_start(backbone, "left", "target", images)
    start.use_statistics(0.0)
    own = estimate_statistics(backbone.network, start.target, [to_pixels(images)])
    share = count / (count + USUAL.prior_images)
    start.use_statistics(1.0)
    for found, source, target in zip(
        (start.target.mean, start.target.var), start.source_statistics, own, strict=True
    ):
        torch.testing.assert_close(found, (1 - share) * source + share * target)


def test_statistics_are_positive_and_finite_with_one_image(backbone: Backbone, make_pixels):
    start = make_start(backbone, MEAN, "target", make_pixels(1, colour=False))
    start.use_statistics(1.0)
    assert start.target.mean.isfinite().all() and (start.target.var > 0).all()


def of_all_starts(
    backbone: Backbone, images: np.ndarray
) -> Iterator[tuple[tuple[str, float], Tensor]]:
    """Logits of every start with every blend, by its name and share."""
    for name in (MEAN, *backbone.network.domains.names):
        start = make_start(backbone, name, "target", images)
        for share in SHARES:
            start.use_statistics(share)
            yield (name, share), predict_logits(backbone.network, start.target, images)


def test_nearest_is_the_candidate_and_blend_with_the_most_information(
    backbone: Backbone, make_pixels
):
    images = make_pixels(LEAST_COMPARED)
    found = {one: score(logits).information for one, logits in of_all_starts(backbone, images)}
    best = best_start(backbone, NEAREST, "target", images, LEAST_COMPARED, SURE)
    assert (best.name, best.share) == max(found, key=lambda key: found[key])
    reached = score(predict_logits(backbone.network, best.target, images)).information
    assert reached == max(found.values())


def test_of_an_unsure_backbone_only_the_blend_is_chosen(backbone: Backbone, make_pixels):
    images = make_pixels(LEAST_COMPARED)
    trusted = trust_of(backbone, images)
    sure = {}
    for least in (0.0, 1.0):
        config = StartConfig(least_certainty=least)
        found = best_start(backbone, NEAREST, "target", images, LEAST_COMPARED, config)
        sure[least] = (found.name, found.share)
    assert sure[0.0] == max(trusted, key=trusted.__getitem__)
    assert sure[1.0] == max(((MEAN, share) for share in SHARES), key=trusted.__getitem__)
    assert sure[0.0] != sure[1.0]


def test_the_choice_is_made_on_few_images_and_the_statistics_are_of_all(
    backbone: Backbone, make_pixels
):
    images = make_pixels(2 * LEAST_COMPARED)
    few = images[:LEAST_COMPARED]
    few = best_start(backbone, NEAREST, "target", few, searched=LEAST_COMPARED)
    found = best_start(backbone, NEAREST, "target", images, searched=LEAST_COMPARED)
    assert (found.name, found.share) == (few.name, few.share)
    expected = make_start(backbone, found.name, "target", images)
    assert torch.equal(found.target_statistics[0], expected.target_statistics[0])


@pytest.mark.parametrize("named", [NEAREST, "left"])
@pytest.mark.parametrize(("count", "searched"), [(LEAST_COMPARED - 1, 400), (60, 10)])
def test_a_few_images_compare_no_starts(
    backbone: Backbone, make_pixels, named: str, count: int, searched: int
):
    images = make_pixels(count)
    found = best_start(backbone, named, "target", images, searched)
    expected = make_start(backbone, MEAN if named == NEAREST else named, "target", images)
    expected.use_statistics(1.0)
    assert (found.name, found.share) == (expected.name, 1.0)
    assert torch.equal(found.target.mean, expected.target.mean)


@pytest.fixture
def estranged(make_backbone) -> Backbone:
    """A backbone that is sure of every class, and whose sources' statistics are of no use."""
    backbone = make_backbone()
    for domain in backbone.network.domains:
        domain.mean.add_(2.0)
    with torch.no_grad():
        for head in backbone.network.heads:
            head.weight.mul_(1e3)
            head.bias.zero_()
    return backbone


def test_a_start_that_makes_classes_up_gives_way_to_source_only(estranged: Backbone, make_pixels):
    unsure, sure = (replace(c, prior_images=0) for c in (UNSURE, SURE))  # statistics move far
    images = make_pixels(60)
    plain = make_start(estranged, MEAN, "target", images)
    before = predict_logits(estranged.network, plain.target, images).mean(dim=0).argmax(dim=1)

    def moved(start: Start) -> float:
        after = predict_logits(estranged.network, start.target, images).mean(dim=0).argmax(dim=1)
        return (before != after).float().mean().item()

    for named in (NEAREST, MEAN):
        found = best_start(estranged, named, "target", images, 60, unsure)
        assert (found.name, found.share, moved(found)) == (MEAN, 0.0, 0.0)
    found = best_start(estranged, MEAN, "target", images, 60, sure)
    assert found.share == 1.0 and moved(found) > 0.5


def test_classes_made_up_by_the_whole_statistics_are_not_trusted_by_half(
    estranged: Backbone, make_pixels, monkeypatch
):
    unsure = replace(UNSURE, prior_images=0)
    half = itertools.cycle([0.0, 1.0, 0.0])  # as `SHARES`
    monkeypatch.setattr("adapters.start.trust", lambda *_: next(half))
    found = best_start(estranged, MEAN, "target", make_pixels(60), 60, unsure)
    assert found.share == 0.0
    unsure = replace(unsure, most_gained=1.0)
    found = best_start(estranged, MEAN, "target", make_pixels(60), 60, unsure)
    assert found.share == 0.5


def of_classes(classes: list[int]) -> Tensor:
    """Certain predictions (M, 3)."""
    return torch.nn.functional.one_hot(torch.tensor(classes), 3).float()


NOTHING, SOMETHING = [0] * 30, [0, 1, 2] * 10


@pytest.mark.parametrize(
    ("source_only", "own_statistics", "expected"),
    [
        (NOTHING, SOMETHING, True),
        (NOTHING, NOTHING, False),
        (NOTHING, [0] * 29 + [1], False),  # hardly more
        (SOMETHING, [1, 2, 0] * 10, False),  # as new statistics may in a domain far away
    ],
)
def test_own_statistics_gain_much_where_they_are_far_more_certain(
    source_only, own_statistics, expected
):
    assert gain_much(of_classes(own_statistics), of_classes(source_only)) is expected


@pytest.mark.parametrize(
    ("source_only", "own_statistics", "share"),
    [(0.6, 0.9, 1.0), (0.6, 0.7, 0.5), (0.2, 0.9, 0.0), (0.2, 0.3, 0.5), (0.6, 0.5, 0.5)],
)
def test_what_own_statistics_gain_is_real_or_made_up_where_no_start_is_sure(
    backbone: Backbone, make_pixels, monkeypatch, source_only, own_statistics, share
):
    half = itertools.cycle([0.0, 1.0, 0.0])  # as `SHARES`
    monkeypatch.setattr("adapters.start.trust", lambda *_: next(half))
    made = {
        0.0: of_certainty(source_only),
        0.5: of_certainty(0.5),
        1.0: of_certainty(own_statistics),
    }
    in_turn = itertools.cycle(made[share] for share in SHARES)
    monkeypatch.setattr("adapters.start.probabilities", lambda _: next(in_turn))
    found = best_start(backbone, NEAREST, "target", make_pixels(60), 60, UNSURE)
    assert (found.name, found.share) == (MEAN, share)


def of_certainty(wanted: float) -> Tensor:
    """Predictions (10, 10) of this certainty, to a hundredth."""
    shares = torch.linspace(0, 1, 200).tolist()
    made = [share * torch.eye(10) + (1 - share) / 10 for share in shares]
    return min(made, key=lambda prediction: abs(certainty(prediction) - wanted))


def test_an_unshared_network_starts_from_statistics_alone(unshared: Backbone, make_pixels):
    start = make_start(unshared, "right", "target", make_pixels(6))
    start.use_statistics(0.0)
    assert list(start.target.parameters()) == []
    assert torch.equal(start.target.mean, unshared.network.domains["right"].mean)


def test_making_a_start_leaves_the_backbone_bit_identical(backbone: Backbone, make_pixels):
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    best_start(backbone, NEAREST, "target", make_pixels(6), searched=4)
    after = backbone.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_the_plain_start_is_the_pooled_domain_where_there_is_one(make_backbone):
    backbone = make_backbone()
    assert plain_start_name(backbone) == MEAN
    backbone.network.domains.add(backbone.network.new_domain(POOLED))
    assert plain_start_name(backbone) == POOLED


def test_an_unknown_start_is_refused_with_the_choices(backbone: Backbone):
    with pytest.raises(ValueError, match="'mars'; choose from mean, nearest, left, middle, right"):
        check_start(backbone, "mars")


def test_a_backbone_that_knows_no_source_is_refused(tiny_config: NetworkConfig):
    backbone = Backbone(CompositionalNetwork(tiny_config), ("a", "b", "c"), {})
    with pytest.raises(ValueError, match="knows no source domain"):
        check_start(backbone, MEAN)


@pytest.mark.parametrize("part", ["heads", "batch norm"])
def test_sources_with_logits_or_batch_norm_of_their_own_are_no_start(make_backbone, part: str):
    """The network's own were not trained, and a new domain would get them."""
    backbone = make_backbone()
    network = backbone.network
    if part == "heads":
        network.own_heads(network.domains["left"], backbone.class_names)
    else:
        network.own_batch_norm(network.domains["left"])
    with pytest.raises(ValueError, match="left: logits or batch norm of their own"):
        check_start(backbone, MEAN)


def differently(backbone: Backbone, name: str, *parts: str) -> Domain:
    """One more domain of a backbone, whose own parts are unlike the network's."""
    domain = backbone.network.new_domain(name)
    generator = torch.Generator().manual_seed(len(name))
    for parameter in unlock(backbone.network, domain, *parts):
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    domain.requires_grad_(False)
    backbone.network.domains.add(domain)
    return domain


@pytest.mark.parametrize("part", ["mixture_weights", "input_adapter", "batch_norm", "heads"])
def test_a_start_of_one_domain_keeps_that_domains_own_parts(make_backbone, make_pixels, part: str):
    backbone, images = make_backbone(), make_pixels(9)
    known = differently(backbone, "site-1", part)
    start = make_start(backbone, "site-1", "site-2", images)
    start.use_statistics(0.0)
    assert start.target.own_parts == known.own_parts
    one, two = start.target.state_dict(), known.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (start.target.name, known.name) == ("site-2", "site-1")
    same = (predict_logits(backbone.network, domain, images) for domain in (start.target, known))
    assert torch.equal(*same)
    own = {value.data_ptr() for value in two.values()}
    assert not any(value.data_ptr() in own for value in one.values())
    assert not any(parameter.requires_grad for parameter in start.target.parameters())


def test_the_own_statistics_of_a_start_are_under_its_own_parts(make_backbone, make_pixels):
    backbone, images = make_backbone(), make_pixels(40)
    known = differently(backbone, "site-1", "input_adapter")
    start = make_start(backbone, "site-1", "target", images, prior_images=0)
    own = estimate_statistics(backbone.network, known, [to_pixels(images)])
    torch.testing.assert_close(start.target_statistics, own)


@pytest.mark.parametrize("owners", [("left", "right"), ("left", "middle", "right")])
def test_the_mean_has_gamma_and_beta_where_all_sources_have(make_backbone, make_pixels, owners):
    backbone = make_backbone()
    known = [backbone.network.domains[name] for name in backbone.knowledge]
    for number, name in enumerate(owners):
        domain = backbone.network.domains[name]
        backbone.network.own_batch_norm(domain)
        for value in (domain.gamma, domain.beta):
            assert value is not None
            value.detach().add_(number)
    target = make_start(backbone, MEAN, "target", make_pixels(5)).target
    assert (target.gamma is not None) is (target.beta is not None) is (len(owners) == 3)
    if len(owners) == 3:
        for part in ("gamma", "beta"):
            expected = torch.stack([domain.get_parameter(part) for domain in known]).mean(dim=0)
            torch.testing.assert_close(target.get_parameter(part), expected)


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_a_task_with_classes_of_its_own_is_no_candidate_for_nearest(
    make_backbone, make_pixels, classes: tuple[str, ...]
):
    """Its predictions are of other classes, so they cannot be compared with the sources'."""
    backbone, images = make_backbone(), make_pixels(60)
    expected = best_start(backbone, NEAREST, "target", images, 60, SURE)
    task = backbone.network.new_domain("task")
    backbone.network.own_heads(task, classes)
    backbone.network.domains.add(task.requires_grad_(False))
    found = best_start(backbone, NEAREST, "target", images, 60, SURE)
    assert (found.name, found.share) == (expected.name, expected.share)


@pytest.mark.parametrize("shares", [(0.25,), (1.0, 0.75)])
def test_shares_that_are_tried_are_an_option(backbone: Backbone, make_pixels, shares):
    config = replace(SURE, shares=shares)
    images = make_pixels(60)
    assert best_start(backbone, "left", "target", images, 60, config).share in {0.0, *shares, 1.0}


def test_how_many_images_compare_starts_is_an_option(backbone: Backbone, make_pixels):
    images = make_pixels(10)
    assert best_start(backbone, NEAREST, "target", images, 10, SURE).name == MEAN
    few = best_start(backbone, NEAREST, "target", images, 10, replace(SURE, least_compared=10))
    found = trust_of(backbone, images)
    assert (few.name, few.share) == max(found, key=lambda one: found[one])


def trust_of(backbone: Backbone, images: np.ndarray) -> dict[tuple[str, float], float]:
    """How far every start with every blend is trusted."""
    predictions = {one: probabilities(logits) for one, logits in of_all_starts(backbone, images)}
    consensus = torch.stack(list(predictions.values())).mean(dim=0)
    return {one: trust(prediction, consensus) for one, prediction in predictions.items()}


def test_what_counts_as_known_is_an_option(estranged: Backbone, make_pixels):
    """Where source only tells images apart, what their own statistics gain is real."""
    unsure = replace(UNSURE, prior_images=0, least_known=0.0)
    assert best_start(estranged, MEAN, "target", make_pixels(60), 60, unsure).share == 1.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shares": ()}, r"shares must be one or more from 0 to 1, got \(\)"),
        ({"shares": (0.0, 1.5)}, "shares must be one or more from 0 to 1"),
        ({"prior_images": -1}, "prior_images must be at least 0, got -1"),
        ({"least_compared": -1}, "least_compared must be at least 0, got -1"),
    ],
)
def test_wrong_limits_are_refused(options: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        StartConfig(**options)

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from adapters.selection import Scores, score, trust
from adapters.strategies.losses import information
from da_compose import Backbone
from da_compose.inference import predict_logits


def sure_of(classes: list[int], num_classes: int = 4) -> Tensor:
    """Logits (M, N) of a head that is certain."""
    return 200.0 * torch.nn.functional.one_hot(torch.tensor(classes), num_classes)


def test_certain_diverse_and_agreeing_heads_have_the_best_scores():
    head = sure_of([0, 1, 2, 3])
    found = score(torch.stack([head, head]))
    assert found.information == pytest.approx(math.log(4), abs=1e-5)
    assert (found.confidence, found.agreement) == pytest.approx((1, 1), abs=1e-5)
    assert found.diversity == pytest.approx(1, abs=1e-5)


def test_one_class_for_every_image_carries_no_information():
    head = sure_of([2, 2, 2])
    found = score(torch.stack([head, head]))
    assert found.information == pytest.approx(0, abs=1e-5)
    assert found.diversity == pytest.approx(0, abs=1e-5)
    assert found.confidence == pytest.approx(1)


def test_undecided_heads_carry_no_information_but_are_diverse():
    found = score(torch.zeros(2, 5, 4))
    assert found.information == pytest.approx(0, abs=1e-5)
    assert found.confidence == pytest.approx(0.25)
    assert found.diversity == pytest.approx(1, abs=1e-5)


def test_agreement_is_the_share_of_equal_choices():
    assert score(torch.stack([sure_of([0, 1, 2, 3]), sure_of([0, 1, 2, 0])])).agreement == 0.75


def test_scores_equal_a_slow_loop():
    logits = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = []
    for image in range(6):
        row = [0.0] * 3
        for head in range(2):
            powers = [math.exp(value) for value in logits[head, image].tolist()]
            row = [r + power / sum(powers) / 2 for r, power in zip(row, powers, strict=True)]
        rows.append(row)
    mean = [sum(row[number] for row in rows) / 6 for number in range(3)]
    of_mean = -sum(p * math.log(p) for p in mean)
    mean_of = sum(-sum(p * math.log(p) for p in row) for row in rows) / 6
    agreed = sum(
        logits[0, image].tolist().index(logits[0, image].max())
        == logits[1, image].tolist().index(logits[1, image].max())
        for image in range(6)
    )
    expected = Scores(
        information=of_mean - mean_of,
        confidence=sum(max(row) for row in rows) / 6,
        agreement=agreed / 6,
        diversity=of_mean / math.log(3),
    )
    found = score(logits)
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-6), name


def test_order_of_the_images_does_not_matter():
    logits = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    there, back = score(logits), score(logits.flip(1))
    assert vars(there) == pytest.approx(vars(back), abs=1e-9)


def test_logits_of_many_batches_are_those_of_single_images(backbone: Backbone, make_pixels):
    images = make_pixels(300, colour=False)  # more than one batch
    domain = backbone.network.domains["left"]
    together = predict_logits(backbone.network, domain, images)
    assert together.shape == (2, 300, 3)
    for position in (0, 255, 256, 299):
        alone = predict_logits(backbone.network, domain, images[position : position + 1])
        torch.testing.assert_close(together[:, position], alone[:, 0], rtol=0, atol=1e-5)


def test_prediction_uses_stored_statistics_and_keeps_them(backbone: Backbone, make_pixels):
    domain = backbone.network.domains["left"]
    before = {name: value.clone() for name, value in domain.state_dict().items()}
    predict_logits(backbone.network, domain, make_pixels(10))
    assert all(torch.equal(value, before[name]) for name, value in domain.state_dict().items())


def test_predictions_that_depend_on_the_batch_are_refused(backbone: Backbone, make_pixels):
    domain = deepcopy(backbone.network.domains["left"]).use_batch_statistics()
    with pytest.raises(ValueError, match="left normalizes by each batch"):
        predict_logits(backbone.network, domain, make_pixels(10))


def test_read_only_images_are_read_without_a_warning(backbone: Backbone, make_pixels):
    images = make_pixels(10)
    images.flags.writeable = False
    logits = predict_logits(backbone.network, backbone.network.domains["left"], images)
    assert logits.shape[1] == len(images)


def test_trust_is_two_where_all_agree_on_certain_and_diverse_classes():
    prediction = torch.eye(4).repeat(3, 1)
    assert trust(prediction, prediction) == pytest.approx(2.0, abs=1e-3)


def test_trust_is_not_misled_by_a_model_that_is_sure_of_what_no_other_sees():
    right = torch.eye(4).repeat(3, 1)
    unsure = 0.7 * right + 0.3 / 4
    alone = right.roll(1, dims=1)  # as certain and as diverse as can be
    consensus = torch.stack([unsure, unsure, unsure, alone]).mean(dim=0)
    assert information(alone) > information(unsure)
    assert trust(alone, consensus) < trust(unsure, consensus)


def test_trust_prefers_information_among_models_that_agree():
    sure, unsure = torch.eye(4), 0.7 * torch.eye(4) + 0.3 / 4
    assert trust(sure, unsure) > trust(unsure, unsure)

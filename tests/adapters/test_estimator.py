"""The scikit-learn estimator: on two noisy sources and a darker target of three brightnesses."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from adapters.estimator import DomainAdaptationClassifier
from da_compose import RECIPES
from da_compose.training.rehearsal import RehearsalConfig

# scikit-learn's checks that fit no table of random features: those are no images
APPLY = {
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_dont_overwrite_attributes",
    "check_do_not_raise_errors_in_init_or_set_param",
}


def samples(domain: int, count: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (M, 8, 8) in [0, 1] whose class is their brightness; classes are words."""
    generator = np.random.default_rng(abs(domain) + 10 * seed)
    classes = np.arange(count) % 3
    images = generator.random((count, 8, 8)) / 4 + classes[:, None, None] / 4
    return images * (0.8 if domain < 0 else 1.0), np.array(["dark", "grey", "light"])[classes]


def data(*domains: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [samples(domain) for domain in domains]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return images, labels, np.repeat(domains, 30)


def estimator(**changes: Any) -> DomainAdaptationClassifier:
    quick = {"pretrain_steps": 12, "adapt_steps": 2, "image_size": 8}
    return DomainAdaptationClassifier(**{**quick, **changes})


def copied(model: DomainAdaptationClassifier) -> DomainAdaptationClassifier:
    return cast(DomainAdaptationClassifier, clone(model))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The default recipe with a tiny network and a short rehearsal."""
    usual = RECIPES["digits-strong"]
    network = replace(usual.network, num_layers=2, num_templates=2, channels=8)
    pretraining = replace(usual.pretraining, batch_size=12, augmentation=None)
    changed = {**RECIPES, "digits-strong": replace(usual, network=network, pretraining=pretraining)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("da_compose.training.pretrain.RECIPES", changed)
        short = RehearsalConfig(mock_targets=2, images=8)
        patch.setattr("da_compose.training.rehearsal.RehearsalConfig", lambda: short)
        yield


@pytest.fixture(scope="module")
def fitted() -> DomainAdaptationClassifier:
    images, labels, domains = data(1, 2, -3)
    hidden = np.where(domains < 0, "unknown", labels)
    return estimator(pretrain_steps=60).fit(images, hidden, sample_domain=domains)


def test_sources_teach_and_the_target_is_predicted(fitted: DomainAdaptationClassifier) -> None:
    images, labels = samples(-3, seed=1)
    assert fitted.classes_.tolist() == ["dark", "grey", "light"]
    assert set(fitted.models_) == {1, 2, -3}
    table = fitted.predict_proba(images)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert fitted.predict(images).tolist() == fitted.classes_[table.argmax(axis=1)].tolist()
    assert fitted.score(images, labels) > 0.6


def test_labels_of_the_target_change_nothing(fitted: DomainAdaptationClassifier) -> None:
    images, labels, domains = data(1, 2, -3)
    wrong = np.where(domains < 0, labels[::-1], labels)
    other = copied(fitted).fit(images, wrong, sample_domain=domains)
    assert np.array_equal(other.predict_proba(images[-30:]), fitted.predict_proba(images[-30:]))


def test_each_row_is_predicted_as_its_domain_says(fitted: DomainAdaptationClassifier) -> None:
    images, _, domains = data(1, 2, -3)
    together = fitted.predict_proba(images, sample_domain=domains)
    for domain in (1, 2, -3):
        alone = fitted.models_[domain].predict_proba(images[domains == domain])
        np.testing.assert_allclose(together[domains == domain], alone, atol=1e-6)
    with pytest.raises(ValueError, match="no domain 7 was fitted; there are: -3, 1, 2"):
        fitted.predict(images[:2], sample_domain=[7, 7])


def test_a_table_of_rows_is_read_as_images(fitted: DomainAdaptationClassifier) -> None:
    images, _ = samples(-3)
    rows = images.reshape(30, -1)
    assert np.array_equal(fitted.predict_proba(rows), fitted.predict_proba(images))
    with pytest.raises(ValueError, match=r"say their height and width: image_shape=\(H, W\)"):
        fitted.predict(rows[:, :-1])


@pytest.mark.parametrize("count", [1, 3])
def test_three_grey_rows_are_no_colours_of_one(fitted: DomainAdaptationClassifier, count: int):
    images, _ = samples(-1)
    whole = fitted.predict_proba(images)[:count]
    for rows in (images[:count], images[:count].reshape(count, -1)):
        np.testing.assert_allclose(fitted.predict_proba(rows), whole, atol=1e-5)


def test_without_domains_all_samples_are_one_source() -> None:
    images, labels = samples(1)
    model = estimator().fit(images, labels)
    assert model.predict(images).shape == (30,)


def test_two_targets_must_be_told_apart() -> None:
    images, labels, domains = data(1, -2, -3)
    model = estimator().fit(images, labels, sample_domain=domains)
    with pytest.raises(ValueError, match="fitted to the targets -3, -2: say by sample_domain"):
        model.predict(images)


@pytest.mark.parametrize(
    ("domains", "complaint"),
    [
        (np.zeros(30, int), "positive for sources"),
        (np.full(30, -1), "no sample has a positive sample_domain"),
        (np.ones(29, int), r"shape \(30,\)"),
        (np.ones(30), "whole numbers"),
    ],
)
def test_wrong_domains_are_refused(domains: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        estimator().fit(*samples(1), sample_domain=domains)


def test_nothing_is_predicted_before_fitting() -> None:
    with pytest.raises(NotFittedError):
        estimator().predict(samples(1)[0])


def test_it_is_cloned_tuned_piped_and_cross_validated() -> None:
    images, labels, domains = data(1, 2, -3)
    assert copied(estimator(image_size=16)).get_params()["image_size"] == 16
    assert estimator().set_params(adapt_steps=7).adapt_steps == 7
    pipe = Pipeline([("scale", FunctionTransformer(lambda x: x / 2)), ("model", estimator())])
    assert pipe.fit(images, labels, model__sample_domain=domains).predict(images).shape == (90,)
    scores = cross_val_score(estimator(), images, labels, cv=2, params={"sample_domain": domains})
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_scikit_learns_checks_that_apply_pass() -> None:
    seen = set()
    for instance, check in estimator_checks_generator(DomainAdaptationClassifier()):  # pyright: ignore
        name = getattr(getattr(check, "func", check), "__name__", "")
        if name in APPLY:
            check(instance)  # pyright: ignore[reportCallIssue]
            seen.add(name)
    assert len(seen) >= 8


def test_skadas_label_free_scorer_takes_it(fitted: DomainAdaptationClassifier) -> None:
    metrics = pytest.importorskip("skada.metrics")
    images, labels, domains = data(1, 2, -3)
    numbers = np.where(domains < 0, -1, np.unique(labels, return_inverse=True)[1])
    score = metrics.PredictionEntropyScorer()(fitted, images, numbers, sample_domain=domains)
    assert np.isfinite(score) and score <= 0

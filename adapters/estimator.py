"""Pretraining and adaptation as one scikit-learn classifier."""

import tempfile
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from adapters.adapt import adapt
from adapters.many import adapt_many
from da_compose.inference import DomainModel
from da_compose.training.pretrain import pretrain


class DomainAdaptationClassifier(ClassifierMixin, BaseEstimator):
    """A backbone of the source samples, adapted to the samples of each target.

    Domains are counted as skada does: `sample_domain` is positive for sources, whose `y` counts,
    and negative for targets, whose `y` is never looked at.

    recipe: as of `da_compose.pretrain`; the default mirrors nothing. strategy: as of
    `adapters.adapt`. pretrain_steps, adapt_steps: None, as usual. image_size: pixels a side that
    images are resized to; None: the recipe's. image_shape: (H, W) or (H, W, 3) of rows where `X` is
    a table (M, features); None: square and grey. random_state: seed, a whole number.

    Fitted: `classes_` (N,); `backbone_`; `models_`, a `DomainModel` for each value of
    `sample_domain`.
    """

    def __init__(
        self,
        recipe: str = "digits-strong",
        strategy: str | None = None,
        pretrain_steps: int | None = None,
        adapt_steps: int | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        random_state: int = 0,
    ) -> None:
        self.recipe = recipe
        self.strategy = strategy
        self.pretrain_steps = pretrain_steps
        self.adapt_steps = adapt_steps
        self.image_size = image_size
        self.image_shape = image_shape
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_domain: Any = None) -> "DomainAdaptationClassifier":
        """Pretrain on the sources' samples, then adapt to each target's.

        X: images (M, H, W) or (M, H, W, 3), uint8 or float in [0, 1], or a table of them.
        y: classes (M,) of any kind; of targets anything. sample_domain: whole numbers (M,), not 0;
        None: all samples are of one source, and nothing is adapted.
        """
        images, labels = self._images(X), np.asarray(y)
        domains = self._domains(sample_domain, len(images), default=1)
        if labels.shape != (len(images),):
            raise ValueError(f"expected y of shape ({len(images)},), got {labels.shape}")
        sources, targets = np.unique(domains[domains > 0]), np.unique(domains[domains < 0])
        if not len(sources):
            raise ValueError("no sample has a positive sample_domain, so there is no source")
        self.classes_, numbers = np.unique(labels[domains > 0], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs 2 classes or more, got {self.classes_.tolist()}")
        places = np.zeros(len(images), dtype=np.int64)
        places[domains > 0] = numbers
        with tempfile.TemporaryDirectory() as folder:
            self.backbone_ = pretrain(
                {f"source-{d}": (images[domains == d], places[domains == d]) for d in sources},
                out=Path(folder),
                recipe=self.recipe,
                seed=self.random_state,
                steps=self.pretrain_steps,
                image_size=self.image_size,
                class_names=[str(name) for name in self.classes_],
                show_progress=False,
            )
        known = self.backbone_.network.domains
        self.models_: dict[int, DomainModel] = {
            int(d): DomainModel(self.backbone_, known[f"source-{d}"]) for d in sources
        }
        adapted = adapt_many(
            self.backbone_,
            {f"target{d}": images[domains == d] for d in targets},
            self.strategy,
            steps=self.adapt_steps,
            seed=self.random_state,
        )
        self.models_ |= {int(d): adapted[f"target{d}"] for d in targets}
        if not len(targets):
            self.models_[-1] = adapt(self.backbone_, images, "source_only")
        return self

    def predict(self, X: Any, sample_domain: Any = None, **_: Any) -> NDArray[Any]:
        """Classes (M,); see `predict_proba`."""
        table = self.predict_proba(X, sample_domain)
        return self.classes_[table.argmax(axis=1)]

    def predict_proba(self, X: Any, sample_domain: Any = None, **_: Any) -> NDArray[np.float64]:
        """Class probabilities (M, N), columns as `classes_`.

        sample_domain: which of the fitted domains each sample is of; None: the only target.
        Other options, such as skada's `allow_source`, change nothing.
        """
        check_is_fitted(self)
        images = self._images(X)
        found = np.empty((len(images), len(self.classes_)))
        domains = self._domains(
            sample_domain, len(images), default=self._only_target(sample_domain)
        )
        for domain in np.unique(domains):
            if domain not in self.models_:
                raise ValueError(
                    f"no domain {domain} was fitted; there are: "
                    f"{', '.join(map(str, sorted(self.models_)))}"
                )
            rows = domains == domain
            found[rows] = self.models_[int(domain)].predict_proba(images[rows]).numpy()
        return found / found.sum(axis=1, keepdims=True)

    def _only_target(self, sample_domain: Any) -> int:
        targets = [domain for domain in self.models_ if domain < 0]
        if sample_domain is None and len(targets) > 1:
            raise ValueError(
                f"fitted to the targets {', '.join(map(str, targets))}: say by sample_domain "
                "which of them each sample is of"
            )
        return targets[0]

    def _images(self, X: Any) -> NDArray[Any]:
        """Images with all axes, (M, 1, H, W) of grey ones: three are no colours of one."""
        images = np.asarray(X)
        if images.ndim != 2:
            grey = images.ndim == 3 and images.shape[-1] > 3
            return images[:, None] if grey else images
        shape = self.image_shape or (isqrt(images.shape[1]),) * 2
        if np.prod(shape) != images.shape[1]:
            raise ValueError(
                f"rows of {images.shape[1]} values are no images of shape {shape}; say their "
                "height and width: image_shape=(H, W) or (H, W, 3)"
            )
        return self._images(images.reshape(len(images), *shape))

    @staticmethod
    def _domains(sample_domain: Any, count: int, default: int) -> NDArray[np.int64]:
        if sample_domain is None:
            return np.full(count, default)
        domains = np.asarray(sample_domain)
        if domains.shape != (count,) or domains.dtype.kind not in "iu" or (domains == 0).any():
            raise ValueError(
                f"sample_domain must be whole numbers of shape ({count},), positive for sources "
                f"and negative for targets, got {domains.dtype} of shape {domains.shape}"
            )
        return domains.astype(np.int64)

"""A scikit-learn pipeline: tables of pixels in, classes out, domains by `sample_domain`.

Steps before the classifier see every sample, labelled or not; the classifier pretrains on the
sources and adapts to the target, whose labels it never looks at.
"""

import sys
from pathlib import Path

import numpy as np
from digits_at_sites import RECIPE, right, sources, target
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from adapters.estimator import DomainAdaptationClassifier


def main(folder: Path) -> None:
    """Fit a pipeline on two sources and a target, predict the target."""
    parts = [*(pictures[:300] for pictures, _ in sources.values()), target]
    X = np.concatenate(parts).reshape(-1, 64)  # a table (M, 64), rows of 8 x 8 pixels
    y = np.concatenate([*(classes[:300] for _, classes in sources.values()), [-1] * len(target)])
    domain = np.repeat([1, 2, -3], [300, 300, len(target)])  # sources positive, as skada does

    pipeline = make_pipeline(
        MinMaxScaler((0.0, 1.0), clip=True),
        DomainAdaptationClassifier(RECIPE, pretrain_steps=100, adapt_steps=20, random_state=0),
    )
    pipeline.fit(X, y, domainadaptationclassifier__sample_domain=domain)

    rows = target.reshape(-1, 64)
    print(f"adapted: {right(pipeline.predict(rows))}")
    classifier = pipeline[-1]
    print(f"expected, without labels: {classifier.models_[-3].estimate}")
    as_source = np.full(len(rows), 1)  # the same pictures, taken for the first source's
    print(f"as site-1: {right(pipeline.predict(rows, sample_domain=as_source))}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))

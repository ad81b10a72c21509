"""`adapt`: from a backbone and unlabelled images of a new domain to a few learned numbers."""

from typing import Any

from adapters.adaptation import Adaptation
from adapters.auto import learn_trusted
from adapters.config import AUTO, STRATEGIES, AdaptConfig
from adapters.loop import learn, prepare
from da_compose import Backbone


def adapt(
    backbone: Backbone,
    images: Any,
    strategy: str = "information_maximization",
    *,
    name: str = "target",
    **options: Any,
) -> Adaptation:
    """Adapt a frozen backbone to unlabelled images of a new domain.

    strategy: a key of `STRATEGIES`, or "auto": the first of several to learn what the guard trusts.
    images: see `da_compose.reading.read_images`; labels in them are never looked at.
    options: fields of `AdaptConfig`, such as trains="input_adapter", steps=200, seed=1.
    The backbone is left bit-identical. Raises ValueError for wrong options or images.
    """
    run = prepare(backbone, images, name, AdaptConfig(strategy=strategy, **options))
    if strategy == AUTO:
        learn_trusted(run)
    elif (method := STRATEGIES[strategy]) is not None:
        learn(run, method)
    return run.result()

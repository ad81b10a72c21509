"""Estimates of accuracy of an adaptation: of what learns nothing, its start, and its outcome."""

from torch import Tensor

from adapters.config import OUTCOME
from adapters.prepare import Ready
from da_compose import Domain, probabilities
from da_compose.estimate import Estimate, Estimator
from da_compose.evidence import another_view, evidence
from da_compose.inference import predict_logits
from da_compose.starts import MOST_VIEWED


def estimates(ready: Ready, domain: Domain, logits: Tensor) -> dict[str, Estimate]:
    """Of source_only, batch_norm, start and `adapted`, whose logits (2, M, N) on the checked images
    are given; none where the backbone has no rehearsal."""
    if ready.backbone.rehearsal is None:
        return {}
    count = min(len(ready.checked), ready.config.num_start_images)
    estimator = Estimator(ready.backbone.rehearsal, count)
    figures = dict(ready.evidence)
    figures[OUTCOME] = figures["start"] if domain is ready.target else told(ready, domain, logits)
    return {name: estimator(found) for name, found in figures.items()}


def told(ready: Ready, domain: Domain, logits: Tensor) -> Tensor:
    """Figures of what a model says of the images that starts were compared on."""
    seen = ready.checked[: ready.config.num_start_images]
    viewed = predict_logits(ready.backbone.network, domain, another_view(seen[:MOST_VIEWED]))
    return evidence(probabilities(logits[:, : len(seen)]), probabilities(viewed))

"""Label-free criteria: which of several target models is the most accurate, without labels.

Each is a pure function of what one candidate says of unlabelled images; larger is better. How well
they rank candidates is measured by `benchmarks.studies.selection`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adapters.selection import score, trust
from adapters.strategies.losses import information, moment_distance, moments
from da_compose import Backbone, Domain, probabilities
from da_compose.evidence import TINY, entropy
from da_compose.inference import batches
from da_compose.knowledge import SourceKnowledge

TEMPERATURE = 0.05  # of `neighbourhood_density`, as published
# C of `density_ratio`: where target and sources overlap, ratios are 1 on average, as they must be;
# at 0.1 and more a few of them are all that counts. Chosen by that, without labels.
REGULARIZATION = 0.01


@dataclass(frozen=True)
class Outputs:
    """What one candidate says of M unlabelled target images, and what is known of the sources.

    logits: of both heads (2, M, N).
    embeddings: what the heads see (M, F).
    consensus: mean prediction (M, N) of the candidates it is compared with, see `compared`.
    source_logits: of the candidate's heads on all remembered source embeddings (2, R, N).
    knowledge: the backbone's. Its embeddings are the source domains' own, so they are the same for
        every candidate, whatever xi, statistics or input adapter it has.
    """

    logits: Tensor
    embeddings: Tensor
    consensus: Tensor
    source_logits: Tensor
    knowledge: Mapping[str, SourceKnowledge]

    @property
    def prediction(self) -> Tensor:
        """Class probabilities (M, N)."""
        return probabilities(self.logits)


@torch.no_grad()
def observe(backbone: Backbone, domain: Domain, images: NDArray[np.uint8]) -> Outputs:
    """Outputs of a candidate by its stored statistics, on its own: the consensus is its prediction.

    images: uint8 (M, S, S) or (M, S, S, 3) at the network's resolution, unlabelled.
    """
    if len(images) < 2:
        raise ValueError(f"expected at least 2 images, got {len(images)}; give more of the target")
    network = backbone.network
    embedded = [network.features(batch, domain)[1] for batch in batches(network, images)]
    embeddings = torch.cat(embedded)
    logits = network.classify(embeddings, domain).cpu()
    remembered = source_embeddings(backbone.knowledge).to(network.device)
    return Outputs(
        logits=logits,
        embeddings=embeddings.cpu(),
        consensus=probabilities(logits),
        source_logits=network.classify(remembered, domain).cpu(),
        knowledge=backbone.knowledge,
    )


def compared(candidates: Sequence[Outputs], voters: Sequence[Outputs]) -> list[Outputs]:
    """The candidates, each beside the consensus of the voters: the mean of their predictions."""
    consensus = torch.stack([voter.prediction for voter in voters]).mean(dim=0)
    return [replace(candidate, consensus=consensus) for candidate in candidates]


def source_embeddings(knowledge: Mapping[str, SourceKnowledge]) -> Tensor:
    """Remembered embeddings of all sources, one source after another (R, F)."""
    return torch.cat([known.embeddings for known in knowledge.values()])


def confidence(outputs: Outputs) -> float:
    """Negative mean entropy of the predictions in nats, -log N to 0 (Morerio et al. 2018)."""
    return -entropy(outputs.prediction).mean().item()


def mutual_information(outputs: Outputs) -> float:
    """Mutual information of image and prediction in nats, 0 to log N: `losses.information`."""
    return information(outputs.prediction).item()


def nuclear_norm(outputs: Outputs) -> float:
    """Nuclear norm of the prediction matrix (M, N), 0 to 1 (BNM, Cui et al. 2020).

    Over its bound sqrt(M min(M, N)), reached where predictions are certain and balanced.
    """
    prediction = outputs.prediction
    norm = torch.linalg.matrix_norm(prediction, "nuc")
    return (norm / (len(prediction) * min(prediction.shape)) ** 0.5).item()


def neighbourhood_density(outputs: Outputs) -> float:
    """Soft neighbourhood density in nats, 0 to log(M - 1) (SND, Saito et al. 2021, eq. 1 to 3).

    Mean entropy of an image's similarities to all others, a softmax of cosines of predictions.
    """
    unit = functional.normalize(outputs.prediction, dim=1)
    cosines = unit @ unit.T  # (M, M)
    others = cosines.fill_diagonal_(-torch.inf)  # an image is no neighbour of its own
    return entropy((others / TEMPERATURE).softmax(dim=1)).mean().item()


def agreement_of_heads(outputs: Outputs) -> float:
    """Share of images on which both heads choose the same class, 0 to 1."""
    return score(outputs.logits).agreement


def closeness_of_moments(outputs: Outputs) -> float:
    """Negative moment distance of the target's and the sources' embeddings: `moment_distance`."""
    sources = [(known.first, known.second) for known in outputs.knowledge.values()]
    return -moment_distance(moments(outputs.embeddings), sources).item()


def embedded_validation(outputs: Outputs) -> float:
    """Negative risk in nats by deep embedded validation (DEV, You et al. 2019, algorithm 1).

    Risk: mean of w l + control (w - 1) over remembered source embeddings, with l the cross-entropy
    of the candidate's heads, w the density ratio of target and sources there, and the control
    variate's coefficient -cov(w l, w) / var(w). Heads that candidates share err alike: then only
    the ratios tell candidates apart.
    """
    sources = outputs.knowledge.values()
    labels = torch.cat([known.labels for known in sources])
    right = probabilities(outputs.source_logits).gather(1, labels[:, None]).squeeze(1)
    losses = -right.clamp_min(TINY).log().double()  # (R,)
    weights = density_ratio(source_embeddings(outputs.knowledge), outputs.embeddings)
    weighted = weights * losses
    spread = weights.var()
    control = 0.0
    if spread > TINY:
        control = -torch.cov(torch.stack([weighted, weights]))[0, 1] / spread
    return -(weighted.mean() + control * (weights.mean() - 1)).item()


def density_ratio(source: Tensor, target: Tensor) -> Tensor:
    """Density of the target over that of the sources, (R,) float64, at each of `source` (R, F).

    target: (M, F). By a logistic regression that tells them apart (You et al. 2019), fitted on
    every other embedding for the rest: those it was fitted on it would know too well.
    """
    # here, as scikit-learn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = torch.cat([source, target]).double().numpy()
    is_target = np.repeat([0, 1], [len(source), len(target)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=1000))
    folds = PredefinedSplit(np.arange(len(features)) % 2)
    found = cross_val_predict(model, features, is_target, cv=folds, method="predict_log_proba")
    of_source, of_target = torch.tensor(found)[: len(source)].T
    return len(source) / len(target) * (of_target - of_source).exp()


def agreement_with_consensus(outputs: Outputs) -> float:
    """Share of images whose class is the consensus's, 0 to 1."""
    chosen, consensus = outputs.prediction.argmax(dim=1), outputs.consensus.argmax(dim=1)
    return (chosen == consensus).float().mean().item()


def trusted(outputs: Outputs) -> float:
    """Information over log N and agreement with the consensus, 0 to 2: `selection.trust`."""
    return trust(outputs.prediction, outputs.consensus)


CRITERIA: Mapping[str, Callable[[Outputs], float]] = {
    "confidence": confidence,
    "information": mutual_information,
    "bnm": nuclear_norm,
    "snd": neighbourhood_density,
    "heads": agreement_of_heads,
    "moments": closeness_of_moments,
    "dev": embedded_validation,
    "consensus": agreement_with_consensus,
    "trust": trusted,
}

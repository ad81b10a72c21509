"""T3A: a class's prototype, of the images its classifier is surest of, in place of the classifier.

Nothing is learned by a gradient, so it is no strategy that steps: `adapt` sets a domain's heads.
"""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from da_compose import Domain, Network
from da_compose.evidence import entropy
from da_compose.inference import batches

SUPPORT = 100  # images of a class at most; the publication chooses among 1, 5, 20, 50, 100 and all


@torch.no_grad()
def with_prototypes(
    network: Network, domain: Domain, images: NDArray[np.uint8], support: int = SUPPORT
) -> Domain:
    """A copy of a domain whose two heads are prototypes (T3A, Iwasawa & Matsuo 2021, section 3).

    Each head has those that it makes itself, and no bias. The publication adjusts while test images
    come; here all images (M, S, S) or (M, S, S, 3), uint8, are seen before the first prediction.
    """
    seen = [network.features(batch, domain)[1] for batch in batches(network, images)]
    embeddings = torch.cat(seen)  # (M, F)
    new = deepcopy(domain)
    new.heads = deepcopy(domain.heads or network.heads).requires_grad_(False)
    for head in new.heads:
        assert isinstance(head, nn.Linear)
        head.weight.copy_(prototypes(head, embeddings, support))
        head.bias.zero_()
    return new


@torch.no_grad()
def prototypes(head: nn.Linear, embeddings: Tensor, support: int = SUPPORT) -> Tensor:
    """Prototypes (N, F) of length 1, by a classifier and unlabelled embeddings (M, F).

    Of each class: the mean of at most `support` embeddings of length 1 that the classifier puts
    there with the least entropy. Its own weights (N, F) are among them, one of each class.
    """
    candidates = torch.cat([head.weight, embeddings])
    logits = head(candidates)
    own = torch.arange(len(head.weight), device=logits.device)
    classes = torch.cat([own, logits[len(own) :].argmax(dim=1)])
    unsure, found = entropy(logits.softmax(dim=1)), []
    for number in own:
        members = (classes == number).nonzero().squeeze(1)
        surest = members[unsure[members].argsort(stable=True)[:support]]
        found.append(functional.normalize(candidates[surest]).mean(dim=0))
    return functional.normalize(torch.stack(found))

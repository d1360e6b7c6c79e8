"""IRNet's training steps at the size that the settings give them, for the count of their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.irnet.losses import relation_losses
from pipelines.irnet.network import IRNet
from pipelines.irnet.settings import IRNetSettings
from stages.cues.backbone import Backbone, grid_of
from stages.cues.classification import tag_losses
from stages.cues.classifier import Classifier
from stages.propagation.pairs import neighbour_offsets
from stages.runtime.memory import Data, Step, labels, pixels

# The loss keeps its parts for each offset until the backward pass; counted with a few offsets, and the rest added,
# because 152 of them take minutes to count. A test counts anew what one takes per cell.
_FEW = 2.0
PAIR_BYTES = 33


def steps(settings: IRNetSettings, data: Data) -> list[Step]:
    """The classifier's and IRNet's own."""
    classifier, network = settings.classifier, settings.network
    own = network.backbone or classifier.backbone

    def classified(model: nn.Module, device: torch.device) -> Tensor:
        count, side = classifier.batch_size, classifier.augment.crop
        batch = {"image": pixels(count, side, side, device),
                 "target": labels(0, 2, (count, data.things), torch.float32, device)}
        return tag_losses(model, batch)["classification"]

    def related(model: nn.Module, device: torch.device) -> Tensor:
        displacement, boundary = model(pixels(network.batch_size, network.augment.crop, network.augment.crop, device))
        known = labels(0, 3, boundary.shape, torch.uint8, device)
        terms = relation_losses(displacement, boundary, known, min(_FEW, network.radius), network.axes)
        return torch.stack(list(terms.values())).sum()

    cells = network.batch_size * (network.augment.crop // settings.grid) ** 2
    more = len(neighbour_offsets(network.radius)) - len(neighbour_offsets(min(_FEW, network.radius)))
    return [Step("train_classifier", classifier.batch_size,
                 lambda: Classifier(classifier.backbone, data.things, classifier.dropout, classifier.logit_scale),
                 classified, classifier.optimizer, classifier.momentum),
            Step("train_irnet", network.batch_size, lambda: IRNet(Backbone(own), network, grid_of(settings.grid)),
                 related, network.optimizer, network.momentum, held=more * cells * PAIR_BYTES)]

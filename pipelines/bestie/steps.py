"""BESTIE's training steps at the size that the settings give them, for the count of their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.bestie.classifier import PeakClassifier
from pipelines.bestie.losses import objective
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.targets import Targets
from stages.cues.classification import tag_losses
from stages.runtime.memory import Data, Step, labels, pixels
from stages.segmentation.memory import segmentation_step


def steps(settings: BestieSettings, data: Data) -> list[Step]:
    """The classifier's where peaks come from one, the segmentation network's where there is one, and the instances'.

    Pseudo and refined labels are empty maps of their size: what finds them depends on the crops, and takes less than
    what the backward pass holds later.
    """
    classifier, network = settings.classifier, settings.network

    def classified(model: nn.Module, device: torch.device) -> Tensor:
        count, side = classifier.batch_size, classifier.augment.crop
        batch = {"image": pixels(count, side, side, device),
                 "target": labels(0, 2, (count, data.things), torch.float32, device)}
        return tag_losses(model, batch)["classification"]

    def refined(model: nn.Module, device: torch.device) -> Tensor:
        count, side = network.batch_size, network.augment.crop
        logits, heat, offset = model(pixels(count, side, side, device))
        semantic = labels(0, 1 + data.things, (count, side, side), torch.int16, device)

        def targets() -> Targets:
            weight = labels(0, 2, (count, side, side), torch.float32, device)
            return Targets(torch.rand(heat.shape, device=device), torch.randn(offset.shape, device=device), weight,
                           weight)

        terms = objective(logits, heat, offset, semantic, targets(),
                          targets() if network.refinement.enabled else None,
                          network.model_copy(update={"hardest": 1.0}))
        return torch.stack(list(terms.values())).sum()

    segmenter = settings.maps.segmenter
    return [*([Step("train_classifier", classifier.batch_size, lambda: PeakClassifier(classifier, data.things),
                    classified, classifier.optimizer, classifier.momentum)] if settings.cues.source == "peaks" else []),
            *([segmentation_step("train_segmenter", segmenter, data.things)]
              if settings.maps.source == "segmenter" else []),
            Step("train_refiner", network.batch_size, lambda: BestieNetwork(network, data.things), refined,
                 network.optimizer, network.momentum)]

"""A segmentation network's training step, for the count of its memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.runtime.memory import Step, labels, pixels
from stages.segmentation.losses import semantic_losses
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.settings import SegmentationSettings


def segmentation_step(name: str, settings: SegmentationSettings, classes: int) -> Step:
    """At the size that the settings give it, with ``classes`` beside background."""

    def loss(model: nn.Module, device: torch.device) -> Tensor:
        count, side = settings.batch_size, settings.augment.crop
        batch = {"image": pixels(count, side, side, device),
                 "labels": labels(0, 1 + classes, (count, side, side), torch.int16, device)}
        return semantic_losses(model, batch)["semantic"]

    return Step(name, settings.batch_size, lambda: SegmentationNetwork(settings, classes), loss, settings.optimizer,
                settings.momentum)

"""A detector's training step, for the count of its memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.detector import network
from stages.detector.settings import DetectorPredictSettings, DetectorTrainSettings, TorchvisionSettings
from stages.runtime.memory import Step

_ASPECT = 4 / 3  # of the images of a batch, which are as large as the largest of them


def detector_step(name: str, settings: TorchvisionSettings, train: DetectorTrainSettings,
                  predict: DetectorPredictSettings, classes: int, masks: bool = True) -> Step:
    """At the largest size that the settings allow; torchvision's network, which stands for Detectron2's of its size.

    Which proposals the heads look at depends on the images: here they look at as many as they may, and the losses are
    sums over all outputs. The truth's masks are not counted. Under mixed precision torchvision's frozen norms give
    single precision, which Detectron2's do not: of Detectron2 the count is too high there.
    """
    def loss(model: nn.Module, device: torch.device) -> Tensor:
        assert isinstance(model, network.MaskRCNN)
        step = max(settings.levels)
        low = max(train.min_sides)
        height, width = (-(-side // step) * step for side in (low, min(train.max_side, round(low * _ASPECT))))
        images = torch.rand(train.batch_size, 3, height, width, device=device)
        maps = model.backbone(images)
        objectness, deltas = model.rpn.head(list(maps.values()))
        outputs = [*objectness, *deltas]
        heads, rois = model.roi_heads, train.batch_size * settings.roi_samples
        outputs += heads.box_predictor(heads.box_head(_pooled(maps, rois, 7)))
        if masks:
            chosen = round(rois * settings.roi_positives)
            outputs.append(heads.mask_predictor(heads.mask_head(_pooled(maps, chosen, 14))))
        return torch.stack([output.float().square().sum() for output in outputs]).sum()

    return Step(name, train.batch_size,
                lambda: network.build(settings, predict, classes, masks=masks,
                                      pretrained=False),
                loss, settings.optimizer, train.momentum)


def _pooled(maps: dict[str, Tensor], count: int, side: int) -> Tensor:
    """(count, C, side, side) with a gradient, as pooling gives it."""
    shown = maps["0"]
    return shown.new_zeros(count, shown.shape[1], side, side) + shown.mean()

"""The panoptic method's training steps at the size that the settings give them, for the count of their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.panoptic.classifier import CropClassifier, tag_loss
from pipelines.panoptic.settings import PanopticSettings
from stages.detector.memory import detector_step
from stages.runtime.memory import Data, Step, labels, pixels
from stages.segmentation.memory import segmentation_step
from stages.segmentation.network import SegmentationNetwork

# Labels of an image, boxes and stuff, where nobody has counted; and a lattice's bytes per pixel.
_LABELS = 20
_LATTICE = 600


def steps(settings: PanopticSettings, data: Data) -> list[Step]:
    """The classifier's of crops where there is stuff, the semantic network's, the box detector's, the instances'.

    The instance CRF stands as its unaries and one map of its labels per step; its lattice depends on the image.
    """
    classifier, instances = settings.classifier, settings.instances
    classes = data.things + data.stuff

    def classified(model: nn.Module, device: torch.device) -> Tensor:
        height, width = min(data.height, 400), min(data.width, 500)  # as `annotations.tag_crops` has it for Cityscapes
        batch = {"image": pixels(classifier.batch_size, height, width, device),
                 "target": labels(0, 2, (classifier.batch_size, classes), torch.float32, device)}
        return tag_loss(model, batch)["classification"]

    def parted(model: nn.Module, device: torch.device) -> Tensor:
        side = instances.augment.crop
        images = pixels(instances.batch_size, side, side, device)
        with torch.set_grad_enabled(instances.end_to_end):
            log_q = model(images).float().log_softmax(1)
        unary = torch.stack([log_q[:, label % log_q.shape[1]] for label in range(_LABELS)], 1)
        logits = unary
        for _ in range(instances.head.steps):
            logits = unary + logits.softmax(1)
        return logits.log_softmax(1).square().sum()

    found = [segmentation_step("refine", settings.network, classes),
             detector_step("train_detector", settings.detector.torchvision, settings.detector.train,
                           settings.detector.predict, data.things, masks=False)]
    if data.stuff:
        found.insert(0, Step("train_classifier", classifier.batch_size, lambda: CropClassifier(classifier, classes),
                             classified, classifier.optimizer, classifier.momentum))
    if instances.end_to_end:
        found.append(Step("train_instances", instances.batch_size,
                          lambda: SegmentationNetwork(settings.network, classes), parted, instances.optimizer,
                          instances.momentum, held=instances.augment.crop ** 2 * _LATTICE))
    return found

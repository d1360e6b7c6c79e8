"""The whole network, semantic and instance subnetwork, and the training of the second (sections 3.5 and 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.panoptic.cues import read_maps
from pipelines.panoptic.instance_head import Detections, InstanceHead, join, stuff_detections
from pipelines.panoptic.matching_loss import Truth, matching_loss
from pipelines.panoptic.settings import InstanceSettings
from pipelines.panoptic.supervision import Boxes, Classes, boxes_of
from stages.cues.augment import Map, random_view
from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.training import Training
from stages.runtime.weights import load_weights
from stages.segmentation.labels import IGNORE
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.training import describe, described_network


class PanopticNetwork(nn.Module):
    """Semantic network and instance subnetwork.

    Args:
        semantic: network of section 3.1.
        settings: of the instance subnetwork.
        channels: of the semantic network that a pixel may have.
    """

    def __init__(self, semantic: SegmentationNetwork, settings: InstanceSettings, channels: Sequence[int]) -> None:
        super().__init__()
        self.semantic, self.end_to_end = semantic, settings.end_to_end
        self.head = InstanceHead(**settings.head.model_dump())
        self.channels = list(channels)
        if not self.end_to_end:
            self.semantic.requires_grad_(False)

    def train(self, mode: bool = True) -> PanopticNetwork:
        """Batch statistics stay as the semantic training left them; without end-to-end all of that network does."""
        super().train(mode)
        if not self.end_to_end:
            self.semantic.eval()
        for module in self.semantic.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, images: Tensor, labels: Sequence[Detections]) -> list[Tensor]:
        """Log marginals of each image's labels.

        Args:
            images: (N, 3, H, W) uint8 RGB.
            labels: N; their classes count among ``channels``.

        Returns:
            N tensors (labels, H, W).
        """
        with torch.set_grad_enabled(self.end_to_end and torch.is_grad_enabled()):
            log_q = self.semantic(images)[:, self.channels].float().log_softmax(1)
        # A view without labels gives the scalars no gradient; a batch of such views needs one all the same.
        nothing = torch.stack([value.sum() for value in self.head.parameters()]).sum() * 0
        return [self.head(own, image, found) + nothing
                for own, image, found in zip(log_q, images, labels, strict=True)]


class Sample(TypedDict):
    """A view: ``image`` (3, crop, crop) uint8; ``labels``, boxes and stuff; ``truth``, tensors of ``Truth``."""

    image: Tensor
    labels: list[Tensor]
    truth: list[Tensor]


class InstanceCrops:
    """Random views of images with their approximate instances and their given boxes, a little moved.

    Args:
        images: of the weak annotations.
        groups: image id -> annotations.
        maps: folder of label maps with instances.
        classes: of the data set.
        settings: views, and how far boxes are moved.
    """

    def __init__(self, images: Sequence[Entry], groups: Mapping[int, Sequence[Entry]], maps: Path, classes: Classes,
                 settings: InstanceSettings) -> None:
        self.images, self.groups, self.maps = list(images), groups, maps
        self.classes, self.settings = classes, settings

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """A view of an image."""
        image = self.images[index]
        labels, instances = read_maps(self.maps, image, self.classes)
        view = random_view(read_rgb(layout.IMAGES / image["file_name"]), {
            "labels": Map(labels, outside=IGNORE), "instances": Map(instances, outside=IGNORE)}, generator,
            self.settings.augment)
        given = boxes_of(image, self.groups[image["id"]], self.classes)
        boxes = moved(view.geometry.boxes(given.xyxy), self.settings.move, generator)
        found, truth = targets(view.maps["labels"], view.maps["instances"], given, boxes, self.classes)
        return {"image": to_tensor(view.image), "labels": list(found), "truth": list(truth)}


def moved(boxes: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Boxes (N, 4) xyxy with each side moved by up to ``share`` of its length, in or out."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    return boxes + generator.uniform(-share, share, boxes.shape) * sides


def targets(labels: np.ndarray, instances: np.ndarray, given: Boxes, boxes: np.ndarray, classes: Classes
            ) -> tuple[Detections, Truth]:
    """What the instance subnetwork is given on a view, and what it shall say.

    Args:
        labels: (H, W) channels or IGNORE.
        instances: (H, W), 1 + index of the given box, 0 or IGNORE.
        given: boxes of the whole image.
        boxes: (N, 4) where they lie in the view; those that show nothing of themselves in it are left out, as are
            crowds.
        classes: of the data set; a class is its place in ``classes.used``.

    Returns:
        Detections with score 1: boxes, then the stuff that the view shows. And the truth: a segment for each instance
        and each class of stuff that is visible.
    """
    height, width = labels.shape
    shown = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height) & ~given.crowd
    kept = np.flatnonzero(shown)
    place = {channel: number for number, channel in enumerate(classes.used)}
    things = Detections(torch.from_numpy(boxes[kept]).float(),
                        torch.tensor([place[channel] for channel in given.channels[kept].tolist()], dtype=torch.int64),
                        torch.ones(len(kept)))
    stuff = [channel for channel in classes.stuff if (labels == channel).any()]
    like = torch.empty(height, width)
    found = join(things, stuff_detections([place[channel] for channel in stuff], like))
    segments = np.full(labels.shape, IGNORE, np.int64)
    own: list[int] = []
    for number, index in enumerate(kept.tolist()):
        mask = instances == 1 + index
        if mask.any():
            segments[mask] = len(own)
            own.append(number)
    for number, channel in enumerate(stuff, start=len(kept)):
        segments[labels == channel] = len(own)
        own.append(number)
    chosen = torch.tensor(own, dtype=torch.int64)
    return found, Truth(torch.from_numpy(segments), found.classes[chosen], chosen)


def as_list(samples: list[Sample]) -> list[Sample]:
    """Images have different numbers of boxes: a batch is a list."""
    return samples


def instance_loss(network: nn.Module, batch: Sequence[Sample]) -> dict[str, Tensor]:
    """The mean of the matching losses of a batch."""
    images = torch.stack([sample["image"] for sample in batch])
    labels = [Detections(*sample["labels"]) for sample in batch]
    found = network(images, labels)
    terms = [matching_loss(marginals, own.classes, Truth(*sample["truth"]))
             for marginals, own, sample in zip(found, labels, batch, strict=True)]
    return {"instances": torch.stack(terms).mean()}


def instance_training(segmenter: Path, maps: Path, weak: Entry, groups: Mapping[int, Sequence[Entry]],
                      classes: Classes, settings: InstanceSettings) -> Training:
    """The training of the instance subnetwork, and end to end of the semantic one.

    Beside the weights of both it leaves ``segmentation.json`` and ``head.json`` with the four scalars.

    Args:
        segmenter: folder of the semantic network.
        maps: folder of label maps with instances.
        weak, groups: weak annotations of the training images; image id -> annotations.
        classes: of the data set.
        settings: of the training.
    """
    semantic, category_ids = described_network(segmenter)
    load_weights(segmenter / "weights.pt", semantic)
    model = PanopticNetwork(semantic, settings, classes.used)
    groups_of_rates: list[dict[str, object]] = [
        {"params": list(model.head.parameters()), "lr": settings.learning_rate * settings.head_factor,
         "weight_decay": 0.0}]
    if settings.end_to_end:
        groups_of_rates.append({"params": [value for value in semantic.parameters() if value.requires_grad],
                                "lr": settings.learning_rate})

    def finish(folder: Path) -> None:
        describe(folder, semantic.settings, category_ids)
        write_json(folder / "head.json", {name: round(value, 6) for name, value in model.head.scalars().items()},
                   indent=2)

    # Coarse outlines teach a semantic network; instances are learnt where they are fine (section 4.1).
    images = [image for image in weak["images"] if not image.get("coarse")] or weak["images"]
    samples = InstanceCrops(images, groups, maps, classes, settings)
    return Training(model, instance_loss, samples, groups=groups_of_rates, collate=as_list, finish=finish)


def load_instances(folder: Path, settings: InstanceSettings, classes: Classes, device: torch.device) -> PanopticNetwork:
    """The trained network, in evaluation mode.

    Raises:
        UserError: missing or damaged files, or weights of another network.
    """
    semantic, _ = described_network(folder)
    model = PanopticNetwork(semantic, settings, classes.used)
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval()

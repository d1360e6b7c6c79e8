"""From COCO labels to what a detector is trained on, and from detections back to COCO results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.detector.settings import DetectorTrainSettings
from stages.labels import coco, rle
from stages.runtime.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Labels:
    """The images to train on, with their instances.

    Attributes:
        images: COCO images, sorted by id.
        instances: image id -> ``category_id`` and ``segmentation`` of each thing that is no crowd.
        crowds: image id -> RLEs of regions that are neither object nor background.
        categories: the things, ``{"id", "name"}``, by position: position + 1 is torchvision's label.
        folder: where the ``file_name``s lie.
    """

    images: list[dict[str, Any]]
    instances: Mapping[int, list[dict[str, Any]]]
    crowds: Mapping[int, list[Any]]
    categories: list[dict[str, Any]]
    folder: Path

    @property
    def position(self) -> dict[int, int]:
        """category id -> 0, 1, 2, ..."""
        return {category["id"]: index for index, category in enumerate(self.categories)}

    def __len__(self) -> int:
        return len(self.images)


def read_labels(path: Path, folder: Path, train: DetectorTrainSettings) -> Labels:
    """Read instance labels for training.

    Stuff is left out. An image without instances is a negative (``keep_empty``), unless it carries crowd regions:
    then nothing in it is certain enough to learn from.

    Raises:
        UserError: not COCO JSON, or not one instance of a thing in it.
    """
    content = coco.read_coco(path)
    things = sorted((item for item in content["categories"] if coco.is_thing(item)), key=lambda item: item["id"])
    known = {item["id"] for item in things}
    instances: dict[int, list[dict[str, Any]]] = {}
    crowds: dict[int, list[Any]] = {}
    for image_id, group in coco.annotations_by_image(content).items():
        wanted = [item for item in group if item["category_id"] in known]
        # Only what training needs: on COCO every loader process holds its own copy of this.
        instances[image_id] = [{key: item[key] for key in ("category_id", "segmentation")}
                               for item in wanted if not item.get("iscrowd")]
        crowds[image_id] = [item["segmentation"] for item in wanted if item.get("iscrowd")] * train.ignore_crowds
    if not any(instances.values()):
        raise UserError(f"{path}: no instance of any thing class in {len(instances)} images, so there is nothing to "
                        f"train a detector on; look at the labels (score, report) and the method's thresholds")
    kept = [image for image in sorted(content["images"], key=lambda image: image["id"])
            if instances[image["id"]] or (train.keep_empty and not crowds[image["id"]])]
    categories = [{"id": item["id"], "name": item["name"]} for item in things]
    return Labels(kept, instances, crowds, categories, folder)


def scaled_size(height: int, width: int, min_side: int, max_side: int) -> tuple[int, int]:
    """Height and width with the shorter side at ``min_side``, or the longer at ``max_side`` if that is less."""
    scale = min(min_side / min(height, width), max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def region(rles: Sequence[Any], height: int, width: int) -> np.ndarray:
    """Union of masks: H x W, bool."""
    union = np.zeros((height, width), bool)
    for item in rles:
        union |= rle.decode(item)
    return union


def repeat_factors(labels: Labels, threshold: float) -> np.ndarray:
    """How often each image comes, for 1 of an image of frequent classes alone (Gupta et al. 2019).

    A class that a share f of the images shows has the factor max(1, sqrt(threshold / f)); an image has the largest
    factor of its classes, 1 without any.

    Returns:
        (images,) float64 from 1 on, in the order of ``labels.images``.
    """
    shown = [{item["category_id"] for item in labels.instances[image["id"]]} for image in labels.images]
    counts = Counter(category for classes in shown for category in classes)
    factors = {category: max(1.0, (threshold * len(shown) / count) ** 0.5) for category, count in counts.items()}
    return np.array([max((factors[category] for category in classes), default=1.0) for classes in shown], np.float64)


class TrainingSamples:
    """Images and targets at the network's resolution, as torchvision's detectors take them.

    It is endless as far as ``runtime.training`` is concerned: ``steps * batch_size`` samples make one epoch of it, so
    that schedules count steps as the papers do. Every image comes equally often, or as its repeat factor says (to
    within one).
    """

    def __init__(self, labels: Labels, settings: DetectorTrainSettings) -> None:
        self.labels, self.settings = labels, settings
        repeats = repeat_factors(labels, settings.repeat_threshold) if settings.repeat_threshold else None
        self._ends = None if repeats is None else np.cumsum(repeats) / repeats.sum()  # shares of the stream

    def __len__(self) -> int:
        return self.settings.steps * self.settings.batch_size

    @property
    def turn(self) -> int:
        """Number of samples from index 0 on in which every image has come as often as it should."""
        return len(self.labels) if self._ends is None else len(self)

    def place(self, index: int) -> int:
        """Position in ``labels.images`` of a sample's image."""
        if self._ends is None:
            return index % len(self.labels)
        return min(int(np.searchsorted(self._ends, (index + 0.5) / len(self), side="right")), len(self.labels) - 1)

    def sample(self, index: int, generator: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Image (3 x H x W, 0..1) and target: boxes (N x 4, xyxy pixel edges), labels (from 1), masks, crowd."""
        import cv2
        import torch

        from stages.labels.images import read_rgb

        image = self.labels.images[self.place(index)]
        pixels_hw3 = read_rgb(self.labels.folder / image["file_name"])
        height, width = pixels_hw3.shape[:2]
        side = int(generator.choice(np.asarray(self.settings.min_sides)))
        high, wide = scaled_size(height, width, side, self.settings.max_side)
        flip = bool(generator.random() < self.settings.flip)

        def place(array: np.ndarray) -> np.ndarray:
            scaled = cv2.resize(array, (wide, high), interpolation=cv2.INTER_LINEAR)
            return np.ascontiguousarray(scaled[:, ::-1]) if flip else scaled

        pixels = self._jitter(place(pixels_hw3).astype(np.float32) / 255.0, generator)
        target = self._instances(image, place, (wide / width, high / height), wide if flip else None, (high, wide))
        crowd = region(self.labels.crowds[image["id"]], image["height"], image["width"])
        if crowd.any():
            target["crowd"] = torch.from_numpy(place(crowd.astype(np.uint8) * 255) > 127)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), target

    def _instances(self, image: Mapping[str, Any], place: Any, scale_xy: tuple[float, float], mirror: int | None,
                   shape: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Targets of the instances that are still there at this resolution."""
        import torch

        boxes, labels, masks = [], [], []
        position = self.labels.position
        for item in self.labels.instances[image["id"]]:
            mask = place(rle.decode(item["segmentation"]).astype(np.uint8) * 255) > 127
            if not mask.any():
                continue
            left, top, w, h = rle.bbox(item["segmentation"])
            box = [left * scale_xy[0], top * scale_xy[1], (left + w) * scale_xy[0], (top + h) * scale_xy[1]]
            if mirror is not None:
                box = [mirror - box[2], box[1], mirror - box[0], box[3]]
            boxes.append(box)
            labels.append(position[item["category_id"]] + 1)
            masks.append(mask)
        stacked = np.stack(masks) if masks else np.zeros((0, *shape), bool)
        return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
                "masks": torch.from_numpy(stacked.astype(np.uint8))}

    def _jitter(self, pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Brightness and contrast factors from 1 +- colour_jitter; the draws are made whatever the setting."""
        bright, contrast = 1.0 + self.settings.colour_jitter * generator.uniform(-1.0, 1.0, 2)
        mean = pixels.mean()
        return np.clip(((pixels - mean) * contrast + mean) * bright, 0.0, 1.0).astype(np.float32)


def coco_results(image_id: int, detections: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]],
                 ) -> list[dict[str, Any]]:
    """Detections of one image as COCO results with the input's category ids, best first.

    Args:
        image_id: id of the image.
        detections: ``label`` (position in ``categories``), ``score``, ``box_xyxy`` and ``mask`` (H x W, bool).
        categories: the detector's categories.
    """
    results = []
    for item in detections:
        if not item["mask"].any():
            continue
        left, top, right, bottom = (float(value) for value in item["box_xyxy"])
        results.append({
            "image_id": image_id,
            "category_id": categories[int(item["label"])]["id"],
            "segmentation": rle.encode(item["mask"]),
            "bbox": [round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)],
            "score": round(float(item["score"]), 5),
        })
    return sorted(results, key=lambda item: (-item["score"], item["category_id"], item["bbox"]))

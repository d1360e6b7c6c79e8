"""What a detector is trained on: images and targets at the network's resolution, drawn from labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from stages.detector.data import Labels
from stages.detector.settings import DetectorTrainSettings
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.images import read_rgb


def scaled_size(height: int, width: int, min_side: int, max_side: int) -> tuple[int, int]:
    """Height and width with the shorter side at ``min_side``, or the longer at ``max_side`` if that is less."""
    scale = min(min_side / min(height, width), max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def region(rles: Sequence[rle.RLE], height: int, width: int) -> np.ndarray:
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

    def sample(self, index: int, generator: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (3 x H x W, 0..1) and target: boxes (N x 4, xyxy pixel edges), labels (from 1), masks where the labels
        have them, crowd where there is one."""
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

    def _instances(self, image: Entry, place: Callable[[np.ndarray], np.ndarray], scale_xy: tuple[float, float],
                   mirror: int | None, shape: tuple[int, int]) -> dict[str, Tensor]:
        """Targets of the instances that are still there at this resolution."""
        boxes, labels, masks = [], [], []
        position = self.labels.position
        for item in self.labels.instances[image["id"]]:
            if self.labels.masks:
                mask = place(rle.decode(item["segmentation"]).astype(np.uint8) * 255) > 127
                if not mask.any():
                    continue
                masks.append(mask)
            left, top, w, h = rle.bbox(item["segmentation"]) if self.labels.masks else item["bbox"]
            box = [left * scale_xy[0], top * scale_xy[1], (left + w) * scale_xy[0], (top + h) * scale_xy[1]]
            if mirror is not None:
                box = [mirror - box[2], box[1], mirror - box[0], box[3]]
            boxes.append(box)
            labels.append(position[item["category_id"]] + 1)
        target = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                  "labels": torch.tensor(labels, dtype=torch.int64)}
        if not self.labels.masks:
            return target
        stacked = np.stack(masks) if masks else np.zeros((0, *shape), bool)
        return {**target, "masks": torch.from_numpy(stacked.astype(np.uint8))}

    def _jitter(self, pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Brightness and contrast factors from 1 +- colour_jitter; the draws are made whatever the setting."""
        bright, contrast = 1.0 + self.settings.colour_jitter * generator.uniform(-1.0, 1.0, 2)
        mean = pixels.mean()
        return np.clip(((pixels - mean) * contrast + mean) * bright, 0.0, 1.0).astype(np.float32)

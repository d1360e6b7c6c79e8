"""The labels of an image by drawing or GrabCut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.baseline.settings import BaselineSettings, MaskKind
from stages.cues.crops import object_box
from stages.cues.objects import Image, box_area
from stages.cues.simple_masks import box_mask, ellipse_mask, grabcut_mask
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.images import read_rgb


def simple_mask(kind: MaskKind, pixels: np.ndarray, item: Entry) -> np.ndarray:
    """Mask (H, W) bool of one object with extreme points or a box; ``pixels`` (H, W, 3) uint8."""
    size, box = (pixels.shape[0], pixels.shape[1]), object_box(item)
    points = item.get("extreme_points", ())
    if kind == "ellipse" and points:
        mask = ellipse_mask(points, size)
        return mask if mask.any() else box_mask(box, size)
    if kind == "grabcut":
        return grabcut_mask(pixels, box)
    if kind == "grabcut_points":
        # Discs, because a lone pixel is soon cut off; smaller ones in small objects.
        radius = min(6.0, (box[2] - box[0]) / 6, (box[3] - box[1]) / 6)
        return grabcut_mask(pixels, box, foreground_xy=points, radius=radius)
    return box_mask(box, size)


def image_labels(image: Image, settings: BaselineSettings) -> list[Entry]:
    """Labels of one image, one for each object, as ``stages.labels.coco.write_instances`` takes them."""
    pixels = read_rgb(image.path) if image.objects else np.zeros((*image.size, 3), np.uint8)
    rows = []
    for item in image.objects:
        kind: MaskKind = "box" if box_area(item) < settings.min_box else settings.masks
        rows.append({"image_id": image.entry["id"], "category_id": item["category_id"],
                     "segmentation": rle.encode(simple_mask(kind, pixels, item)), "score": 1.0, "weak_id": item["id"]})
    return rows


def shares_of_boxes(image: Image, labels: Sequence[Entry]) -> list[float]:
    """Of each object of an image, the share of its box that its label fills."""
    return [rle.area(row["segmentation"]) / max(box_area(item), 1.0)
            for item, row in zip(image.objects, labels, strict=True)]

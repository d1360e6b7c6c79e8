"""The labels of an image by drawing or GrabCut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.baseline.settings import BaselineSettings
from stages.cues.objects import Image, box_area
from stages.cues.settings import MaskKind
from stages.cues.simple_masks import simple_mask
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.images import read_rgb


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

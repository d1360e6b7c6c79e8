"""How well each truth object is covered: all of them, by size, and those in several parts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as rle

from stages.evaluation.matching import Matches
from stages.evaluation.records import Metrics, Record


def part_count(segmentation: Record) -> int:
    """Number of 4-connected parts of an RLE mask."""
    x, y, width, height = (int(value) for value in rle.toBbox(segmentation))
    if not width or not height:
        return 0
    crop = rle.decode(segmentation)[y:y + height, x:x + width]
    return int(cv2.connectedComponents(np.ascontiguousarray(crop), connectivity=4)[0]) - 1


def coverage(iou: np.ndarray, category: np.ndarray | None = None) -> dict[str, float]:
    """Count, mean IoU and recall at .5 of truth objects, from the IoU of the best label of each.

    With their classes (N,), ``class_mean_iou`` too: the mean over the classes of the mean over the objects of each. The
    best label is the same-class label of the image with the highest IoU; it may be the best of several objects.
    An object that no label of its class touches counts with IoU 0.
    """
    figures: dict[str, float] = {"objects": len(iou)}
    if len(iou):
        figures |= {"mean_iou": float(iou.mean()), "recall50": float((iou >= 0.5).mean())}
        if category is not None:
            figures["class_mean_iou"] = float(np.mean([iou[category == name].mean() for name in np.unique(category)]))
    return figures


def coverage_by_size(matches: Matches, medium_from: float, large_from: float) -> dict[str, dict[str, float]]:
    """:func:`coverage` of small, medium and large truth objects, and of all that are not small."""
    size = np.digitize(matches.truth_area, [medium_from, large_from])
    return {**{name: _of(matches, size == number) for number, name in enumerate(("small", "medium", "large"))},
            "medium_and_large": _of(matches, size > 0)}


def coverage_of_separated(matches: Matches, truth: Sequence[Record], medium_from: float) -> Metrics:
    """:func:`coverage` of the truth objects with several 4-connected parts, and of those that are not small."""
    parts = {item["id"] for item in truth if not item.get("iscrowd", 0) and part_count(item["segmentation"]) > 1}
    separated = np.isin(matches.truth_id, sorted(parts))
    return {**_of(matches, separated),
            "medium_and_large": _of(matches, separated & (matches.truth_area >= medium_from))}


def _of(matches: Matches, chosen: np.ndarray) -> dict[str, float]:
    return coverage(matches.truth_iou[chosen], matches.truth_category[chosen])

"""How right retrieved points are: precision and coverage inside the boxes, against true masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stages.evaluation.records import Record
from stages.labels import rle
from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND
from stages.runtime import layout
from stages.runtime.files import read_npz

SAME_BOX = 0.5
"""IoU of boxes from which a truth object is the one that was annotated."""


def measure_points(folder: Path, images: Sequence[Record], objects: Sequence[Record]) -> \
        dict[str, float]:
    """Compare the points of all images with the truth.

    Args:
        folder: of ``.npz`` files as in ``stages.labels.points``; images without a file do not count.
        images: COCO images.
        objects: truth annotations with RLE masks; crowds are no objects.

    Returns:
        In percent: of the retrieved foreground and background points those that are right (``*_precision``), of the
        true foreground and background cells in the boxes those that were retrieved (``*_coverage``), the right ones
        of the given foreground points (``given_precision``) and the share of foreground in the boxes (``prior``).
        A cell counts as foreground if half of it or more is. What cannot be measured is absent.
    """
    groups: dict[int, list[Record]] = {}
    for item in objects:
        if not item.get("iscrowd", 0):
            groups.setdefault(item["image_id"], []).append(item)
    counts = np.zeros((5, 2), np.int64)  # label by truth
    matched = 0
    for image in images:
        path = folder / f"{layout.image_key(image)}.npz"
        if not path.exists():
            continue
        found = read_npz(path)
        for labels, window, box, category in zip(found["labels"], found["windows"], found["boxes"],
                                                 found["categories"], strict=True):
            same = _same(box, [item for item in groups.get(image["id"], []) if item["category_id"] == category])
            if same is None:
                continue
            matched += 1
            truth = _cell_truth(rle.decode(same["segmentation"]), window, labels.shape[-1])
            for value in range(BACKGROUND, FOREGROUND + 1):
                chosen = labels == value
                right = int(truth[chosen].sum())
                counts[value - BACKGROUND] += int(chosen.sum()) - right, right
    inside = counts[1:].sum(0)
    background, foreground, given = (counts[value - BACKGROUND] for value in (PSEUDO_BACKGROUND, PSEUDO_FOREGROUND,
                                                                              FOREGROUND))
    shares = {
        "foreground_precision": (foreground[1], foreground.sum()), "foreground_coverage": (foreground[1], inside[1]),
        "background_precision": (background[0], background.sum()), "background_coverage": (background[0], inside[0]),
        "given_precision": (given[1], given.sum()),
        "prior": (inside[1], inside.sum()),
    }
    return {"objects": matched, **{name: round(100 * float(part) / float(whole), 3)
                                   for name, (part, whole) in shares.items() if whole}}


def _same(box: np.ndarray, objects: Sequence[Record]) -> Record | None:
    """The object whose box is most like ``box`` (xyxy), if one is like it at all."""
    best: Record | None = None
    overlap = SAME_BOX
    for item in objects:
        x, y, width, height = item["bbox"]
        across = min(box[2], x + width) - max(box[0], x)
        along = min(box[3], y + height) - max(box[1], y)
        both = max(across, 0) * max(along, 0)
        iou = both / ((box[2] - box[0]) * (box[3] - box[1]) + width * height - both)
        if iou > overlap:
            best, overlap = item, iou
    return best


def _cell_truth(mask: np.ndarray, window: np.ndarray, cells: int) -> np.ndarray:
    """(cells, cells) bool: cells of the window of which at least half is foreground."""
    x0, y0, x1, y1 = (int(value) for value in window)
    part = mask[y0:y1, x0:x1].astype(np.float32)
    large = part.shape[0] >= cells and part.shape[1] >= cells
    return cv2.resize(part, (cells, cells), interpolation=cv2.INTER_AREA if large else cv2.INTER_LINEAR) >= 0.5

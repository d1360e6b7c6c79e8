"""Coverage of instances (Silberman et al., ECCV 2014), KITTI's measure: MWCov and MUCov of WISE's table 6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stages.evaluation.matching import by_image, overlaps
from stages.evaluation.records import Record


def image_coverage(iou: np.ndarray, areas: np.ndarray) -> tuple[float, float]:
    """How well the objects of one image are covered.

    For each true object the IoU with the detection that covers it best; a detection may cover several. That is what
    the measure says; exchanging truth and detections, as some published figures do, rewards detecting little.

    Args:
        iou: (objects, detections).
        areas: (objects,), [px]; at least one object.

    Returns:
        The mean weighted by area, and the plain one, in 0..1.
    """
    best = iou.max(axis=1) if iou.shape[1] else np.zeros(len(areas))
    return float((best * areas).sum() / areas.sum()), float(best.mean())


def mean_coverage(truth: Iterable[Record], detections: Iterable[Record]) -> dict[str, float]:
    """Mean over the images of :func:`image_coverage`, of objects and detections of the same class.

    Args:
        truth: COCO annotations with ``image_id, category_id, area, segmentation`` (RLE); crowds are left out.
        detections: the same without ``area``.

    Returns:
        ``mwcov`` and ``mucov`` in 0..1, and ``images``: those that have an object. Without one there is only their
        number, 0.
    """
    truth_groups = by_image(item for item in truth if not item.get("iscrowd", 0))
    found = by_image(detections)
    rows = [image_coverage(_same_class(objects, found.get(image, [])), np.array([item["area"] for item in objects],
                                                                                np.float64))
            for image, objects in sorted(truth_groups.items())]
    if not rows:
        return {"images": 0}
    weighted, plain = np.mean(rows, axis=0).tolist()
    return {"mwcov": weighted, "mucov": plain, "images": len(rows)}


def _same_class(objects: Sequence[Record], detections: Sequence[Record]) -> np.ndarray:
    """(objects, detections) IoU, 0 between different classes."""
    iou = overlaps([item["segmentation"] for item in objects], [item["segmentation"] for item in detections])
    classes, others = (np.array([item["category_id"] for item in items], np.int64) for items in (objects, detections))
    return np.where(classes[:, None] == others[None], iou, 0.0)

"""Panoptic quality (Kirillov et al., CVPR 2019): PQ = SQ x DQ, the matched overlap times the share of matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.evaluation.records import Record
from stages.labels import rle

COLUMNS = ("iou_sum", "hits", "false_alarms", "misses", "objects")


def panoptic_counts(truth_segments: np.ndarray, truth: Sequence[Record], predicted_segments: np.ndarray,
                    predicted: Sequence[Record], unlabelled_is_void: bool = False,
                    void: np.ndarray | None = None) -> dict[int, np.ndarray]:
    """Count one image.

    A predicted and a true segment of one class match if their IoU is above 0.5 (so at most one can).

    Args:
        truth_segments: (H, W) int, 0 where nothing is labelled, else 1 + place in ``truth``.
        truth: segments with ``category_id``; those with ``iscrowd`` are void for their own class.
        predicted_segments: (H, W) int, the same for ``predicted``.
        predicted: segments with ``category_id``.
        unlabelled_is_void: pixels without truth count neither for nor against a prediction: right where the truth
            labels all things and stuff, wrong where it labels things only (the rest then is background).
        void: (H, W) bool, pixels that nobody labelled, where only some of those without truth are void.

    Returns:
        category id -> float64 array of :data:`COLUMNS`; add them up over images.
    """
    shape = (len(truth) + 1, len(predicted) + 1)
    pairs = truth_segments.astype(np.int64).ravel() * shape[1] + predicted_segments.ravel()
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    truth_category = np.array([-1, *(item["category_id"] for item in truth)], np.int64)
    predicted_category = np.array([-2, *(item["category_id"] for item in predicted)], np.int64)
    crowd = np.array([False, *(bool(item.get("iscrowd", 0)) for item in truth)])
    truth_area, predicted_area = common.sum(axis=1), common.sum(axis=0)
    same_class = truth_category[:, None] == predicted_category[None]

    open_area = common[0] if unlabelled_is_void else np.zeros(shape[1])
    if void is not None and not unlabelled_is_void:
        open_area = np.bincount(predicted_segments[void & (truth_segments == 0)], minlength=shape[1]).astype(np.float64)
    union = truth_area[:, None] + (predicted_area - open_area)[None] - common
    iou = np.divide(common, union, out=np.zeros(shape), where=union > 0)
    iou[~same_class | crowd[:, None]] = 0.0
    match = iou > 0.5
    # A prediction that matches nothing and lies mostly in void or in crowds of its class is not held against it.
    ignored = open_area + (common * (same_class & crowd[:, None])).sum(axis=0)
    false_alarm = ~match.any(axis=0) & (predicted_area > 0) & (ignored <= 0.5 * predicted_area)
    countable = (truth_area > 0) & ~crowd
    countable[0] = false_alarm[0] = False

    counts = {}
    for category in np.unique(np.concatenate([truth_category[1:], predicted_category[1:]])):
        rows, columns = truth_category == category, predicted_category == category
        hits = match[rows].sum()
        objects = (countable & rows).sum()
        counts[int(category)] = np.array([
            iou[rows][match[rows]].sum(), hits, (false_alarm & columns).sum(), objects - hits, objects], np.float64)
    return counts


def panoptic_quality(counts: Mapping[int, np.ndarray], invented: bool = False) -> dict[int, dict[str, float]]:
    """``PQ, SQ, DQ`` in 0..1 per category that has true segments; SQ is 0 where nothing matched.

    Args:
        counts: of :func:`panoptic_counts`.
        invented: whether categories without true segments count, with 0, where there are false alarms of them, as
            panopticapi and torchmetrics have it.
    """
    result = {}
    for category, (iou_sum, hits, false_alarms, misses, objects) in sorted(counts.items()):
        if objects or (invented and false_alarms):
            detection_quality = float(hits / (hits + 0.5 * false_alarms + 0.5 * misses))
            segmentation_quality = float(iou_sum / hits) if hits else 0.0
            result[category] = {"PQ": segmentation_quality * detection_quality, "SQ": segmentation_quality,
                                "DQ": detection_quality}
    return result


def void_mask(image: Record) -> np.ndarray | None:
    """The pixels of an image of the truth that nobody labelled (H, W) bool; None where it has no such pixels."""
    return rle.decode(image["void"]) if "void" in image else None

"""Average precision by the protocol of Pascal VOC, for masks (AP^r) and for image tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.evaluation.matching import Matches

VOLUME_THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""IoU thresholds of AP_vol: .1 to .9 in steps of .1."""


def voc_hits(matches: Matches, category: int, threshold: float) -> tuple[np.ndarray, int]:
    """Judge one class's detections in order of falling score, as VOC's development kit does.

    A detection belongs to the truth object of its class and image that it overlaps most. It is a hit if that
    IoU is at least ``threshold`` and no detection before it has taken the object (a duplicate is a false alarm).
    A detection that reaches no object but lies in a crowd region (by at least ``threshold`` of its own area)
    is left out of the count.

    Returns:
        hits (n,) bool in order of falling score, without those left out; and the number of truth objects.
    """
    rows = np.flatnonzero(matches.category == category)
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    reaches = matches.best_iou[rows] >= threshold
    left_out = ~reaches & (matches.crowd_cover[rows] >= threshold)
    hits = np.zeros(len(rows), bool)
    candidates = np.flatnonzero(reaches)
    # np.unique gives the first place of each truth object, which is its best-scored detection.
    hits[candidates[np.unique(matches.best_truth[rows[candidates]], return_index=True)[1]]] = True
    return hits[~left_out], int((matches.truth_category == category).sum())


def average_precision(hits: np.ndarray, objects: int, recall_points: int | None = None) -> float:
    """Area under the precision-recall curve, in 0..1.

    Args:
        hits: (n,) bool, in order of falling score.
        objects: number of truth objects; with 0 the answer is NaN (there is nothing to find).
        recall_points: None integrates precision, made non-increasing from the right, over every change of recall (VOC
            since 2010); a number averages it at that many even recall values from 0 to 1 (COCO: 101, VOC 2007: 11).
    """
    if objects == 0:
        return float("nan")
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    recall = found / objects
    precision = found / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if recall_points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    places = np.searchsorted(recall, np.linspace(0.0, 1.0, recall_points), side="left")
    return float(np.append(envelope, 0.0)[places].mean())


def voc_average_precision(matches: Matches, categories: Sequence[int], threshold: float,
                          recall_points: int | None = None) -> dict[int, float]:
    """AP^r at one IoU threshold for each category that has truth objects, in 0..1."""
    result = {}
    for category in categories:
        hits, objects = voc_hits(matches, category, threshold)
        if objects:
            result[category] = average_precision(hits, objects, recall_points)
    return result


def tag_average_precision(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """AP of a multi-label classifier per class, in 0..1; their mean is its mAP.

    Args:
        scores: (N, C) float, one row per image.
        present: (N, C) bool, the classes that the image shows.

    Returns:
        (C,) float64: precision summed over the steps of recall, without interpolation, images of equal score
        taken together; NaN for a class that no image shows (use ``np.nanmean``).
    """
    scores, present = np.asarray(scores, np.float64), np.asarray(present, bool)
    result = np.full(scores.shape[1], np.nan)
    for column in range(scores.shape[1]):
        total = present[:, column].sum()
        if not total:
            continue
        order = np.argsort(-scores[:, column], kind="stable")
        ranked = scores[order, column]
        last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        found = np.cumsum(present[order, column])[last_of_ties]
        result[column] = np.sum(np.diff(found, prepend=0) / total * found / (last_of_ties + 1))
    return result

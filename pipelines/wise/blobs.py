"""Blobs of L-Net's classes, the points in them, and the lines along which they are to be split (section 3.1).

A blob is an 8-connected component of pixels with the same most probable class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.measure import label
from skimage.segmentation import watershed

_WINDOW = np.ones((7, 7), np.uint8)
"""Of the black top-hat before the watershed [px] (not in the paper; published code: 7)."""


@dataclass(frozen=True)
class Blobs:
    """Blobs of one image.

    Attributes:
        labels: (H, W) int; 0 = background, 1..B = number of the blob, in reading order of their first pixels.
        classes: (B + 1,) int64, class of each blob; entry 0 belongs to the background and is 0.
    """

    labels: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Points:
    """Points of one image, each pixel at most once per class.

    Attributes:
        yx: (P, 2) int64, row and column.
        classes: (P,) int64, from 1 on.
    """

    yx: np.ndarray
    classes: np.ndarray


def pixels_at(yx: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(P, 2) int64: the pixels nearest to positions (pixel centres on integers); none lies beyond the border."""
    positions = np.asarray(yx, np.float64).reshape(-1, 2)
    return np.clip(np.floor(positions + 0.5), 0, np.array(size) - 1).astype(np.int64)


def make_points(yx: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> Points:
    """Points without repetitions, rounded to pixels; those beyond the border come to the nearest pixel.

    Args:
        yx: (P, 2) rows and columns, pixel centres on integers.
        classes: (P,) from 1 on.
        size: (H, W).
    """
    table = np.zeros((len(classes), 3), np.int64)
    table[:, 0] = classes
    table[:, 1:] = pixels_at(yx, size)
    _, first = np.unique(table, axis=0, return_index=True)
    table = table[np.sort(first)]
    return Points(table[:, 1:], table[:, 0])


def find_blobs(classes: np.ndarray) -> Blobs:
    """8-connected components of a map of classes (H, W), 0 = background."""
    labels, count = label(classes, background=0, return_num=True, connectivity=2)
    of_blob = np.zeros(count + 1, np.int64)
    of_blob[labels.ravel()] = classes.ravel()
    return Blobs(labels, of_blob)


def points_per_blob(blobs: Blobs, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie in a blob of their own class.

    Returns:
        (P,) the number of that blob, or 0; and (B + 1,) how many such points each blob has.
    """
    at = blobs.labels[points.yx[:, 0], points.yx[:, 1]]
    own = np.where(blobs.classes[at] == points.classes, at, 0)
    counts = np.bincount(own[own > 0], minlength=len(blobs.classes))
    return own, counts


def false_positive_weights(blobs: Blobs, points: Points) -> np.ndarray:
    """(H, W) float32: in every blob without a point of its class 1 / its area, elsewhere 0."""
    _, counts = points_per_blob(blobs, points)
    areas = np.bincount(blobs.labels.ravel(), minlength=len(counts))
    lost = (counts == 0) & (areas > 0)
    lost[0] = False
    return np.where(lost, 1 / np.maximum(areas, 1), 0).astype(np.float32)[blobs.labels]


def split_weights(blobs: Blobs, points: Points, probability: Callable[[int | None], np.ndarray]) -> np.ndarray:
    """Weights of -log S_0 in the split term (sec. 3.1; the cited LC-FCN has a local and a global one).

    Local: in a blob with n >= 2 points of its class, lines between those points, weight n in all. Global: in the whole
    image, lines between all points, weight 1 in all.

    Args:
        blobs: of the most probable classes.
        points: annotated ones.
        probability: (H, W) float32 of a class, or for None the largest of all classes without the background. It is
            called only where lines are wanted.

    Returns:
        (H, W) float32, 0 where there is no line.
    """
    weights = np.zeros(blobs.labels.shape, np.float32)
    own, counts = points_per_blob(blobs, points)
    for blob in np.flatnonzero(counts >= 2).tolist():
        inside = blobs.labels == blob
        lines = dividing_lines(probability(int(blobs.classes[blob])), points.yx[own == blob]) & inside
        _share_out(weights, lines, float(counts[blob]))
    if len(np.unique(points.yx, axis=0)) >= 2:
        _share_out(weights, dividing_lines(probability(None), points.yx), 1.0)
    return weights


def _share_out(weights: np.ndarray, pixels: np.ndarray, total: float) -> None:
    count = int(pixels.sum())
    if count:
        weights[pixels] += total / count


def dividing_lines(probability: np.ndarray, yx: np.ndarray) -> np.ndarray:
    """Lines between the catchment basins of points, two pixels wide: one on either side.

    Args:
        probability: (H, W) float32; its black top-hat is flooded.
        yx: (P, 2) pixels, the seeds.

    Returns:
        (H, W) bool: pixels with a 4-neighbour in another basin.
    """
    seeds = np.zeros(probability.shape, np.int32)
    for number, (row, column) in enumerate(np.unique(yx, axis=0).tolist(), start=1):
        seeds[row, column] = number
    basins = watershed(black_top_hat(probability), seeds)
    lines = np.zeros(basins.shape, bool)
    below, beside = basins[1:] != basins[:-1], basins[:, 1:] != basins[:, :-1]
    lines[1:] |= below
    lines[:-1] |= below
    lines[:, 1:] |= beside
    lines[:, :-1] |= beside
    return lines


def black_top_hat(values: np.ndarray) -> np.ndarray:
    """Closing minus the values themselves: (H, W) float32, high in gaps that are narrower than the window."""
    return cv2.morphologyEx(np.ascontiguousarray(values, np.float32), cv2.MORPH_BLACKHAT, _WINDOW)


def blob_points(probabilities: np.ndarray, least: float = 0.0) -> tuple[Points, np.ndarray, Blobs]:
    """What L-Net locates: the most probable pixel of every blob (fig. 4).

    Args:
        probabilities: (C + 1, H, W), channel 0 background.
        least: blobs whose highest probability is lower are left out.

    Returns:
        Points, one per blob in the order of the blobs' numbers, of equal pixels the first in reading order; their
        probabilities (P,) float32; the blobs, renumbered to 1..P.
    """
    best = probabilities.argmax(0)
    blobs = find_blobs(best)
    flat, numbers = probabilities.max(0).ravel(), blobs.labels.ravel()
    # Pixels by blob, within a blob by falling probability; a stable sort keeps the reading order of equals.
    order = np.argsort(-flat, kind="stable")
    order = order[np.argsort(numbers[order], kind="stable")]
    found, starts = np.unique(numbers[order], return_index=True)
    peaks = order[starts[found > 0]]
    kept = flat[peaks] >= least
    renumbered = np.zeros(len(blobs.classes), np.int64)
    renumbered[1:][kept] = np.arange(1, kept.sum() + 1)
    classes = blobs.classes[1:][kept]
    yx = np.stack(np.unravel_index(peaks[kept], best.shape), 1).astype(np.int64).reshape(-1, 2)
    return (Points(yx, classes), flat[peaks[kept]].astype(np.float32),
            Blobs(renumbered[blobs.labels], np.concatenate([[0], classes])))

"""The small regions that a photograph is cut into, what they look like, and which of them touch.

Everything after this works on regions, not on pixels: a proposal is a set of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import higra as hg
import numpy as np

COLOUR_BINS = 16
"""Bins of each channel's histogram."""
DIRECTIONS = 8
"""Directions of the texture's derivatives."""
TEXTURE_BINS = 6
"""Bins of the strength of each derivative."""
_LAB_RANGE = np.array([[0, 100], [-60, 60], [-60, 60]], np.float32)
_STRENGTH_RANGE = 12.0


@dataclass(frozen=True)
class Regions:
    """N connected regions that cover an image of (h, w) pixels, and their E pairs of neighbours.

    Attributes:
        labels: (h, w) int32, the region of each pixel.
        area: (N,) pixels.
        border: (N,) pixels on the image's border.
        moments: (N, 5) sums over the pixels of x, y, xx, yy, xy, in units of the longer side.
        colour: (N, 3) mean Lab.
        spread: (N, 3) standard deviation of Lab.
        colour_histogram: (N, 3 * COLOUR_BINS), each channel's bins sum to 1/3.
        texture: (N, DIRECTIONS) mean strength of the lightness's derivative in each direction.
        texture_histogram: (N, DIRECTIONS * TEXTURE_BINS), all bins sum to 1.
        edges: (E, 2) neighbours, the smaller first.
        length: (E,) pairs of 4-connected pixels between two neighbours.
        contrast: (E,) mean strength of the image's edges along that boundary (0 .. about 100).
        side: longer side of the image [px].
    """

    labels: np.ndarray
    area: np.ndarray
    border: np.ndarray
    moments: np.ndarray
    colour: np.ndarray
    spread: np.ndarray
    colour_histogram: np.ndarray
    texture: np.ndarray
    texture_histogram: np.ndarray
    edges: np.ndarray
    length: np.ndarray
    contrast: np.ndarray
    side: int

    def __len__(self) -> int:
        return len(self.area)


def to_lab(image: np.ndarray) -> np.ndarray:
    """RGB uint8 (h, w, 3) -> CIE Lab float32, lightness 0..100."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def smoothed(lab: np.ndarray) -> np.ndarray:
    """Without the grain of a photograph, edges kept: a bilateral filter over 9 x 9 px (Lab 12, 3 px)."""
    return cv2.bilateralFilter(np.ascontiguousarray(lab, np.float32), 9, 12, 3)


def oversegment(lab: np.ndarray, count: int) -> np.ndarray:
    """Cut an image into about ``count`` regions: the watershed hierarchy by area of the differences of Lab.

    Args:
        lab: (h, w, 3) float32.
        count: regions that are wanted; where areas are equal there may be a few more.

    Returns:
        (h, w) int32, connected regions 0, 1, ... in the order of their first pixel.
    """
    height, width = lab.shape[:2]
    if height * width == 1:
        return np.zeros((1, 1), np.int32)
    graph = hg.get_4_adjacency_graph((height, width))
    # Rounded, because what a filter leaves of rounding errors would cut flat areas into pieces.
    steps = np.round(hg.weight_graph(graph, lab.astype(np.float64), hg.WeightFunction.L2), 3)
    tree, altitudes = hg.watershed_hierarchy_by_area(graph, steps)
    cut = hg.HorizontalCutExplorer(tree, altitudes).horizontal_cut_from_num_regions(min(count, height * width))
    return in_order(cut.labelisation_leaves(tree).reshape(height, width))


def in_order(labels: np.ndarray) -> np.ndarray:
    """Number the labels 0, 1, ... in the order of their first pixel; int32."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse].reshape(labels.shape)


def describe(labels: np.ndarray, lab: np.ndarray, scales: tuple[float, ...] = (1.0, 2.0, 4.0)) -> Regions:
    """Measure the regions of ``labels`` (0 .. N - 1, all in use) on an image in Lab.

    Args:
        labels: (h, w) int32.
        lab: (h, w, 3) float32.
        scales: deviations of the smoothings whose differences make the contrast [px].
    """
    count, flat = int(labels.max()) + 1, labels.ravel()
    area = np.bincount(flat, minlength=count).astype(np.float64)

    colour = means(labels, lab)
    spread = np.sqrt(np.maximum(means(labels, lab.astype(np.float64) ** 2) - colour ** 2, 0))
    strength = derivatives(lab[:, :, 0])
    edges, length, contrast = boundaries(labels, lab, scales)
    return Regions(
        labels=labels, area=area, border=_border_pixels(labels, count), moments=_moments(labels, count),
        colour=colour, spread=spread,
        colour_histogram=_histogram(flat, count, lab.reshape(-1, 3), _LAB_RANGE, COLOUR_BINS),
        texture=means(labels, strength),
        texture_histogram=_histogram(flat, count, np.log1p(strength).reshape(-1, DIRECTIONS),
                                     np.tile([[0, np.log1p(_STRENGTH_RANGE)]], (DIRECTIONS, 1)), TEXTURE_BINS),
        edges=edges, length=length, contrast=contrast, side=max(labels.shape))


def means(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(h, w, C) -> (N, C), the mean over each region."""
    flat, count = labels.ravel(), int(labels.max()) + 1
    sums = [np.bincount(flat, channel, count) for channel in values.reshape(flat.size, -1).T]
    return np.stack(sums, 1) / np.bincount(flat, minlength=count)[:, None]


def derivatives(lightness: np.ndarray) -> np.ndarray:
    """(h, w) -> (h, w, DIRECTIONS): the rise of the smoothed lightness in each direction, 0 where it falls."""
    smooth = cv2.GaussianBlur(lightness, (0, 0), 1.0)
    across, along = cv2.Scharr(smooth, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(smooth, cv2.CV_32F, 0, 1) / 32
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    return np.stack([np.maximum(across * np.float32(np.cos(angle)) + along * np.float32(np.sin(angle)), 0)
                     for angle in angles], -1)


def boundaries(labels: np.ndarray, lab: np.ndarray, scales: tuple[float, ...]) -> \
        tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours (E, 2), the length of their boundary (E,), and its mean contrast (E,).

    The contrast of two pixels side by side is the mean over the scales of the difference in Lab of the image smoothed
    at that scale, about one deviation to either side of the boundary.
    """
    steps = [np.mean([_step(lab, axis, scale) for scale in scales], axis=0) for axis in (0, 1)]
    return _per_boundary(labels, steps)


def boundary_means(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(E,) the mean of a map (h, w) along the boundary of each two neighbours, in the order of ``boundaries``."""
    steps = [(first + second) / 2 for first, second in (_neighbours(values, axis) for axis in (0, 1))]
    return _per_boundary(labels, steps)[2]


def _per_boundary(labels: np.ndarray, steps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours, boundary lengths, and the mean over each boundary of what is given for pairs of pixels: one above
    the other (h - 1, w), and side by side (h, w - 1)."""
    count = int(labels.max()) + 1
    codes, found = [], []
    for axis, step in enumerate(steps):
        first, second = _neighbours(labels, axis)
        crossing = first != second
        low, high = np.minimum(first, second)[crossing], np.maximum(first, second)[crossing]
        codes.append(low.astype(np.int64) * count + high)
        found.append(step[crossing])
    pairs, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    length = np.bincount(inverse, minlength=len(pairs)).astype(np.float64)
    means = np.bincount(inverse, np.concatenate(found), len(pairs)) / length
    return np.stack([pairs // count, pairs % count], 1), length, means


def _neighbours(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])


def _step(lab: np.ndarray, axis: int, scale: float) -> np.ndarray:
    """Difference in Lab across each pair of pixels along an axis, ``scale`` px to either side of the pair's middle."""
    smooth = cv2.GaussianBlur(lab, (0, 0), scale) if scale > 0 else lab
    reach = max(0, round(scale) - 1)
    size = lab.shape[axis]
    first = np.clip(np.arange(size - 1) - reach, 0, size - 1)
    second = np.clip(np.arange(1, size) + reach, 0, size - 1)
    return np.linalg.norm(np.take(smooth, second, axis) - np.take(smooth, first, axis), axis=2)


def _border_pixels(labels: np.ndarray, count: int) -> np.ndarray:
    ring = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    return np.bincount(ring, minlength=count).astype(np.float64)


def _moments(labels: np.ndarray, count: int) -> np.ndarray:
    y, x = (axis.ravel() / max(labels.shape) for axis in np.indices(labels.shape))
    return np.stack([np.bincount(labels.ravel(), values, count) for values in (x, y, x * x, y * y, x * y)], 1)


def _histogram(flat: np.ndarray, count: int, values: np.ndarray, limits: np.ndarray, bins: int) -> np.ndarray:
    """(P, C) values of P pixels -> (N, C * bins), every channel's bins sum to 1 / C."""
    low, high = limits[:, 0].astype(np.float32), limits[:, 1].astype(np.float32)
    place = np.clip((values - low) / (high - low) * bins, 0, bins - 1).astype(np.int64)
    parts = [np.bincount(flat * bins + place[:, channel], minlength=count * bins).reshape(count, bins)
             for channel in range(values.shape[1])]
    found = np.concatenate(parts, 1).astype(np.float64)
    return found / found.sum(1, keepdims=True)

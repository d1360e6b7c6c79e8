"""How much a candidate looks like an object, from its boundary, its surroundings and its shape; and which ones differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from stages.proposals.regions import Regions


def cues(members: np.ndarray, regions: Regions) -> dict[str, np.ndarray]:
    """What can be said of C candidates without knowing any object; each (C,) float64.

    ``boundary``: log of the mean contrast along the boundary; ``inside``: log of the mean contrast of the edges within;
    ``weak``: share of the boundary that is weaker than the image's median edge; ``colour``, ``texture``: chi-squared
    distance (0..1) of the candidate's histogram to that of the regions around it, weighted by the shared boundary;
    ``compact``: 4 pi area / perimeter^2; ``ellipse``: area / area of the ellipse with the same moments;
    ``border``: share of the perimeter that is the image's border; ``size``: log share of the image's area;
    ``off_centre``: distance of the centroid to the image's centre, in units of the longer side.
    """
    chosen = members.astype(np.float32)
    outside = 1 - chosen
    count = len(regions)

    def symmetric(weights: np.ndarray) -> sparse.csr_matrix:
        a, b = regions.edges.T
        return sparse.csr_matrix((np.tile(weights, 2).astype(np.float32), (np.r_[a, b], np.r_[b, a])), (count, count))

    reached = np.ascontiguousarray((symmetric(regions.length) @ chosen.T).T)
    around = reached * outside
    length = around.sum(1, dtype=np.float64)

    def along(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of an edge value over the boundary and over the inside."""
        weights = symmetric(values * regions.length)
        total = chosen.astype(np.float64) @ np.asarray(weights.sum(1), np.float64).ravel()
        twice_inside = np.einsum("cn,cn->c", np.ascontiguousarray((weights @ chosen.T).T), chosen, dtype=np.float64)
        return total - twice_inside, twice_inside / 2

    contrast, inner = along(regions.contrast)
    inner_length = (np.einsum("cn,cn->c", reached, chosen, dtype=np.float64)) / 2
    median = _median(regions.contrast, regions.length)
    weak, _ = along((regions.contrast < median).astype(np.float64))
    area = chosen.astype(np.float64) @ regions.area
    border = chosen.astype(np.float64) @ regions.border
    moments = (chosen.astype(np.float64) @ regions.moments) / area[:, None]
    height, width = regions.labels.shape
    middle = np.array([width - 1, height - 1]) / 2 / regions.side
    own = (chosen * regions.area.astype(np.float32))
    perimeter = length + border
    return {
        "boundary": np.log((contrast + 1) / (length + 1) + 0.1),
        "inside": np.log((inner + 1) / (inner_length + 1) + 0.1),
        "weak": weak / np.maximum(length, 1),
        "colour": _distance(own, around, regions.colour_histogram),
        "texture": _distance(own, around, regions.texture_histogram),
        "compact": 4 * np.pi * area / np.maximum(perimeter, 1) ** 2,
        "ellipse": _ellipse(area, moments, regions.side),
        "border": border / np.maximum(perimeter, 1),
        "size": np.log(area / regions.area.sum()),
        "off_centre": np.linalg.norm(moments[:, :2] - middle, axis=1),
    }


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    if not len(values):
        return 0.0
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _distance(own: np.ndarray, around: np.ndarray, histogram: np.ndarray) -> np.ndarray:
    """Chi-squared distance, 0..1, between the mean histograms under two weightings (C, N); 0 where one is empty."""
    table = histogram.astype(np.float32)
    first, second = (weights @ table / np.maximum(weights.sum(1, keepdims=True), 1e-6) for weights in (own, around))
    return 0.5 * ((first - second) ** 2 / np.maximum(first + second, 1e-9)).sum(1, dtype=np.float64) \
        * (around.sum(1) > 0)


def _ellipse(area: np.ndarray, moments: np.ndarray, side: int) -> np.ndarray:
    x, y, xx, yy, xy = moments.T
    extent = 1 / 12 / side ** 2  # of a pixel itself
    determinant = (xx - x * x + extent) * (yy - y * y + extent) - (xy - x * y) ** 2
    return area / side ** 2 / (4 * np.pi * np.sqrt(np.maximum(determinant, 1e-12)))


def suppress(members: np.ndarray, area: np.ndarray, order: np.ndarray, steps: Sequence[tuple[int, float]],
             block: int = 256) -> np.ndarray:
    """Go through candidates from the best on and keep those that differ from all kept before.

    Args:
        members: (C, N) bool, sets of regions.
        area: (N,) pixels.
        order: candidates, best first.
        steps: (number to have, largest IoU with one kept before), one after the other: what is too much like an
            earlier one at first has its turn again when the next step's threshold is higher.
        block: candidates compared at once.

    Returns:
        Kept candidates in the order in which they were chosen.
    """
    weights = area.astype(np.float32)
    sizes = members.astype(np.float32) @ weights
    most = max((number for number, _ in steps), default=0)
    kept = np.zeros((most, members.shape[1]), np.float32)  # weighted by area
    kept_sizes = np.zeros(most, np.float32)
    chosen: list[int] = []
    waiting = np.asarray(order)
    for number, threshold in steps:
        refused = []
        start = 0
        while start < len(waiting) and len(chosen) < number:
            rows = waiting[start:start + block]
            sets = members[rows].astype(np.float32)
            allowed = _highest(sets, sizes[rows], kept[:len(chosen)], kept_sizes[:len(chosen)]) <= threshold
            refused.append(rows[~allowed])
            rows, sets = rows[allowed], sets[allowed]
            mutual = _ious(sets, sizes[rows], sets * weights, sizes[rows])
            free = np.ones(len(rows), bool)
            for place, row in enumerate(rows):
                if not free[place] or len(chosen) == number:
                    continue
                kept[len(chosen)], kept_sizes[len(chosen)] = sets[place] * weights, sizes[row]
                chosen.append(int(row))
                free[place + 1:] &= mutual[place, place + 1:] <= threshold
                free[place] = False
                rows[place] = -1
            refused.append(rows[rows >= 0])
            start += block
        waiting = np.concatenate([*refused, waiting[start:]]) if refused else waiting
    return np.array(chosen, np.int64)


def _ious(first: np.ndarray, first_sizes: np.ndarray, second: np.ndarray, second_sizes: np.ndarray) -> np.ndarray:
    both = first @ second.T
    return both / (first_sizes[:, None] + second_sizes[None] - both)


def _highest(first: np.ndarray, first_sizes: np.ndarray, second: np.ndarray, second_sizes: np.ndarray) -> np.ndarray:
    if not len(second):
        return np.zeros(len(first), np.float32)
    return _ious(first, first_sizes, second, second_sizes).max(1)

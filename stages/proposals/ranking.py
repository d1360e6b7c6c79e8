"""How much a candidate looks like an object, from its boundary, its inside and its shape; and which ones differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.proposals.candidates import weigh
from stages.proposals.regions import Regions

_ROWS = 1024
"""Candidates looked at together, which bounds the memory."""


def cues(members: np.ndarray, regions: Regions) -> dict[str, np.ndarray]:
    """What can be said of C candidates, (C, N) bool, without knowing any object; each (C,) float64.

    ``boundary``: log of the mean contrast along the boundary. ``inside``: log of the mean contrast of the edges within.
    ``weak``: share of the boundary that is weaker than half of the image's edges. ``compact``: root of
    4 pi area / perimeter^2, the image's border counting as perimeter. ``ellipse``: area / area of the ellipse of the
    same second moments, at most 1.2. ``size``: squared distance of the log share of the image's area to -0.5.
    ``off_centre``: distance of the centroid from the image's middle, in units of the longer side.
    """
    contrast = regions.contrast * regions.length
    weak = regions.length * (regions.contrast < _median(regions.contrast, regions.length))
    per_edge = np.stack([regions.length, contrast, weak], 1).astype(np.float32)
    # Of each region: what its own edges sum up to (both sides of an edge count), and what is measured on its pixels.
    ends = np.concatenate([regions.edges[:, 0], regions.edges[:, 1]])
    degree = [np.bincount(ends, np.tile(values, 2), len(regions)) for values in (regions.length, contrast)]
    per_region = np.column_stack([*degree, regions.area, regions.border, regions.moments])
    a, b = regions.edges.T
    along, within = [np.zeros((0, 3))], [np.zeros((0, per_region.shape[1]))]
    for start in range(0, len(members), _ROWS):
        part = members[start:start + _ROWS]
        turned = np.ascontiguousarray(part.T)
        along.append((per_edge.T @ (turned[a] ^ turned[b]).astype(np.float32)).T.astype(np.float64))
        within.append(part.astype(np.float64) @ per_region)
    length, strength, weakness = np.concatenate(along).T
    inner_length, inner_strength, area, border = (column for column in np.concatenate(within)[:, :4].T)
    moments = np.concatenate(within)[:, 4:] / area[:, None]
    height, width = regions.labels.shape
    middle = np.array([width - 1, height - 1]) / 2 / regions.side
    return {
        "boundary": np.log((strength + 1) / (length + 1) + 0.1),
        "inside": np.log(((inner_strength - strength) / 2 + 1) / ((inner_length - length) / 2 + 1) + 0.1),
        "weak": weakness / np.maximum(length, 1),
        "compact": np.sqrt(4 * np.pi * area) / np.maximum(length + border, 1),
        "ellipse": np.minimum(_ellipse(area, moments, regions.side), 1.2),
        "size": (np.log(area / regions.area.sum()) + 0.5) ** 2,
        "off_centre": np.linalg.norm(moments[:, :2] - middle, axis=1),
    }


def objectness(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The weighted sum of the cues that have a weight."""
    return np.sum([weight * values[name] for name, weight in sorted(weights.items())], axis=0)


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted median; 0 of nothing."""
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _ellipse(area: np.ndarray, moments: np.ndarray, side: int) -> np.ndarray:
    """Area over that of the ellipse with the same mean squares and products of x and y (in units of the side)."""
    x, y, xx, yy, xy = moments.T
    pixel = 1 / 12 / side ** 2  # a pixel's own extent
    determinant = (xx - x * x + pixel) * (yy - y * y + pixel) - (xy - x * y) ** 2
    return area / side ** 2 / (4 * np.pi * np.sqrt(np.maximum(determinant, 1e-18)))


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
    sizes = weigh(members, area)
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
            free = _highest(sets, sizes[rows], kept[:len(chosen)], kept_sizes[:len(chosen)]) <= threshold
            mutual = _ious(sets, sizes[rows], sets * weights, sizes[rows])
            taken = np.zeros(len(rows), bool)
            for place in range(len(rows)):
                if not free[place] or len(chosen) == number:
                    continue
                kept[len(chosen)], kept_sizes[len(chosen)] = sets[place] * weights, sizes[rows[place]]
                chosen.append(int(rows[place]))
                taken[place] = True
                free[place + 1:] &= mutual[place, place + 1:] <= threshold
            refused.append(rows[~taken])
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

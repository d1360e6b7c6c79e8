"""Weak labels from masks, as an annotator would give them. Pure functions on one mask (H, W).

Pixel centres lie on integers, y down; points are [x, y], boxes [x, y, width, height].
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt


def bounding_box(mask_hw: np.ndarray) -> list[int]:
    """Smallest box around the mask: a single pixel at column 3, row 5 gives [3, 5, 1, 1].

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = (np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise ValueError("the mask is empty")
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def deepest_point(mask_hw: np.ndarray) -> list[int]:
    """The pixel of the mask that is farthest from everything outside, where people click: the largest Euclidean
    distance transform. What lies beyond the image's border is outside. Of equals the first in reading order.

    Raises:
        ValueError: the mask is empty.
    """
    left, top, width, height = bounding_box(mask_hw)
    # One ring of background around the box is as good as the whole image: no pixel beyond it is nearer.
    inside = np.pad(mask_hw[top:top + height, left:left + width] != 0, 1)
    row, column = np.unravel_index(int(distance_transform_edt(inside).argmax()), inside.shape)
    return [left + int(column) - 1, top + int(row) - 1]


def extreme_points(mask_hw: np.ndarray) -> list[list[int]]:
    """Top, left, bottom and right pixels of the mask, always on it: the middle of the longest run of mask pixels in
    the extreme row or column (the first of equally long runs; the left or upper of two middle pixels).

    Raises:
        ValueError: the mask is empty.
    """
    left, top, width, height = bounding_box(mask_hw)
    right, bottom = left + width - 1, top + height - 1
    return [[_middle(mask_hw[top]), top], [left, _middle(mask_hw[:, left])],
            [_middle(mask_hw[bottom]), bottom], [right, _middle(mask_hw[:, right])]]


def middle_extreme_points(mask_hw: np.ndarray, share: float = 0.02) -> list[list[int]]:
    """Top, left, bottom and right points after ExtremeNet, to which EXITS refers (section 4.1).

    A point lies in the extreme row (or column), half way between the first and the last column (row) of all mask pixels
    whose distance from that row is at most ``share`` of the box's height (width), whatever is between them: it need not
    be on the mask. Halves are rounded to the left and upwards.

    Raises:
        ValueError: the mask is empty.
    """
    left, top, width, height = bounding_box(mask_hw)
    right, bottom = left + width - 1, top + height - 1
    down, across = int(share * height + 1e-9), int(share * width + 1e-9)
    return [[_half_way(mask_hw[top:top + down + 1], 1), top], [left, _half_way(mask_hw[:, left:left + across + 1], 0)],
            [_half_way(mask_hw[bottom - down:bottom + 1], 1), bottom],
            [right, _half_way(mask_hw[:, right - across:right + 1], 0)]]


def _half_way(part_hw: np.ndarray, axis: int) -> int:
    """Middle between the first and the last index along an axis of a part of a mask that has at least one pixel."""
    indices = np.nonzero(part_hw)[axis]
    return int(indices.min() + indices.max()) // 2


def _middle(line: np.ndarray) -> int:
    """Middle index of the longest run of a row or column that has at least one."""
    steps = np.diff(np.pad((line != 0).astype(np.int8), 1))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1
    longest = int((ends - starts).argmax())
    return int(starts[longest] + ends[longest]) // 2

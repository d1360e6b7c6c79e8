"""Which pixels are compared with each other, and which pixels lie on the line between them.

A pair is written as an *anchor* pixel (y, x) and an *offset* (dy, dx): the pair joins (y, x) and (y + dy, x + dx).
Offsets come from one half of the plane, so each unordered pair is met once and whatever is computed from it is
symmetric by construction. The functions here serve NumPy arrays and torch tensors alike, and do not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Offset = tuple[int, int]
Array = TypeVar("Array", np.ndarray, "Tensor")


def neighbour_offsets(radius: float) -> np.ndarray:
    """Offsets of all pairs closer than a radius (IRNet eq. 2).

    Args:
        radius: pairs have a Euclidean distance strictly below it, in pixels; > 0.

    Returns:
        Integer array (P, 2) of (dy, dx) with dy > 0, or dy == 0 and dx > 0, sorted by dy, then dx. P is 34 for
        radius 5, 152 for radius 10, and 0 for radius <= 1.
    """
    if not radius > 0 or not np.isfinite(radius):
        raise ValueError(f"radius must be a positive number of pixels, got {radius}")
    reach = int(np.ceil(radius)) - 1  # the largest integer strictly below the radius
    dy, dx = np.mgrid[0 : reach + 1, -reach : reach + 1]
    chosen = (dy * dy + dx * dx < radius * radius) & ((dy > 0) | (dx > 0))
    return np.stack([dy[chosen], dx[chosen]], axis=1).astype(np.int64)


def line_pixels(offset: Offset) -> np.ndarray:
    """The pixels on the line from (0, 0) to ``offset``, both ends included (Pi_ij of IRNet eq. 7).

    At every whole step along the longer axis the line takes the pixel nearest to it, and both pixels where two are
    equally near. So the set does not depend on the direction in which the line is walked, and flipping or
    transposing an image flips or transposes its affinities.

    Returns:
        Integer array (K, 2) of (y, x) relative to the anchor, in the order of the steps; the bounding box of the two
        ends contains all of them.
    """
    dy, dx = (int(value) for value in offset)
    steps = max(abs(dy), abs(dx))
    if steps == 0:
        return np.zeros((1, 2), dtype=np.int64)
    pixels: list[Offset] = []
    for step in range(steps + 1):
        # In integers: floor and ceiling of value - 1/2 and value + 1/2 agree except at a tie.
        rows = _nearest(step * dy, steps)
        columns = _nearest(step * dx, steps)
        pixels.extend((row, column) for row in rows for column in columns)
    return np.array(pixels, dtype=np.int64)


def _nearest(numerator: int, denominator: int) -> tuple[int, ...]:
    """The integer nearest to a fraction, or the two that are equally near."""
    lower = -((denominator - 2 * numerator) // (2 * denominator))  # ceil(fraction - 1/2)
    upper = (2 * numerator + denominator) // (2 * denominator)  # floor(fraction + 1/2)
    return (lower,) if lower == upper else (lower, upper)


def pair_views(array: Array, offset: Offset) -> tuple[Array, Array]:
    """Both ends of all pairs with one offset that lie wholly in the image.

    Args:
        array: (..., H, W), NumPy or torch; any number of leading dimensions.
        offset: (dy, dx) with dy >= 0.

    Returns:
        Two views (..., max(H - dy, 0), max(W - |dx|, 0)): the values at the anchors and at the anchors + offset.
        ``affinity.pair_affinity`` has the same layout.
    """
    dy, dx = offset
    height, width = array.shape[-2:]
    region = (max(0, height - dy), max(0, width - abs(dx)))
    return _shifted(array, offset, (0, 0), region), _shifted(array, offset, (dy, dx), region)


def _shifted(array: Array, offset: Offset, pixel: Offset, region: tuple[int, int]) -> Array:
    """The values at anchor + ``pixel`` for all anchors of ``offset``'s pairs; ``region`` is their (rows, columns)."""
    top = int(pixel[0])
    left = max(0, -int(offset[1])) + int(pixel[1])
    return array[..., top : top + region[0], left : left + region[1]]


def line_views(array: Array, offset: Offset) -> list[Array]:
    """Views like those of :func:`pair_views`, one for each pixel of :func:`line_pixels`, in its order."""
    region = tuple(pair_views(array, offset)[0].shape[-2:])
    return [_shifted(array, offset, (pixel[0], pixel[1]), (region[0], region[1])) for pixel in line_pixels(offset)]


def line_maximum(array: Array, offset: Offset, maximum: Callable[..., Array] = np.maximum) -> Array:
    """The largest value on the line of each pair; (..., H - dy, W - |dx|).

    Args:
        array: (..., H, W).
        offset: (dy, dx) with dy >= 0.
        maximum: ``np.maximum`` or ``torch.maximum``, whichever belongs to the array.
    """
    views = line_views(array, offset)
    highest = views[0]
    for view in views[1:]:
        highest = maximum(highest, view)
    return highest


def anchor_slices(offset: Offset, height: int, width: int) -> tuple[slice, slice]:
    """Where the anchors of :func:`pair_views` lie in the image: slices of its rows and columns."""
    dy, dx = offset
    left = min(max(0, -dx), width)
    return slice(0, max(0, height - dy)), slice(left, max(left, width - max(0, dx)))

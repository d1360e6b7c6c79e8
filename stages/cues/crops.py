"""Crops around objects: where they lie in the image, how points and masks get into them and back.

A window is (left, top, right, bottom) in whole pixels, right and bottom exclusive. Points are [x, y] with pixel
centres on integers; boxes are xyxy on pixel edges, so that a single pixel at column 3 has the box 3 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from stages.labels.coco import Entry

Window = tuple[int, int, int, int]
Numbers = Sequence[float] | np.ndarray
"""A few numbers, e.g. the four of a box."""


def object_box(labels: Entry) -> tuple[float, float, float, float]:
    """Box (xyxy) of an object with ``extreme_points`` (whose pixels belong to it) or, without them, ``bbox``.

    Raises:
        KeyError: it has neither.
    """
    if "extreme_points" in labels:
        top, left, bottom, right = labels["extreme_points"]
        return left[0], top[1], right[0] + 1, bottom[1] + 1
    x, y, width, height = labels["bbox"]
    return x, y, x + width, y + height


def crop_window(box_xyxy: Numbers, size: tuple[int, int], margins: Numbers) -> Window:
    """The box with a margin on each side, in whole pixels, cut at the image's border and at least one pixel wide.

    Args:
        box_xyxy: on pixel edges.
        size: (height, width) of the image.
        margins: left, top, right, bottom, as shares of the box's width or height.
    """
    left, top, right, bottom = box_xyxy
    width, height = right - left, bottom - top
    x0 = min(max(math.floor(left - margins[0] * width), 0), size[1] - 1)
    y0 = min(max(math.floor(top - margins[1] * height), 0), size[0] - 1)
    x1 = max(min(math.ceil(right + margins[2] * width), size[1]), x0 + 1)
    y1 = max(min(math.ceil(bottom + margins[3] * height), size[0]), y0 + 1)
    return x0, y0, x1, y1


def cut(image: np.ndarray, window: Window, side: int) -> np.ndarray:
    """The window of an image (H, W, C), brought to (side, side, C); its proportions are not kept."""
    x0, y0, x1, y1 = window
    part = image[y0:y1, x0:x1]
    shrinks = part.shape[0] * part.shape[1] > side * side
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def points_in_crop(points_xy: Sequence[Sequence[float]], window: Window, side: int) -> np.ndarray:
    """Points of the image in the crop's pixels: (N, 2) float64, pixel centres on integers in both."""
    return points_in_window(points_xy, window, (side, side))


def points_in_window(points_xy: Sequence[Sequence[float]], window: Window, size: tuple[int, int]) -> np.ndarray:
    """Points of the image in a window that was brought to ``size`` (width, height): (N, 2) float64."""
    x0, y0, x1, y1 = window
    points = np.asarray(points_xy, np.float64).reshape(-1, 2)
    return (points + 0.5 - (x0, y0)) * (size[0] / (x1 - x0), size[1] / (y1 - y0)) - 0.5


def box_in_crop(box_xyxy: Numbers, window: Window, side: int) -> np.ndarray:
    """A box of the image on the crop's pixel edges: (4,) float64, cut at the crop's border."""
    x0, y0, x1, y1 = window
    scale = side / (x1 - x0), side / (y1 - y0)
    corners = (np.asarray(box_xyxy, np.float64).reshape(2, 2) - (x0, y0)) * scale
    return np.clip(corners, 0, side).reshape(4)


def cells_in_box(box_xyxy: Numbers, side: float, cells: int) -> np.ndarray:
    """(cells, cells) bool: the cells of a crop of ``side`` pixels whose centre lies inside the box; at least one."""
    left, top, right, bottom = (value * cells / side for value in box_xyxy)
    centres = np.arange(cells) + 0.5
    inside = []
    for low, high in ((top, bottom), (left, right)):
        line = (centres >= low) & (centres < high)
        line[min(int((low + high) / 2), cells - 1)] |= not line.any()
        inside.append(line)
    return inside[0][:, None] & inside[1]


def cells_of(points_xy: np.ndarray, side: int, cells: int) -> np.ndarray:
    """(N, 2) row and column of the cells in which points (N, 2) of a crop lie; points outside count to the border."""
    return np.clip(np.floor((points_xy[:, ::-1] + 0.5) * (cells / side)), 0, cells - 1).astype(np.int64)


def paste(values: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Values of a crop (s, s), brought to the window's size bilinearly, in an image (H, W) float32 of zeros."""
    x0, y0, x1, y1 = window
    whole = np.zeros(size, np.float32)
    shrinks = (x1 - x0) * (y1 - y0) < values.size
    whole[y0:y1, x0:x1] = cv2.resize(np.asarray(values, np.float32), (x1 - x0, y1 - y0),
                                     interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return whole


def sample_map(values: np.ndarray, source: Window, target: Window, cells: int) -> np.ndarray:
    """A map (n, n) float over one window, read bilinearly at the centres of the cells of another: (cells, cells)
    float32; beyond the source's border its nearest cell counts."""
    places = []
    for low, high, start, end, count in ((target[0], target[2], source[0], source[2], values.shape[1]),
                                         (target[1], target[3], source[1], source[3], values.shape[0])):
        at = low + (np.arange(cells) + 0.5) * (high - low) / cells
        places.append(((at - start) * count / (end - start) - 0.5).astype(np.float32))
    columns, rows = np.meshgrid(*places)
    return cv2.remap(np.asarray(values, np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def sample_cells(labels: np.ndarray, source: Window, target: Window, cells: int, outside: int = -1) -> np.ndarray:
    """A label map (n, n) over one window, read at the centres of the cells of another: (cells, cells); ``outside``
    where the first window does not reach."""
    found = np.full((cells, cells), outside, labels.dtype)
    indices, inside = [], []
    for low, high, start, end, count in ((target[1], target[3], source[1], source[3], labels.shape[0]),
                                         (target[0], target[2], source[0], source[2], labels.shape[1])):
        at = low + (np.arange(cells) + 0.5) * (high - low) / cells
        indices.append(np.clip(np.floor((at - start) * count / (end - start)), 0, count - 1).astype(np.int64))
        inside.append((at >= start) & (at < end))
    chosen = inside[0][:, None] & inside[1]
    found[chosen] = labels[indices[0][:, None], indices[1]][chosen]
    return found

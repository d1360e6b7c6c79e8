"""Maps on a coarse grid and at image size."""

from __future__ import annotations

import cv2
import numpy as np


def upsample_cells(maps: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """Bring (C, h, w) maps of ``stride`` x ``stride`` px cells to image size, bilinearly.

    Cell (i, j) is centred on the middle of its pixels; the last row and column of cells may hang over the image.

    Args:
        maps: (C, ceil(H / stride), ceil(W / stride)).
        stride: pixels per cell.
        size: (H, W).

    Returns:
        (C, H, W) float32.
    """
    height, width = size
    if len(maps) == 0:
        return np.zeros((0, height, width), np.float32)
    rows, columns = maps.shape[1:]
    return np.stack([cv2.resize(np.asarray(values, np.float32), (columns * stride, rows * stride),
                                interpolation=cv2.INTER_LINEAR)[:height, :width] for values in maps])


def shrink_labels(labels: np.ndarray, stride: int) -> np.ndarray:
    """The label in the middle of each cell of a (H, W) map: (ceil(H / stride), ceil(W / stride))."""
    middle = stride // 2
    height, width = labels.shape
    rows = np.minimum(np.arange(-(-height // stride)) * stride + middle, height - 1)
    columns = np.minimum(np.arange(-(-width // stride)) * stride + middle, width - 1)
    return labels[rows[:, None], columns]

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
    """The label in the middle of each cell of ``stride`` x ``stride`` px.

    A cell's centre is stride * index + (stride - 1) / 2: a pixel for an odd stride; for an even one the corner of four
    pixels, of which the commonest label is taken and of equally common ones the largest (what is left open, 255, before
    a class, a class before the background). So a mirrored map of whole cells gives the mirrored labels. A centre that
    hangs over the image is moved to its border.

    Args:
        labels: (H, W).
        stride: pixels per cell.

    Returns:
        (ceil(H / stride), ceil(W / stride)), the type of ``labels``.
    """
    rows, columns = (_middles(side, stride) for side in labels.shape)
    near = np.stack([labels[row[:, None], column] for row in rows for column in columns])
    near = np.sort(near, axis=0)[::-1]  # argmax takes the first of equals
    votes = (near[:, None] == near[None]).sum(axis=0)
    return np.take_along_axis(near, votes.argmax(axis=0)[None], axis=0)[0]


def _middles(side: int, stride: int) -> list[np.ndarray]:
    """Along one side, the index of the pixel in the middle of every cell: once for an odd stride, else before and after
    the centre."""
    starts = np.arange(-(-side // stride)) * stride
    return [np.minimum(starts + offset, side - 1) for offset in sorted({(stride - 1) // 2, stride // 2})]

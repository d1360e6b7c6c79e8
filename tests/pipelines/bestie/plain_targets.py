"""Class-wise Gaussian centres and offset fields in plain NumPy: what `targets` makes on the device must equal."""

from __future__ import annotations

import numpy as np


def centre_maps(centres: np.ndarray, classes: int, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Class-wise Gaussians with peak 1 at the centres, the higher one where they overlap (section 3.3).

    Args:
        centres: (n, 3) rows (class index, y, x).
        classes: how many.
        size: (H, W).
        sigma: standard deviation [px]; each is cut off beyond 3 sigma + 1 along either axis (published code).

    Returns:
        (classes, H, W) float32.
    """
    maps = np.zeros((classes, *size), np.float32)
    radius = int(3 * sigma + 1)
    rows, columns = np.arange(size[0]), np.arange(size[1])
    for index, y, x in np.asarray(centres).reshape(-1, 3):
        near = np.ix_(np.abs(rows - y) <= radius, np.abs(columns - x) <= radius)
        squares = (rows[near[0].ravel()] - y)[:, None] ** 2 + (columns[near[1].ravel()] - x) ** 2
        maps[index][near] = np.maximum(maps[index][near], np.exp(-squares / (2 * sigma ** 2)).astype(np.float32))
    return maps


def offset_field(instances: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Offsets (2, H, W) float32 as (dy, dx) from every pixel of an instance to its centre [px], 0 elsewhere."""
    y, x = np.mgrid[:instances.shape[0], :instances.shape[1]]
    table = np.concatenate([np.zeros((1, 3), np.int64), np.asarray(centres, np.int64).reshape(-1, 3)])
    aims = table[instances]  # (H, W, 3)
    return (np.stack([aims[..., 1] - y, aims[..., 2] - x]) * (instances > 0)).astype(np.float32)

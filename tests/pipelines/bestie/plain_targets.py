"""Class-wise Gaussian centres and offset fields in plain NumPy: what `targets` makes on the device must equal."""

from __future__ import annotations

import math

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


def mask_targets(masks: np.ndarray, categories: list[int], classes: int, sigma: float, smallest: int,
                 aims: dict[int, tuple[int, int]] | None = None, others: list[tuple[int, int, int]] | None = None
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Guidance by instance masks, pixel by pixel.

    Args:
        masks: (H, W) 0 or number from 1.
        categories: class index of each.
        classes: how many.
        sigma: of the Gaussians [px].
        smallest: masks with fewer pixels guide nothing [px].
        aims: with points, where the offsets of a mask aim; masks that are not in it guide nothing.
        others: with points, (class index, y, x) of all of them, where the Gaussians stand.

    Returns:
        Heat (classes, H, W), offsets (2, H, W) and weight (H, W), float32.
    """
    offset, weight = np.zeros((2, *masks.shape), np.float32), np.zeros(masks.shape, np.float32)
    centres = list(others or [])
    for number, category in enumerate(categories, start=1):
        pixels = [(y, x) for y in range(masks.shape[0]) for x in range(masks.shape[1]) if masks[y, x] == number]
        if len(pixels) < max(smallest, 1) or (aims is not None and number not in aims):
            continue
        if aims is None:
            aim = tuple(math.floor(sum(pixel[axis] for pixel in pixels) / len(pixels) + 1e-9) for axis in (0, 1))
            centres.append((category, *aim))
        else:
            aim = aims[number]
        for y, x in pixels:
            offset[:, y, x] = aim[0] - y, aim[1] - x
            weight[y, x] = 1
    return centre_maps(np.array(centres, np.int64), classes, masks.shape, sigma), offset, weight

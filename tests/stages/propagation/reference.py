"""Slow references written from the definitions, sharing nothing with the code under test."""

from fractions import Fraction
from functools import cache

import numpy as np


@cache
def line_set(first, second):
    """Pixels nearest to the segment at each whole coordinate of its longer axis; both where two are equally near."""
    (y0, x0), (y1, x1) = first, second
    if abs(y1 - y0) < abs(x1 - x0):
        return {(y, x) for x, y in line_set((x0, y0), (x1, y1))}
    pixels = set()
    for y in range(min(y0, y1), max(y0, y1) + 1):
        along = Fraction(y - y0, y1 - y0) if y1 != y0 else Fraction(0)
        exact = x0 + along * (x1 - x0)
        candidates = range(min(x0, x1), max(x0, x1) + 1)
        nearest = min(abs(exact - x) for x in candidates)
        pixels |= {(y, x) for x in candidates if abs(exact - x) == nearest}
    return pixels


def dense_transition(boundary, radius, beta):
    """T of IRNet eq. 12 as a float64 matrix (H * W, H * W)."""
    height, width = boundary.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    powers = np.zeros((len(pixels), len(pixels)))
    for i, first in enumerate(pixels):
        for j, second in enumerate(pixels):
            dy, dx = second[0] - first[0], second[1] - first[1]
            if i == j:
                powers[i, j] = 1.0
            elif dy * dy + dx * dx < radius * radius:
                line = line_set((0, 0), (dy, dx))
                powers[i, j] = (1 - max(boundary[first[0] + y, first[1] + x] for y, x in line)) ** beta
    return powers / powers.sum(axis=1, keepdims=True)


def dense_walk(scores, boundary, radius, beta, steps):
    """IRNet eq. 13 with a dense matrix power; scores (C, H, W)."""
    transition = dense_transition(boundary, radius, beta)
    start = (scores * (1 - boundary)).reshape(len(scores), -1)
    return (np.linalg.matrix_power(transition, steps) @ start.T).T.reshape(scores.shape)


def dense_kernels(image: np.ndarray, gaussian_xy: float, bilateral_xy: float, bilateral_rgb: float,
                  normalisation: str) -> list[np.ndarray]:
    """The smoothness and the appearance kernel of an image (3, H, W), (N, N) float64 each, every pair written out."""
    height, width = image.shape[1:]
    place = np.stack(np.mgrid[:height, :width]).reshape(2, -1).astype(float)
    colour = image.reshape(3, -1).astype(float)
    kernels = []
    for features in (place / gaussian_xy, np.concatenate([place / bilateral_xy, colour / bilateral_rgb])):
        kernel = np.exp(-((features[:, :, None] - features[:, None]) ** 2).sum(0) / 2)
        sums = kernel.sum(1, keepdims=True)
        kernels.append(kernel / sums if normalisation == "rows" else kernel / np.sqrt(sums * sums.T))
    return kernels

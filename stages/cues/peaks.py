"""Peaks of attention maps: local maxima of smoothed maps (BESTIE, section 3.3)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def find_peaks(values: np.ndarray, *, window: int, threshold: float, smoothing: int = 3,
               most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of one map.

    Args:
        values: (H, W), any scale that ``threshold`` is on.
        window: side of the square window in which a peak is the maximum [px], odd.
        threshold: a peak is higher than this.
        smoothing: side of the square window over which the map is averaged before [px]; 1 = not at all. Beyond the
            border its nearest pixel counts.
        most: only that many peaks, the highest.

    Returns:
        Peaks (n, 2) int64 as (y, x), and the smoothed values there (n,), float64, from high to low; of equal ones the
        first in reading order first.
    """
    smoothed = np.asarray(values, np.float64)
    if smoothing > 1 and smoothed.size:
        smoothed = ndimage.uniform_filter(smoothed, smoothing, mode="nearest")
    peaks = np.argwhere(local_maxima(smoothed, window) & (smoothed > threshold))
    heights = smoothed[peaks[:, 0], peaks[:, 1]]
    order = np.argsort(-heights, kind="stable")[:most]
    return peaks[order].astype(np.int64), heights[order]


def local_maxima(values: np.ndarray, window: int) -> np.ndarray:
    """Where no pixel within the window is higher, nor, of equal ones, earlier in reading order: (H, W) bool.

    Pooling alone would call every pixel of a plateau a maximum.
    """
    if values.size == 0:
        return np.zeros(values.shape, bool)
    # Ranks have no ties: equal values follow in reading order.
    ranks = np.empty(values.shape, np.int64)
    ranks.flat[np.argsort(-values, axis=None, kind="stable")] = np.arange(values.size)
    return ndimage.minimum_filter(ranks, window, mode="constant", cval=values.size) == ranks

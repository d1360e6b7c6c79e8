"""Attention instance by instance (section 5.2): pure functions on arrays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def instance_cams(cams: np.ndarray, instances: np.ndarray, minimum: float) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 11: one map per class and instance, the class's attention inside the instance and 0 elsewhere.

    Args:
        cams: (C, h, w) in 0..1.
        instances: (h, w) int, instances 0, 1, 2, ...
        minimum: pairs whose attention nowhere reaches this are left out: no cell of theirs was a seed.

    Returns:
        Maps (P, h, w) and the pairs (P, 2) of class index and instance, by class, then instance.
    """
    if len(cams) == 0:
        return np.zeros((0, *instances.shape), np.float32), np.zeros((0, 2), np.int64)
    ids = np.arange(instances.max() + 1)
    highest = np.stack([ndimage.maximum(cam, instances, ids) for cam in cams])  # (C, K)
    pairs = np.argwhere(highest >= max(minimum, 1e-6))
    return split_maps(cams, instances, pairs), pairs.astype(np.int64)


def split_maps(maps: np.ndarray, instances: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """One map per pair: the class's inside the instance, 0 elsewhere.

    Args:
        maps: (C, h, w).
        instances: (h, w) int.
        pairs: (P, 2) of class index and instance.

    Returns:
        (P, h, w) float32.
    """
    found = np.zeros((len(pairs), *instances.shape), np.float32)
    for own, (c, k) in zip(found, pairs, strict=True):
        np.copyto(own, maps[c], where=instances == k, casting="same_kind")
    return found

"""From a displacement field to instances (section 5.1): pure functions on arrays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def refine_displacement(displacement_yx: np.ndarray, iterations: int) -> np.ndarray:
    """Eq. 10: D_{u+1}(x) = D_u(x) + D(x + D_u(x)), D read bilinearly, targets held inside the map.

    Args:
        displacement_yx: (2, h, w), (dy, dx) in cells.
        iterations: how often; it ends before where nothing moves by more than a thousandth of a cell.

    Returns:
        (2, h, w) float32.
    """
    field = np.asarray(displacement_yx, np.float32)
    height, width = field.shape[1:]
    here = np.indices((height, width)).astype(np.float32)
    border = np.array([height - 1, width - 1], np.float32).reshape(2, 1, 1)
    refined = field.copy()
    for _ in range(iterations):
        target = np.clip(here + refined, 0, border)
        step = _bilinear(field, target)
        moved = np.clip(target + step, 0, border) - here
        if np.abs(moved - refined).max() < 1e-3:
            return moved
        refined = moved
    return refined


def _bilinear(field: np.ndarray, at_yx: np.ndarray) -> np.ndarray:
    """Values of (C, h, w) at (2, h', w') positions inside the map."""
    height, width = field.shape[1:]
    y, x = at_yx
    y0 = np.minimum(y.astype(np.intp), max(height - 2, 0))
    x0 = np.minimum(x.astype(np.intp), max(width - 2, 0))
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    fy, fx = y - y0.astype(y.dtype), x - x0.astype(x.dtype)  # float32 minus int64 would be float64
    flat = field.reshape(len(field), -1)
    top = flat[:, y0 * width + x0] * (1 - fx) + flat[:, y0 * width + x1] * fx
    bottom = flat[:, y1 * width + x0] * (1 - fx) + flat[:, y1 * width + x1] * fx
    return top * (1 - fy) + bottom * fy


def instance_map(displacement_yx: np.ndarray, refinements: int, centroid: float) -> np.ndarray:
    """Class-agnostic instance map (section 5.1).

    Cells with a displacement shorter than ``centroid`` are candidates; each 8-connected component of candidates is
    one centroid. A cell belongs to the centroid that its refined displacement points at, or, where that points
    beside all of them, to the nearest one.

    Args:
        displacement_yx: (2, h, w) as the network gives it.
        refinements: iterations of eq. 10.
        centroid: longest displacement of a candidate [cells].

    Returns:
        (h, w) int32, instances 0, 1, 2, ...; one instance where there is no candidate.
    """
    field = np.asarray(displacement_yx, np.float32)
    height, width = field.shape[1:]
    candidates = np.hypot(*field) < centroid
    components, count = ndimage.label(candidates, structure=np.ones((3, 3)))
    if count == 0:
        return np.zeros((height, width), np.int32)
    refined = refine_displacement(field, refinements)
    here = np.indices((height, width))
    target = np.rint(here + refined).astype(np.intp)
    target[0].clip(0, height - 1, out=target[0])
    target[1].clip(0, width - 1, out=target[1])
    nearest = ndimage.distance_transform_edt(components == 0, return_distances=False, return_indices=True)
    y, x = nearest[:, target[0], target[1]]
    return components[y, x].astype(np.int32) - 1


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

"""From a displacement field to instances (section 5.1): pure functions on arrays."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional


def refine_displacement(displacement_yx: np.ndarray, iterations: int) -> np.ndarray:
    """Eq. 10: D_{u+1}(x) = D_u(x) + D(x + D_u(x)), D read bilinearly, targets held inside the map.

    Args:
        displacement_yx: (2, h, w), (dy, dx) in cells.
        iterations: how often; it ends before where nothing moves by more than a thousandth of a cell.

    Returns:
        (2, h, w) float32.
    """
    field = torch.from_numpy(np.ascontiguousarray(displacement_yx, np.float32))
    height, width = field.shape[1:]
    # PyTorch's grids hold (x, y) in -1..1; read in NumPy, the field would take ten times as long.
    half = torch.tensor([width - 1, height - 1]) / 2
    here = torch.stack(torch.meshgrid(_span(width), _span(height), indexing="xy"), dim=-1)
    unit = field.flip(0)[None] / half.clamp(min=0.5)[:, None, None]  # a map one cell wide leaves no way to go
    targets = (here + unit[0].permute(1, 2, 0)).clamp(-1, 1)
    for _ in range(iterations):
        step = functional.grid_sample(unit, targets[None], padding_mode="border", align_corners=True)[0]
        moved = (targets + step.permute(1, 2, 0)).clamp_(-1, 1)
        still = bool((((moved - targets).abs().amax(dim=(0, 1)) * half) < 1e-3).all())
        targets = moved
        if still:
            break
    return ((targets - here) * half).permute(2, 0, 1).flip(0).numpy() if iterations else field.numpy().copy()


def _span(cells: int) -> torch.Tensor:
    """Middles of a row of cells in the units of a grid, whose border cells lie at -1 and 1."""
    return torch.linspace(-1, 1, cells) if cells > 1 else torch.zeros(1)


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

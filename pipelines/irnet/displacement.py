"""From a displacement field to instances (section 5.1): pure functions on arrays, computed in torch."""

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
    field = torch.from_numpy(np.array(displacement_yx, np.float32))
    if iterations == 0:
        return field.numpy()
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
    return ((targets - here) * half).permute(2, 0, 1).flip(0).numpy()


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

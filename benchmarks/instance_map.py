"""IRNet's instance map from a displacement field (section 5.1), against the same iteration of eq. 10 in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 20
SETTINGS: dict[str, Any] = {"height": 94, "width": 125, "objects": 6, "centroid": 2.5}
SEED = 0
ITERATIONS = [100, 300]


def rows() -> dict[str, dict[str, float]]:
    """Rows ``<iterations>``; ``size`` is the number of cells, those of a 375 x 500 image at a quarter of its size.

    rel_error compares the maps, whose numbers begin with 1 for that.
    """
    cells = SETTINGS["height"] * SETTINGS["width"]
    return {str(count): row(cells, measure("benchmarks.instance_map:ours", 5, iterations=count),
                            measure("benchmarks.instance_map:in_numpy", 3, iterations=count))
            for count in ITERATIONS}


def field(**changes: int) -> np.ndarray:
    """(2, h, w) float32, (dy, dx): at each cell a turned share of the way to the nearest centre, and smooth noise.

    Cells spiral in for some 270 iterations: trained fields, too, let cells creep for all of them.
    """
    from scipy.ndimage import gaussian_filter

    settings = {**SETTINGS, **changes}
    rng = np.random.default_rng(SEED)
    size = settings["height"], settings["width"]
    centres = rng.random((settings["objects"], 2)) * size
    ways = centres[:, :, None, None] - np.indices(size)  # (objects, 2, h, w)
    nearest = (ways**2).sum(1).argmin(0)
    way = np.take_along_axis(ways, nearest[None, None], 0)[0]
    noise = gaussian_filter(rng.standard_normal((2, *size)), (0, 4, 4)) * 4
    turned = np.stack([way[1], -way[0]])
    return (gaussian_filter(0.4 * way + 0.75 * turned, (0, 1, 1)) + noise).astype(np.float32)


def ours(iterations: int, **changes: int) -> Callable[[], np.ndarray]:
    """The map as the method makes it."""
    import torch

    from pipelines.irnet.displacement import instance_map

    torch.set_num_threads(1)
    displacement = field(**changes)
    instance_map(displacement[:, :4, :4], 1, SETTINGS["centroid"])  # loads what is loaded late
    return lambda: instance_map(displacement, iterations, SETTINGS["centroid"]) + 1


def in_numpy(iterations: int, **changes: int) -> Callable[[], np.ndarray]:
    """The same map from a field that is read bilinearly in NumPy."""
    from scipy import ndimage

    displacement = field(**changes)

    def infer() -> np.ndarray:
        height, width = displacement.shape[1:]
        here = np.indices((height, width)).astype(np.float32)
        border = np.array([height - 1, width - 1], np.float32).reshape(2, 1, 1)
        target = np.clip(here + displacement, 0, border)
        for _ in range(iterations):
            before = target
            target = np.clip(target + _bilinear(displacement, target), 0, border)
            if np.abs(target - before).max() < 1e-3:
                break
        centroids, count = ndimage.label(np.hypot(*displacement) < SETTINGS["centroid"], structure=np.ones((3, 3)))
        if count == 0:
            return np.ones((height, width), np.int32)
        y, x = np.rint(target).astype(int)
        nearest = ndimage.distance_transform_edt(centroids == 0, return_distances=False, return_indices=True)
        return centroids[tuple(nearest[:, y, x])]

    return infer


def _bilinear(values: np.ndarray, at_yx: np.ndarray) -> np.ndarray:
    """Values of (C, h, w) at (2, h', w') positions inside the map."""
    height, width = values.shape[1:]
    y0, x0 = np.minimum(at_yx.astype(np.intp), np.array([height - 2, width - 2])[:, None, None])
    part_y, part_x = at_yx[0] - y0.astype(np.float32), at_yx[1] - x0.astype(np.float32)
    flat = values.reshape(len(values), -1)
    top = flat[:, y0 * width + x0] * (1 - part_x) + flat[:, y0 * width + x0 + 1] * part_x
    bottom = flat[:, (y0 + 1) * width + x0] * (1 - part_x) + flat[:, (y0 + 1) * width + x0 + 1] * part_x
    return top * (1 - part_y) + bottom * part_y

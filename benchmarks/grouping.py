"""Grouping of pixels by their embeddings (WISE section 3.3) against loops over pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 60
SETTINGS: dict[str, Any] = {"height": 375, "width": 500, "dimensions": 64, "objects": 20}
SEED = 0


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the number of pixels. ``assignment`` compares each with 20 points and 20 background pixels;
    ``whole`` also chooses those background pixels by k-means from half of the image (no plain counterpart)."""
    pixels = SETTINGS["height"] * SETTINGS["width"]
    return {"assignment": row(pixels, measure("benchmarks.grouping:ours", 5), measure("benchmarks.grouping:loops")),
            "whole": row(pixels, measure("benchmarks.grouping:with_background", 3), None)}


def inputs(**changes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings (d, H, W) float32 around one centre per object and background region, points and background pixels
    (n, 2) each."""
    settings = {**SETTINGS, **changes}
    rng = np.random.default_rng(SEED)
    height, width, count = settings["height"], settings["width"], settings["objects"]
    anchors = rng.choice(height * width, 2 * count, replace=False)
    yx = np.stack([anchors // width, anchors % width], 1)
    regions = rng.integers(0, 2 * count, (height, width))
    centres = 3 * rng.standard_normal((2 * count, settings["dimensions"])).astype(np.float32)
    embeddings = rng.standard_normal((settings["dimensions"], height, width)).astype(np.float32)
    embeddings += centres[regions].transpose(2, 0, 1)
    return embeddings, yx[:count], yx[count:]


def ours(**changes: int) -> Callable[[], np.ndarray]:
    """The map of objects, from 0 on for the background so that a relative error can be given."""
    import torch

    from pipelines.wise.grouping import group

    embeddings, yx, background_yx = inputs(**changes)
    maps = torch.from_numpy(embeddings)
    return lambda: group(maps, yx, background_yx).numpy() + 1


def loops(**changes: int) -> Callable[[], np.ndarray]:
    """The same map by a loop over pixels."""
    embeddings, yx, background_yx = inputs(**changes)
    return lambda: plain_grouping(embeddings, yx, background_yx) + 1


def with_background(**changes: int) -> Callable[[], np.ndarray]:
    """Background pixels by k-means, then the map."""
    import torch

    from pipelines.wise.grouping import background_pixels, group

    embeddings, yx, _ = inputs(**changes)
    maps = torch.from_numpy(embeddings)
    free = np.zeros(embeddings.shape[1:], bool)
    free[: len(free) // 2] = True
    return lambda: group(maps, yx, background_pixels(maps, free, len(yx))).numpy() + 1


def plain_grouping(embeddings: np.ndarray, yx: np.ndarray, background_yx: np.ndarray) -> np.ndarray:
    """(H, W) number of the object, or -1, whose pixel has the largest similarity of eq. 2."""
    anchors = np.array([embeddings[:, row_, column] for row_, column in [*yx, *background_yx]], np.float64)
    labels = np.full(embeddings.shape[1:], -1)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            distances = ((anchors - embeddings[:, y, x]) ** 2).sum(1)
            best = int(distances.argmin())  # where exp(-distance / 2d) is largest
            labels[y, x] = best if best < len(yx) else -1
    return labels

"""The CPU's share of IRNet's labels, image by image: confident areas, instance map, walk, labels, RLE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 60
SETTINGS: dict[str, Any] = {"height": 375, "width": 500, "grid": 4, "classes": 2, "objects": 6, "refinements": 100}
SEED = 0


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the number of pixels.

    ``areas`` refines both partitions of section 4.2 on one lattice, against pydensecrf once for each; its rel_error is
    the share of pixels whose label differs. ``whole`` is all that the CPU does for an image after the networks.
    """
    pixels = SETTINGS["height"] * SETTINGS["width"]
    ours, reference = (measure("benchmarks.irnet_image:areas", 5, engine=engine)
                       for engine in ("lattice", "pydensecrf"))
    compared = row(pixels, ours, reference) | {"rel_error": float((ours.result != reference.result).mean())}
    return {"areas": compared, "whole": row(pixels, measure("benchmarks.irnet_image:whole", 3), None)}


def inputs(**changes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 with as many colours as a photograph, attention maps (K, h, w) float16 on the grid and
    the boundary map (h, w) float16."""
    from scipy.ndimage import gaussian_filter, sobel, zoom

    settings = {**SETTINGS, **changes}
    rng = np.random.default_rng(SEED)
    height, width, grid = (settings[key] for key in ("height", "width", "grid"))
    fields = gaussian_filter(rng.standard_normal((settings["classes"] + 3, height, width)), (0, 25, 25))
    fields /= fields.std((1, 2), keepdims=True)
    image = 120 + 50 * np.tanh(3 * fields[-3:]) + 5 * rng.standard_normal((3, height, width))
    cells = -(-height // grid), -(-width // grid)
    cams = np.maximum(zoom(fields[:-3], (1, cells[0] / height, cells[1] / width), order=1), 0)
    cams /= cams.max((1, 2), keepdims=True)
    edge = np.hypot(*(sobel(cams.max(0), axis) for axis in (0, 1)))
    return (np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy(), cams.astype(np.float16),
            np.clip(edge, 0, 0.95).astype(np.float16))


def areas(engine: str, **changes: int) -> Callable[[], np.ndarray]:
    """The confident areas by one of the CRFs."""
    import torch

    from pipelines.irnet.relations import confident_areas
    from pipelines.irnet.settings import RelationSettings
    from stages.labels.maps import upsample_cells
    from stages.propagation.settings import DenseCrfSettings

    torch.set_num_threads(1)
    image, cams, _ = inputs(**changes)
    cams = upsample_cells(cams, {**SETTINGS, **changes}["grid"], image.shape[:2])
    settings = RelationSettings(crf=DenseCrfSettings.model_validate({"engine": engine}))
    confident_areas(image[:4, :4], cams[:, :4, :4], settings)  # loads what is loaded late
    return lambda: confident_areas(image, cams, settings)


def whole(**changes: int) -> Callable[[], np.ndarray]:
    """Everything; the areas of the labels that come out."""
    import torch

    from benchmarks.instance_map import field
    from pipelines.irnet.masks import image_labels
    from pipelines.irnet.relations import confident_areas
    from pipelines.irnet.settings import PropagationSettings, RelationSettings, SynthesisSettings
    from pipelines.irnet.spreading import spread
    from stages.labels import rle
    from stages.labels.maps import upsample_cells

    torch.set_num_threads(1)
    settings = {**SETTINGS, **changes}
    image, cams, boundary = inputs(**changes)
    size = image.shape[:2]
    displacement = field(height=cams.shape[1], width=cams.shape[2], objects=settings["objects"]).astype(np.float16)
    propagation = PropagationSettings(refinements=settings["refinements"])

    def infer() -> np.ndarray:
        confident_areas(image, upsample_cells(cams, settings["grid"], size), RelationSettings())
        walked = {"classes": np.arange(1, len(cams) + 1), **spread(cams, displacement, boundary, propagation)}
        labels, _ = image_labels(cams, walked, settings["grid"], size, SynthesisSettings())
        return np.array([rle.area(rle.encode(mask)) for _, mask, _ in labels])

    infer()  # loads what is loaded late
    return infer

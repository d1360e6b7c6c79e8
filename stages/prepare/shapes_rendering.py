"""Images of the embedded data set (see ``shapes``) and their truth, from a seed and a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.prepare import shapes_drawing as drawing
from stages.prepare.settings import ShapesSettings
from stages.prepare.shapes import CATEGORIES, GROUND, SKY
from stages.prepare.shapes_scenes import plan
from stages.runtime.errors import UserError
from stages.runtime.seeds import generator

TRIALS = 200
"""Scenes that are planned for an image until one shows an object."""

_CATEGORY = {category["name"]: category["id"] for category in CATEGORIES}


@dataclass(frozen=True, eq=False)
class Instance:
    """One region of the truth.

    Attributes:
        category_id: id in ``CATEGORIES``.
        mask: height x width bool, the visible pixels.
    """

    category_id: int
    mask: np.ndarray


def render(index: int, seed: int, settings: ShapesSettings) -> tuple[np.ndarray, list[Instance]]:
    """Render image ``index`` of the data set of ``seed``; nothing else has a say in the result.

    Returns:
        The image, height x width x 3 uint8 RGB, and its regions: things from the back to the front, then sky, then
        ground. The masks are disjoint and cover the image; no thing shows fewer than ``settings.min_pixels``.

    Raises:
        UserError: objects as small as ``settings`` wants them hardly ever show so many pixels.
    """
    rng = generator(seed, "shapes", index)
    for _ in range(TRIALS):
        scene = plan(rng, settings)
        scene, labels = drawing.settle(scene, settings.height, settings.width, settings.min_pixels)
        if any(item.kind != "pole" for item in scene.items):
            break
    else:
        raise UserError(f"dataset.shapes: {TRIALS} scenes had no object that shows {settings.min_pixels} pixels; make "
                        f"min_pixels smaller, or largest ({settings.largest:g}) larger")
    image = drawing.paint(scene, settings)
    instances = [Instance(_CATEGORY[item.kind], labels == drawing.FIRST + number)
                 for number, item in enumerate(scene.items) if item.kind != "pole"]
    stuff = [Instance(category, labels == label)
             for category, label in ((SKY, drawing.SKY_LABEL), (GROUND, drawing.GROUND_LABEL))]
    return image, instances + [region for region in stuff if region.mask.any()]

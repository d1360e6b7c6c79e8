"""GrabCut of one box of an image of 640 x 480 px, which looks at no more than 192 px a side, against all the pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import measure, row
from benchmarks.proposals import inputs
from stages.cues.simple_masks import grabcut_mask

ABOUT_SECONDS = 30
SETTINGS: dict[str, Any] = {"height": 480, "width": 640, "iterations": 5, "longest": 192, "margin": 0.5}
SEED = 0

SIDES = (40, 150, 400)


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the box's pixels. The reference does not shrink what it looks at; the error is that of the masks, and
    what the bound on the time costs."""
    return {f"box_{side}": row(side ** 2, measure("benchmarks.grabcut:cut", 3, side=side, longest=SETTINGS["longest"]),
                               measure("benchmarks.grabcut:cut", 1, side=side, longest=640)) for side in SIDES}


def cut(side: int, longest: int) -> Callable[[], np.ndarray]:
    """Its mask."""
    height, width = SETTINGS["height"], SETTINGS["width"]
    image = inputs(height, width)
    # An object, as GrabCut would lose what the box holds otherwise, and give the box.
    cv2.ellipse(image, (width // 2, height // 2), (int(0.47 * side), int(0.35 * side)), 0, 0, 360, (30, 160, 60), -1)
    left, top = (width - side) // 2, (height - side) // 2
    return lambda: grabcut_mask(image, (left, top, left + side, top + side), SETTINGS["iterations"],
                                margin=SETTINGS["margin"], longest=longest)

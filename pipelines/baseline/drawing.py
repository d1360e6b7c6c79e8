"""Pictures of what the masks are made from, for the report."""

from __future__ import annotations

import numpy as np

from stages.cues.crops import object_box
from stages.cues.objects import Image
from stages.labels.drawing import category_colour, draw_box, draw_point


def panels(image: Image, pixels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Title and RGB picture (H, W, 3) of one image (H, W, 3): boxes, and extreme points where there are any."""
    picture = np.array(pixels)
    for item in image.objects:
        left, top, right, bottom = object_box(item)
        colour = category_colour(item["category_id"])
        draw_box(picture, (left, top, right - left, bottom - top), colour)
        for x, y in item.get("extreme_points", ()):
            draw_point(picture, (x, y), colour)
    return [("boxes and extreme points", picture)]

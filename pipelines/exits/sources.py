"""What masks are made of: the crops of an image and, where no network makes them, masks that are drawn."""

from __future__ import annotations

import numpy as np

from pipelines.exits.settings import CropSettings, MaskSource
from stages.cues.crops import cut
from stages.cues.objects import Crops, Image, object_crops
from stages.cues.simple_masks import simple_mask
from stages.labels.images import read_rgb

Views = tuple[Crops, np.ndarray | None]
"""What ``read_views`` gives."""


def read_views(image: Image, crops: CropSettings, source: MaskSource) -> Views:
    """Crops of all objects of an image, and their masks (K, side, side) float32 where ``source`` draws them.

    The drawn masks are those of the whole image, as ``pipelines.baseline`` makes them, cut like the crops.
    """
    pixels = read_rgb(image.path) if image.objects else np.zeros((*image.size, 3), np.uint8)
    views = object_crops(image, pixels, crops.side, crops.margin)
    if source == "generator" or source == "walk":
        return views, None
    masks = np.zeros((len(image.objects), crops.side, crops.side), np.float32)
    for mask, item, window in zip(masks, image.objects, views[2], strict=True):
        mask[:] = cut(simple_mask(source, pixels, item).astype(np.float32), window, crops.side)
    return views, masks

"""Confident areas of attention maps, refined by dense CRF (section 4.2): pure functions on arrays."""

from __future__ import annotations

import numpy as np

from pipelines.irnet.settings import IGNORE, RelationSettings
from stages.propagation.partitions import refine_partitions


def confident_areas(image: np.ndarray, cams: np.ndarray, settings: RelationSettings) -> np.ndarray:
    """Pseudo class map of one image.

    Foreground: the class with the highest attention where that exceeds ``foreground``; background: where no
    attention exceeds ``background``. Each of the two partitions is refined by its own dense CRF, and a pixel is
    confident where the first says foreground, or neither does.

    Args:
        image: (H, W, 3) uint8 RGB.
        cams: (K, H, W) float in 0..1; K <= 254.
        settings: thresholds and CRF.

    Returns:
        (H, W) uint8: 0 background, 1..K classes, 255 neither.
    """
    height, width = image.shape[:2]
    if len(cams) == 0:
        return np.zeros((height, width), np.uint8)
    best, highest = cams.argmax(0) + 1, cams.max(0)
    partitions = np.stack([np.where(highest > threshold, best, 0)
                           for threshold in (settings.foreground, settings.background)])
    foreground, background = refine_partitions(settings.crf, image, partitions, len(cams) + 1)
    found = np.where(foreground > 0, foreground, np.where(background == 0, 0, IGNORE))
    return found.astype(np.uint8)

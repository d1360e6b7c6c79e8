"""Pictures of the points and of the generator's masks, for the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.cues.crops import paste
from stages.labels.drawing import faded, heatmap
from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND

_GREEN, _RED, _YELLOW = (40, 170, 60), (235, 50, 50), (255, 215, 0)


def draw_points(pixels: np.ndarray, labels: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Retrieved and given points of all objects on an image.

    Args:
        pixels: (H, W, 3) uint8.
        labels: (K, N, N) int8 of ``propagate``.
        windows: (K, 4) of the crops.

    Returns:
        (H, W, 3) uint8: given foreground yellow, retrieved foreground red, retrieved background green. Objects are
        drawn from the largest to the smallest, each hiding what others say inside its box.
    """
    picture = faded(pixels)
    size = picture.shape[:2]
    whole = np.zeros(size, np.int8)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in windows]
    for index in np.argsort(areas)[::-1]:
        x0, y0, x1, y1 = (int(value) for value in windows[index])
        height, width = y1 - y0, x1 - x0
        rows = np.floor((np.arange(height) + 0.5) * labels.shape[1] / height).astype(int)
        columns = np.floor((np.arange(width) + 0.5) * labels.shape[2] / width).astype(int)
        part = labels[index][rows[:, None], columns]
        view = whole[y0:y1, x0:x1]
        view[part != BACKGROUND] = part[part != BACKGROUND]
    for value, colour in ((PSEUDO_BACKGROUND, _GREEN), (PSEUDO_FOREGROUND, _RED), (FOREGROUND, _YELLOW)):
        chosen = whole == value
        picture[chosen] = np.rint(0.4 * picture[chosen] + 0.6 * np.array(colour)).astype(np.uint8)
    return picture


def panels(pixels: np.ndarray, points: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> \
        list[tuple[str, np.ndarray]]:
    """Titles and RGB pictures of one image: its points, and the generator's probability.

    Args:
        pixels: (H, W, 3) uint8.
        points: arrays of ``propagate``.
        masks: arrays of ``infer_masks``.
    """
    highest = np.zeros(pixels.shape[:2], np.float32)
    for mask, (x0, y0, x1, y1) in zip(masks["probabilities"], masks["windows"].tolist(), strict=True):
        highest = np.maximum(highest, paste(mask / 255, (x0, y0, x1, y1), pixels.shape[:2]))
    return [("points: given yellow, retrieved red, background green",
             draw_points(pixels, points["labels"], points["windows"])),
            ("generator", heatmap(highest, pixels))]

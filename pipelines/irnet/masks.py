"""Masks from class maps and instances (section 5.2): pure functions on arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.irnet.instances import split_maps
from pipelines.irnet.settings import SynthesisSettings
from stages.labels.components import components_of, label_map
from stages.labels.maps import upsample_cells

# How much of the score the area makes: less than the float16 in which scores are stored can tell apart.
_TIE = 1e-4


def instance_labels(scores: np.ndarray, classes: np.ndarray,
                    settings: SynthesisSettings) -> list[tuple[int, np.ndarray, float]]:
    """Instances of one image from maps at its size.

    Args:
        scores: (P, H, W), not negative: one map per class, or per class and instance.
        classes: (P,) category id of each map.
        settings: threshold, and whether an instance is a map or a connected component of a class.

    Returns:
        (category id, bool mask (H, W), score) of each instance. The score is the largest value of its map within the
        mask (section 6.2), before the normalisation, which would make the best instance of every image equal; of two
        equal scores the larger area is above the other. Fragments have score 0.
    """
    labels, _ = label_map(scores, settings.threshold, settings.normalise, settings.threshold_kind)
    if settings.instances == "components" or settings.split:
        parts = components_of(labels, len(scores), settings.connectivity)
    else:
        parts = [(index, labels == index) for index in range(len(scores))]
    found = []
    for index, mask in parts:
        area = int(mask.sum())
        fragment = area < settings.fragment * mask.size
        if area == 0 or (fragment and settings.drop_fragments):
            continue
        score = 0.0 if fragment else (float(scores[index][mask].max()) + _TIE * area / mask.size) / (1 + _TIE)
        found.append((int(classes[index]), mask, round(score, 9)))
    return found


def image_labels(cams: np.ndarray, walked: Mapping[str, np.ndarray], stride: int, size: tuple[int, int],
                 settings: SynthesisSettings) -> tuple[list[tuple[int, np.ndarray, float]], np.ndarray]:
    """Instances and semantic map of one image, as the settings want them (the rows of Table 1).

    Args:
        cams: (K, h, w), attention before the walk.
        walked: what ``propagate`` stored: ``classes``, ``semantic``, ``instances``, ``pairs``, ``scores``.
        stride: image pixels per cell.
        size: (H, W) of the image.
        settings: which scores, which instances, thresholds.

    Returns:
        (category id, bool mask (H, W), score) of each instance, and the category id of each pixel (H, W), 0 where it
        is background.
    """
    classes, pairs = walked["classes"], walked["pairs"]
    class_maps = upsample_cells(cams if settings.scores == "cam" else walked["semantic"], stride, size)
    if settings.instances == "components":
        maps, owners = class_maps, classes
    else:
        owners = classes[pairs[:, 0]]
        if settings.scores == "cam":  # eq. 11 at the image's size: a cell's border is the instance's
            maps = split_maps(class_maps, cells_at(walked["instances"], stride, size), pairs)
        else:
            maps = upsample_cells(walked["scores"], stride, size)
    semantic, _ = label_map(class_maps, settings.threshold, settings.normalise, settings.threshold_kind)
    return instance_labels(maps, owners, settings), np.concatenate([[0], classes])[semantic + 1]


def cells_at(labels: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """The label of the cell in which each pixel lies: (h, w) on cells of ``stride`` px to (H, W) = ``size``."""
    rows = np.minimum(np.arange(size[0]) // stride, labels.shape[0] - 1)
    columns = np.minimum(np.arange(size[1]) // stride, labels.shape[1] - 1)
    return labels[rows[:, None], columns]

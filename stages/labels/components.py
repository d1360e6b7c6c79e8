"""From scores to masks: the best map at every pixel, and the connected parts of a label map."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage


def label_map(scores: np.ndarray, threshold: float, normalise: str = "image",
              threshold_kind: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """The best map at every pixel, or background where even that is low (IRNet sec. 5.2).

    Args:
        scores: (P, H, W), any scale, not negative.
        threshold: see ``threshold_kind``.
        normalise: "image" divides by the largest score of all maps, "instance" each map by its own.
        threshold_kind: "score" compares the normalised score with ``threshold``; "percentile" calls the lowest
            ``threshold`` of the image's positive scores background.

    Returns:
        (H, W) int32, -1 background or the index of a map; and the normalised scores (P, H, W). Of two equal scores
        the map that holds more of the image wins, as ties go by area.
    """
    if len(scores) == 0:
        return np.full(scores.shape[1:], -1, np.int32), scores
    maxima = scores.reshape(len(scores), -1).max(1)
    top = maxima.max() if normalise == "image" else maxima[:, None, None]
    normalised = scores / np.maximum(top, 1e-12)
    by_area = np.argsort(-(normalised >= threshold).reshape(len(scores), -1).sum(1), kind="stable")
    best = by_area[normalised[by_area].argmax(0)]
    highest = normalised.max(0)
    limit = threshold
    if threshold_kind == "percentile":
        positive = highest[highest > 0]
        limit = float(np.quantile(positive, threshold)) if len(positive) else threshold
    return np.where((highest >= limit) & (highest > 0), best, -1).astype(np.int32), normalised


def components_of(labels: np.ndarray, count: int, connectivity: Literal[4, 8] = 8) -> list[tuple[int, np.ndarray]]:
    """Connected components of each label of a map.

    Args:
        labels: (H, W) int; other values than 0 .. count - 1 are left out.
        count: how many labels there are.
        connectivity: 4 joins pixels that share a side, 8 also those that share a corner.

    Returns:
        Pairs of label and bool mask (H, W), by label, then in the order in which rows are read.

    Raises:
        ValueError: another connectivity.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    found = []
    for label in range(count):
        components, number = ndimage.label(labels == label, structure=structure)
        found += [(label, components == index) for index in range(1, number + 1)]
    return found

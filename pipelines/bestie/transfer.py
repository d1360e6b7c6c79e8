"""Semantic knowledge transfer (section 3.3): components of a semantic map with exactly one cue are instances.

Arrays of one crop: a semantic map (H, W) of integers holds 0 background, 1.. classes, IGNORE (-1) undecided; cues and
centres are rows (class index from 0, y, x).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class PseudoLabel:
    """The pseudo instances of a crop.

    Attributes:
        components: (H, W) int32, 0 or the component's number, from 1: all candidates, of tagged classes.
        instances: (H, W) int32, 0 or the row of ``centres``, counted from 1: the pixels whose offsets are guided.
        centres: (n, 3) int64 rows (class index, y, x): centres of the pseudo instances, or all points of the crop.
    """

    components: np.ndarray
    instances: np.ndarray
    centres: np.ndarray


def candidate_components(semantic: np.ndarray, classes: Collection[int], smallest: int) -> np.ndarray:
    """8-connected components of each class: the instance mask candidates.

    Args:
        semantic: (H, W), see above.
        classes: indices from 0 of the classes that count: those of the image's tags.
        smallest: components with fewer pixels are left out [px].

    Returns:
        (H, W) int32: 0, or the component's number from 1, by class, then in reading order of the first pixels.
    """
    components = np.zeros(semantic.shape, np.int32)
    count = 0
    for index in sorted(classes):
        labels, found = ndimage.label(semantic == index + 1, structure=EIGHT)
        areas = np.bincount(labels.ravel(), minlength=found + 1)
        kept = areas >= smallest
        kept[0] = False
        numbers = np.where(kept, count + np.cumsum(kept), 0).astype(np.int32)
        components += numbers[labels]
        count += int(kept.sum())
    return components


def pseudo_label(semantic: np.ndarray, classes: Collection[int], cues: np.ndarray, *, smallest: int,
                 centre: str = "centroid", points: bool = False) -> PseudoLabel:
    """Pseudo instances of one crop: the candidates with exactly one cue of their class inside.

    Args:
        semantic: (H, W), see above.
        classes: indices from 0 of the classes that count.
        cues: (n, 3) rows (class index, y, x) in whole pixels; those outside the crop, or outside every candidate of
            their class, count for nothing.
        smallest: candidates with fewer pixels are left out [px].
        centre: "centroid", rounded down, or "nearest": the mask's pixel that is nearest to the centroid.
        points: the cues are annotated points: all of them inside the crop are centres, and offsets aim at them
            (section 4.3).
    """
    height, width = semantic.shape
    components = candidate_components(semantic, classes, smallest)
    cues = np.asarray(cues, np.int64).reshape(-1, 3)
    inside = (cues[:, 1] >= 0) & (cues[:, 1] < height) & (cues[:, 2] >= 0) & (cues[:, 2] < width)
    cues = cues[inside & np.isin(cues[:, 0], sorted(classes))]
    hit = components[cues[:, 1], cues[:, 2]]
    hit[semantic[cues[:, 1], cues[:, 2]] != cues[:, 0] + 1] = 0
    counts = np.bincount(hit, minlength=int(components.max(initial=0)) + 1)
    counts[0] = 0
    single = np.flatnonzero(counts == 1)
    rows = np.zeros(len(counts), np.int32)  # component -> row of centres, from 1
    if points:
        chosen = np.flatnonzero(np.isin(hit, single))
        rows[hit[chosen]] = chosen + 1
        centres = cues
    else:
        rows[single] = np.arange(1, len(single) + 1)
        owner = {int(component): int(category) for component, category in zip(hit, cues[:, 0], strict=True)}
        centres = np.array([[owner[int(number)], *mask_centre(components == number, centre)] for number in single],
                           np.int64).reshape(-1, 3)
    return PseudoLabel(components, rows[components], centres)


def mask_centre(mask: np.ndarray, kind: str = "centroid") -> tuple[int, int]:
    """(y, x) of a mask's centre: its centroid rounded down, or its pixel nearest to the centroid as it is.

    Of equally near pixels the first in reading order counts. Distances are exact: whole numbers over the area squared.
    """
    y, x = np.nonzero(mask)
    area = len(y)
    if kind == "centroid":
        return int(y.sum() // area), int(x.sum() // area)
    distance = (y * area - y.sum()) ** 2 + (x * area - x.sum()) ** 2
    best = int(distance.argmin())
    return int(y[best]), int(x[best])

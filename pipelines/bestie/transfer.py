"""Semantic knowledge transfer (section 3.3): components of a semantic map with exactly one cue are instances.

Where a network is trained anew on labels that another made (table 5), those are the instances, by the same rules.

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


@dataclass(frozen=True)
class GivenMasks:
    """Instance masks of an image, or of a crop of it, that something else than its semantic map gives.

    Attributes:
        masks: (H, W) int, 0 or the mask's number, from 1; no pixel belongs to two.
        categories: (m,) int64 class indices from 0 of the masks 1 to m; in a crop not all of them have pixels.
        points: (m,) int64: which cue a mask belongs to, as its row; -1 for none. Read where cues are annotated points.
    """

    masks: np.ndarray
    categories: np.ndarray
    points: np.ndarray


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


def components_of(points: np.ndarray, components: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """(n,) the component of its own class that each point lies in, 0 for none.

    Args:
        points: (n, 3) rows (class index, y, x) in whole pixels inside the map.
        components: (H, W) of :func:`candidate_components`, of the map ``semantic``.
    """
    there = semantic[points[:, 1], points[:, 2]] == points[:, 0] + 1
    return np.where(there, components[points[:, 1], points[:, 2]], 0)


def pseudo_label(semantic: np.ndarray, classes: Collection[int], cues: np.ndarray, *, smallest: int,
                 centre: str = "centroid", points: bool = False, given: GivenMasks | None = None) -> PseudoLabel:
    """Pseudo instances of one crop: the candidates with exactly one cue of their class inside, or given masks.

    Args:
        semantic: (H, W), see above.
        classes: indices from 0 of the classes that count.
        cues: (n, 3) rows (class index, y, x) in whole pixels; those outside the crop, or outside every candidate of
            their class, count for nothing.
        smallest: candidates, and given masks, with fewer pixels are left out [px].
        centre: "centroid", rounded down, or "nearest": the mask's pixel that is nearest to the centroid.
        points: the cues are annotated points: all of them inside the crop are centres, and offsets aim at them
            (section 4.3).
        given: masks that are the pseudo instances in the place of candidates with one cue (table 5). With ``points``
            those whose point lies outside the crop are left out.
    """
    components = candidate_components(semantic, classes, smallest)
    cues = np.asarray(cues, np.int64).reshape(-1, 3)
    counted = (cues[:, 1] >= 0) & (cues[:, 1] < semantic.shape[0])
    counted &= (cues[:, 2] >= 0) & (cues[:, 2] < semantic.shape[1]) & np.isin(cues[:, 0], sorted(classes))
    cues = cues[counted]
    if given is None:
        masks = components
        numbers, rows = _single(components, semantic, cues)
        categories = cues[rows, 0]
    else:
        masks = given.masks
        areas = np.bincount(masks.ravel(), minlength=len(given.categories) + 1)[1:]
        kept = (areas >= smallest) & np.isin(given.categories, sorted(classes))
        # Row of a cue that counts, by its row before the others were left out; -1, no cue, finds the last entry.
        rows = np.append(np.where(counted, np.cumsum(counted) - 1, -1), -1)[given.points]
        numbers = np.flatnonzero(kept & (rows >= 0) if points else kept) + 1
        rows, categories = rows[numbers - 1], given.categories[numbers - 1]
    if points:
        return _guided(components, masks, numbers, rows, cues)
    centres = np.array([[category, *mask_centre(masks == number, centre)]
                        for number, category in zip(numbers.tolist(), categories.tolist(), strict=True)], np.int64)
    return _guided(components, masks, numbers, np.arange(len(numbers)), centres.reshape(-1, 3))


def _single(components: np.ndarray, semantic: np.ndarray, cues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, ascending, of the components with exactly one cue of their class inside, and the rows of those cues."""
    hit = components_of(cues, components, semantic)
    counts = np.bincount(hit, minlength=1)
    counts[0] = 0
    rows = np.flatnonzero(counts[hit] == 1)
    rows = rows[np.argsort(hit[rows])]
    return hit[rows], rows


def _guided(components: np.ndarray, masks: np.ndarray, numbers: np.ndarray, rows: np.ndarray, centres: np.ndarray
            ) -> PseudoLabel:
    """A label whose instances are the masks of some numbers, each with the row of its centre."""
    table = np.zeros(int(masks.max(initial=0)) + 1, np.int32)
    table[numbers] = rows + 1
    return PseudoLabel(components, table[masks], centres)


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

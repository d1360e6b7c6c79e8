"""From overlapping masks to one label per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.evaluation.records import Record
from stages.labels import rle


def segment_map(annotations: Sequence[Record], height: int, width: int,
                keep_visible: float = 0.0) -> np.ndarray:
    """Paint masks where no earlier one lies: (height, width) int32, 0 nowhere, else 1 + place in ``annotations``.

    Args:
        annotations: with RLE ``segmentation``, the ones that win over others first.
        keep_visible: a mask of which less than this share is still free is not painted at all.
    """
    labels = np.zeros((height, width), np.int32)
    for place, annotation in enumerate(annotations, start=1):
        mask = rle.decode(annotation["segmentation"])
        free = mask & (labels == 0)
        if free.any() and free.sum() >= keep_visible * mask.sum():
            labels[free] = place
    return labels


def by_score(annotations: Sequence[Record], things: set[int]) -> list[Record]:
    """Things before stuff, each in order of falling score, ties in input order: the order in which predictions win."""
    return sorted(annotations, key=lambda item: (item["category_id"] not in things, -item.get("score", 1.0)))


def by_size(annotations: Sequence[Record], things: set[int]) -> list[Record]:
    """Things before stuff, each from small to large: the order in which overlapping truth wins."""
    return sorted(annotations, key=lambda item: (item["category_id"] not in things, item["area"], item["id"]))


def class_map(segments: np.ndarray, annotations: Sequence[Record],
              places: Mapping[int, int]) -> np.ndarray:
    """Class per pixel as ``places[category id]``, 0 where ``segments`` (of :func:`segment_map`) is 0."""
    return np.array([0, *(places[item["category_id"]] for item in annotations)], np.int32)[segments]

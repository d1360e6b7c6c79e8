"""Mean intersection over union of semantic label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.evaluation.records import Record
from stages.labels.images import label_picture
from stages.runtime import layout
from stages.runtime.errors import UserError

UNDECIDED = -1
"""Class of a pixel for which no label was decided."""


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[int],
              ignored: np.ndarray | None = None) -> np.ndarray:
    """Count pixels of one image.

    Args:
        truth: (H, W) int from 0 on; values outside ``labels`` count as background (0).
        predicted: (H, W) int, in the same way, or :data:`UNDECIDED`.
        labels: the values to measure, 0 (background) among them.
        ignored: (H, W) bool, pixels that do not count at all.

    Returns:
        (K, K + 1) int64, truth by prediction in the order of ``labels``. The last column holds undecided pixels: they
        are missed for their true class and false alarms for none, so deciding nothing is no way to a good figure.
    """
    size = int(max(truth.max(initial=0), predicted.max(initial=0))) + 1
    places = {label: place for place, label in enumerate(labels)}
    # UNDECIDED, -1, finds the last entry.
    table = np.array([*(places.get(value, places[0]) for value in range(size)), len(labels)], np.int64)
    pairs = table[truth] * (len(labels) + 1) + table[predicted]
    pairs = pairs.ravel() if ignored is None else pairs[~ignored]
    return np.bincount(pairs, minlength=len(labels) * (len(labels) + 1)).reshape(len(labels), len(labels) + 1)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """IoU per class from a confusion of (K, K) or (K, K + 1): (K,) float64, NaN for a class without true pixels."""
    counts = np.asarray(counts, np.float64)
    size = counts.shape[0]
    hits = np.diagonal(counts[:, :size])
    true_pixels = counts.sum(axis=1)
    union = true_pixels + counts[:, :size].sum(axis=0) - hits
    return np.where(true_pixels > 0, hits / np.maximum(union, 1.0), np.nan)


def mean_iou(counts: np.ndarray) -> float:
    """Mean of :func:`class_iou` over the classes that have true pixels, in 0..1; NaN if none has."""
    iou = class_iou(counts)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def read_semantic(path: Path, height: int, width: int, places: Mapping[int, int] | None = None) -> np.ndarray:
    """Read a semantic PNG: pixel value = category id, 0 background, 255 undecided, or 65535 where 255 is a category.

    Args:
        path: of the PNG.
        height, width: of its image.
        places: category id -> class number from 1 on to give instead; values that are no category become 0.

    Returns:
        (height, width) int32 with :data:`UNDECIDED` for undecided pixels.

    Raises:
        UserError: missing, unreadable, not single-channel or of another size than its image.
    """
    with label_picture(path, "no such file; the method writes one semantic PNG per image") as picture:
        if picture.size != (width, height) or len(picture.getbands()) > 1 or picture.mode == "F":
            raise UserError(f"{path}: a single-channel PNG of {width} x {height} pixels was expected, "
                            f"found {picture.width} x {picture.height} pixels of mode {picture.mode}")
        values = np.array(picture).astype(np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UserError(f"{path}: numbers from 0 to 65535 were expected, found {values.min()} to {values.max()}")
    undecided = values == (65535 if 255 in (places or {}) else 255)
    if places is not None:
        table = np.zeros(int(values.max(initial=0)) + 1, np.int32)
        for category, number in places.items():
            if 0 < category < len(table):
                table[category] = number
        values = table[values]
    return np.where(undecided, UNDECIDED, values)


def covers(folder: Path, images: Sequence[Record]) -> bool:
    """Whether ``folder`` holds a semantic PNG for the first of ``images`` (a method may write one split only)."""
    return bool(images) and (folder / f"{layout.image_key(images[0])}.png").exists()

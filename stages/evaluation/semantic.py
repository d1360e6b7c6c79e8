"""Mean intersection over union of semantic label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.runtime import layout
from stages.runtime.errors import UserError

IGNORE = 255
"""Pixel value of a semantic PNG where no label was decided."""


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[int],
              ignored: np.ndarray | None = None) -> np.ndarray:
    """Count pixels of one image.

    Args:
        truth: (H, W) int; values outside ``labels`` count as background (0).
        predicted: (H, W) int, in the same way; :data:`IGNORE` means undecided.
        labels: the values to measure, 0 (background) among them.
        ignored: (H, W) bool, pixels that do not count at all.

    Returns:
        (K, K + 1) int64, truth by prediction in the order of ``labels``. The last column holds undecided pixels: they
        are missed for their true class and false alarms for none, so deciding nothing is no way to a good figure.
    """
    size = int(max(truth.max(initial=0), predicted.max(initial=0), IGNORE)) + 1
    places = {label: place for place, label in enumerate(labels)}
    table = np.array([places.get(value, places[0]) for value in range(size)])
    truth_place, predicted_place = table[truth], table[predicted]
    if IGNORE not in places:
        predicted_place = np.where(predicted == IGNORE, len(labels), predicted_place)
    pairs = truth_place.astype(np.int64) * (len(labels) + 1) + predicted_place
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


def read_semantic(path: Path, height: int, width: int) -> np.ndarray:
    """Read a semantic PNG: (height, width) int, pixel value = category id, 0 background, 255 undecided.

    Raises:
        UserError: missing, unreadable, not single-channel or of another size than its image.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            labels = np.array(picture)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the method writes one semantic PNG per image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a PNG ({error})") from None
    if labels.shape != (height, width):
        raise UserError(f"{path}: a single-channel PNG of {width} x {height} pixels was expected, "
                        f"found an array of shape {labels.shape}")
    return labels.astype(np.int32)


def covers(folder: Path, images: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``folder`` holds a semantic PNG for the first of ``images`` (a method may write one split only)."""
    return bool(images) and (folder / f"{layout.image_key(images[0])}.png").exists()

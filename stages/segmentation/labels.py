"""Semantic label maps: category ids in files, class indices in networks.

In a PNG a pixel holds its category id, 0 is background and 255 undecided; where 255 is a category, 65535 is undecided.
In a network 0 is background, 1, 2, ... are the categories in the given order, and :data:`IGNORE` is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from stages.labels.images import label_picture
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path

IGNORE = -1
"""Class index of pixels that count for nothing."""

_UNKNOWN = -2
_UNDECIDED = 255
_UNDECIDED_WIDE = 65535


def index_table(category_ids: Sequence[int]) -> np.ndarray:
    """(65536,) int16: class index of each pixel value; values that are no category are below :data:`IGNORE`.

    Raises:
        UserError: ids that a semantic map cannot hold.
    """
    wrong = [number for number in category_ids if not 0 < number < _UNDECIDED_WIDE]
    if wrong or len(set(category_ids)) != len(category_ids):
        raise UserError(f"semantic maps: category ids must differ and lie in 1..{_UNDECIDED_WIDE - 1}, because 0 is "
                        f"background and {_UNDECIDED_WIDE} undecided; found {wrong[:5] or 'an id twice'}; renumber the "
                        f"data set's categories")
    table = np.full(_UNDECIDED_WIDE + 1, _UNKNOWN, np.int16)
    table[[_UNDECIDED, _UNDECIDED_WIDE]] = IGNORE
    table[[0, *category_ids]] = np.arange(len(category_ids) + 1)
    return table


def read_indices(path: str | Path, size: tuple[int, int], table: np.ndarray) -> np.ndarray:
    """Read a semantic PNG (8 or 16 bits, grey or palette) as class indices.

    Args:
        path: of the PNG.
        size: (H, W) of its image.
        table: of ``index_table``.

    Returns:
        (H, W) int16: 0 background, 1.. classes, :data:`IGNORE`; a map that decides nothing is allowed.

    Raises:
        UserError: missing, damaged, more than one channel, another size, or values that are no category.
    """
    missing = "no such label map; one PNG per image was expected, named by the image's id in twelve digits"
    with label_picture(path, missing) as picture:
        if picture.size != (size[1], size[0]) or len(picture.getbands()) > 1 or picture.mode == "F":
            raise UserError(f"{path}: a map of category ids with {size[1]} x {size[0]} pixels, as its image has, and "
                            f"one channel was expected, found {picture.width} x {picture.height} pixels of mode "
                            f"{picture.mode}")
        values = np.array(picture)
    values = values.astype(np.int64)
    indices = table[np.clip(values, 0, _UNDECIDED_WIDE)]
    indices[(values < 0) | (values > _UNDECIDED_WIDE)] = _UNKNOWN
    unknown = np.unique(values[indices == _UNKNOWN])
    if len(unknown):
        raise UserError(f"{path}: the values {unknown[:5].tolist()} are no category ids of this data set (0 is "
                        f"background, 255 undecided); rewrite the map with the data set's ids")
    return indices


def category_map(indices: np.ndarray, category_ids: Sequence[int]) -> np.ndarray:
    """Class indices (H, W) as what a semantic PNG holds.

    Returns:
        (H, W) uint8, or uint16 where a category id is above 254, so that all maps of a data set are of one kind.
    """
    undecided, kind = _undecided(category_ids)
    # IGNORE, -1, finds the last entry.
    return np.array([0, *category_ids, undecided], kind)[indices]


def id_map(values: np.ndarray, category_ids: Sequence[int]) -> np.ndarray:
    """Category ids (H, W), 0 background, :data:`IGNORE` undecided, as what a semantic PNG holds.

    Returns:
        (H, W) of the type that ``category_map`` gives.
    """
    undecided, kind = _undecided(category_ids)
    return np.where(values == IGNORE, undecided, values).astype(kind)


def _undecided(category_ids: Sequence[int]) -> tuple[int, type[np.uint8] | type[np.uint16]]:
    """What means undecided in the maps of a data set, and their type."""
    return (_UNDECIDED_WIDE if _UNDECIDED in category_ids else _UNDECIDED,
            np.uint16 if max(category_ids, default=0) >= _UNDECIDED else np.uint8)


def write_semantic_png(path: str | Path, category_ids: np.ndarray) -> None:
    """Write a map of category ids, (H, W) uint8 or uint16, see ``category_map``, atomically."""
    if category_ids.dtype not in (np.uint8, np.uint16) or category_ids.ndim != 2:
        raise ValueError(f"{path}: a semantic map is (H, W) of uint8 or uint16, not {category_ids.shape} of "
                         f"{category_ids.dtype}")
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), category_ids):
            raise OSError(f"{path}: OpenCV could not write the PNG")

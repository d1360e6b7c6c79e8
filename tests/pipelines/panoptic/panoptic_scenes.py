"""Small scenes for the tests of the panoptic method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.panoptic.supervision import Boxes, Classes, classes_of
from stages.labels import rle

# Ids out of order, stuff between things: channels go by the id. Channels: 1 cat, 2 sky (stuff), 3 dog, 4 grass (stuff).
CATEGORIES = [{"id": 9, "name": "grass", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1},
              {"id": 5, "name": "sky", "isthing": 0}, {"id": 7, "name": "dog", "isthing": 1}]
CAT, SKY, DOG, GRASS = 1, 2, 3, 4
CLASSES: Classes = classes_of(CATEGORIES)
THINGS_ONLY: Classes = classes_of([item for item in CATEGORIES if item["isthing"]])  # channels: 1 cat, 2 dog


def boxes(*rows: Sequence[float], crowd: Sequence[int] = ()) -> Boxes:
    """Boxes from rows (x0, y0, x1, y1, channel); ids are 100, 101, ..."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Boxes(table[:, :4], table[:, 4].astype(np.int64), np.isin(np.arange(len(table)), crowd),
                 100 + np.arange(len(table)))


def drawn(*rows: str) -> np.ndarray:
    """A map from lines of characters: digits are channels, ``.`` is undecided."""
    return np.array([[-1 if sign == "." else int(sign) for sign in row] for row in rows], np.int16)


def image_entry(height: int, width: int, tags: Sequence[int] = (2, 5, 7, 9), **more: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": "1.png", "height": height, "width": width, "tags": list(tags), **more}


def annotation(number: int, category_id: int, bbox: Sequence[float] | None = None, mask: np.ndarray | None = None,
               crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": category_id, "iscrowd": crowd,
            **({} if bbox is None else {"bbox": list(bbox)}),
            **({} if mask is None else {"segmentation": rle.encode(mask)})}

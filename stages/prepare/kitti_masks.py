"""The instance PNGs of KITTI: one 16-bit number per pixel.

Semantics benchmark (folder ``instance``): 256 * class + object, classes as in Cityscapes; object 0 of a class that
has objects is a group that nobody told apart. MOTS (``instances``): 1000 * class + object, 10000 = to be ignored.
Groups and ignored pixels become crowds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.prepare.kitti import CATEGORIES
from stages.prepare.numbers import read_numbers
from stages.prepare.sources import SourceImage

SEMANTICS = {26: 1, 24: 2}
"""Cityscapes' car and person -> category."""
MOTS = {1: 1, 2: 2}
"""MOTS' car and pedestrian -> category."""
_IGNORED = 10000


def read_objects(image: SourceImage, width: int, height: int) -> tuple[list[Entry], None]:
    """The objects of one image: ``category_id``, ``iscrowd`` and ``segmentation`` (RLE), by number. There is no void.

    Args:
        image: its first file of masks is the instance PNG.
        width, height: of the image.

    Raises:
        UserError: a missing or damaged file, no 16-bit PNG, another size than the image's.
    """
    file = image.masks[0]
    values = read_numbers(file, ("I",), "a 16-bit PNG", (width, height))
    mots = "instances" in Path(file).parts
    base, classes = (1000, MOTS) if mots else (256, SEMANTICS)
    objects: list[Entry] = []
    for value in np.unique(values).tolist():
        if mots and value == _IGNORED:
            region = rle_codec.encode(values == value)
            objects += [{"category_id": category["id"], "iscrowd": 1, "segmentation": region}
                        for category in CATEGORIES]
            continue
        kind, number = divmod(value, base)
        if kind in classes:
            crowd = 0 if mots else int(number == 0)
            objects.append({"category_id": classes[kind], "iscrowd": crowd,
                            "segmentation": rle_codec.encode(values == value)})
    return objects, None

"""The instance pictures of Cityscapes: a 16-bit number per pixel, 1000 * class + object where things were told apart.

A number below 1000 is a class: all of its stuff, or a group of things that nobody told apart, which becomes a crowd.
"""

from __future__ import annotations

import numpy as np

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.prepare.cityscapes import STUFF, THINGS
from stages.prepare.numbers import read_numbers
from stages.prepare.sources import SourceImage
from stages.runtime.errors import UserError

_BASE = 1000
_CLASSES = range(34)
"""Ids that the data set has, those that nobody evaluates included."""


def read_objects(image: SourceImage, width: int, height: int) -> tuple[list[Entry], rle_codec.RLE | None]:
    """Things, groups of things (crowds) and stuff of one image, and its void.

    Args:
        image: its first file of masks is read.
        width, height: of the image.

    Returns:
        ``category_id``, ``iscrowd`` and ``segmentation`` (RLE) by number, and the pixels of all labels that are not
        evaluated, or None where there are none.

    Raises:
        UserError: a missing or damaged file, another size than the image's, numbers of no class.
    """
    file = image.masks[0]
    values = read_numbers(file, ("I", "L"), "a picture of 16-bit numbers", (width, height))
    if values.min(initial=0) < 0:
        raise UserError(f"{file}: negative numbers; a picture of instanceIds was expected")
    present = np.flatnonzero(np.bincount(values.ravel()))
    classes = np.where(present >= _BASE, present // _BASE, present)
    unknown = present[~np.isin(classes, _CLASSES)]
    if len(unknown):
        raise UserError(f"{file}: the numbers {unknown[:5].tolist()} belong to no class of Cityscapes; a picture of "
                        f"instanceIds was expected")
    labels = np.where(values >= _BASE, values // _BASE, values)
    objects = []
    for number, category in zip(present.tolist(), classes.tolist(), strict=True):
        if category in THINGS:
            objects.append({"category_id": category, "iscrowd": int(number < _BASE),
                            "segmentation": rle_codec.encode(values == number)})
    objects += [{"category_id": category, "iscrowd": 0, "segmentation": rle_codec.encode(labels == category)}
                for category in sorted({*classes.tolist()} & {*STUFF})]
    void = ~np.isin(labels, [*STUFF, *THINGS])
    return objects, rle_codec.encode(void) if void.any() else None

"""The segments of one image of a COCO panoptic data set."""

from __future__ import annotations

from pathlib import Path

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.labels.segments import read_segments
from stages.prepare.sources import SourceImage


def read_objects(image: SourceImage, width: int, height: int) -> tuple[list[Entry], rle_codec.RLE | None]:
    """Things, crowds and stuff of one image, and its void.

    Args:
        image: its first file of masks is the PNG, its ``segments`` are the PNG's.
        width, height: of the image.

    Returns:
        ``category_id``, ``iscrowd`` and ``segmentation`` (RLE) of each segment, and the pixels of none, or None where
        there are none.

    Raises:
        UserError: a missing or damaged file, another size than the image's, other segments than the JSON has.
    """
    segments = read_segments(Path(image.masks[0]), (height, width), image.segments)
    objects = [{"category_id": item["category_id"], "iscrowd": item["iscrowd"],
                "segmentation": rle_codec.encode(segments == place)}
               for place, item in enumerate(image.segments, start=1)]
    void = segments == 0
    return objects, rle_codec.encode(void) if void.any() else None

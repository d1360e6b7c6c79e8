"""Tags per crop of a fixed grid (panoptic App. B.2): where the crops lie, and how a file holds them.

In COCO JSON an image has ``tag_crops``, row by row: ``{"bbox": [x, y, width, height], "tags": [category ids]}`` each.
A class is tagged in a crop that shows at least one pixel of it, crowds included; so these tags are statements about
pixels, while a tag of the image always means at least one single object.
"""

from __future__ import annotations

from typing import NamedTuple

from stages.labels.coco import Entry

Window = tuple[int, int, int, int]
"""Left, top, right, bottom [px]; right and bottom are not part of it."""


class TagCrop(NamedTuple):
    """A part of an image and the sorted ids of the categories that it shows."""

    xyxy: Window
    tags: list[int]


def crop_grid(size: tuple[int, int], rows: int, columns: int, height: int | None = None,
              width: int | None = None) -> list[Window]:
    """The windows of a grid of equal crops that covers an image, row by row.

    The first lies flush with the upper left corner, the last with the lower right one; the others in steps that are
    equal but for rounding down. Cityscapes' 5 x 3 crops of 500 x 400 px lie every 387 and 312 px (App. B.2).

    Args:
        size: (H, W) of the image [px].
        rows, columns: how many crops.
        height, width: of a crop [px]; an image that is smaller has crops of its own side; None: as little as covers.

    Raises:
        ValueError: crops of this size leave a part of the image uncovered.
    """
    tops, high = _places(size[0], rows, height, "high")
    lefts, wide = _places(size[1], columns, width, "wide")
    return [(left, top, left + wide, top + high) for top in tops for left in lefts]


def _places(side: int, count: int, length: int | None, name: str) -> tuple[list[int], int]:
    """Where the crops begin along one side, and how long they are."""
    length = -(-side // count) if length is None else min(length, side)
    if count * length < side:
        raise ValueError(f"{count} crops of {length} px do not cover an image that is {side} px {name}")
    return [index * (side - length) // max(count - 1, 1) for index in range(count)], length


def to_json(crop: TagCrop) -> Entry:
    """A crop as the file holds it."""
    left, top, right, bottom = crop.xyxy
    return {"bbox": [left, top, right - left, bottom - top], "tags": list(crop.tags)}


def tag_crops(image: Entry) -> list[TagCrop]:
    """The crops of an image of the weak annotations; one that holds all of it, with its own tags, where it has none."""
    if "tag_crops" not in image:
        return [TagCrop((0, 0, image["width"], image["height"]), list(image.get("tags", ())))]
    boxes = [(crop["bbox"], crop["tags"]) for crop in image["tag_crops"]]
    return [TagCrop((round(x), round(y), round(x + w), round(y + h)), list(tags)) for (x, y, w, h), tags in boxes]

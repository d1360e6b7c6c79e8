"""The objects of the weak annotations, image by image, and the crops that networks see of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.cues.crops import Window, box_in_crop, crop_window, cut, object_box
from stages.labels.coco import Entry, annotations_by_image, is_thing, read_coco
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError

BOXES = ("extreme_points", "bbox")
"""What gives an object a box; the first that an annotation has counts."""

Crops = tuple[np.ndarray, np.ndarray, list[Window]]
"""What ``object_crops`` gives."""

_MEANT = {"extreme_points": ("extreme points", "extreme_points"), "bbox": ("a box", "boxes"),
          "point": ("a point", "points")}


@dataclass(frozen=True)
class Image:
    """One image with its objects.

    Attributes:
        key: stem of its per-image files.
        entry: the COCO image.
        objects: annotations of thing classes.
    """

    key: str
    entry: Entry
    objects: tuple[Entry, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.entry["height"], self.entry["width"]

    @property
    def path(self) -> Path:
        """The image's file."""
        return layout.IMAGES / self.entry["file_name"]


def read_images(path: Path, needs: Sequence[str] = BOXES) -> tuple[list[Image], list[Entry]]:
    """Images in file order, with the objects of thing classes (no crowds), and the categories.

    Args:
        path: weak annotations.
        needs: keys of which every object must have one.

    Raises:
        UserError: an object has none of them.
    """
    weak = read_coco(path)
    things = {category["id"] for category in weak["categories"] if is_thing(category)}
    groups = annotations_by_image(weak)
    images = []
    for entry in weak["images"]:
        objects = [item for item in groups[entry["id"]] if item["category_id"] in things and not item.get("iscrowd", 0)]
        for item in objects:
            if not any(key in item for key in needs):
                names, kinds = zip(*(_MEANT[key] for key in needs), strict=True)
                lacks = f"neither {' nor '.join(names)}" if len(names) > 1 else f"without {names[0]}"
                raise UserError(f"{path}: image {entry['id']} ({entry['file_name']}), annotation {item['id']}: "
                                f"{lacks}; annotations.kinds must be {' or '.join(f'[{kind}]' for kind in kinds)}")
        images.append(Image(layout.image_key(entry), entry, tuple(objects)))
    return images, weak["categories"]


def box_area(item: Entry) -> float:
    """Area of an object's box [px]."""
    left, top, right, bottom = object_box(item)
    return (right - left) * (bottom - top)


def large_objects(images: Sequence[Image], min_area: float, setting: str) -> list[tuple[Image, int]]:
    """(image, index of the object) of all objects whose box is large enough to learn from.

    Args:
        images: with their objects.
        min_area: of the box [px].
        setting: key path of ``min_area``, which the error names.

    Raises:
        UserError: there is none.
    """
    found = [(image, index) for image in images for index, item in enumerate(image.objects)
             if box_area(item) >= min_area]
    if not found:
        total = sum(len(image.objects) for image in images)
        raise UserError(f"none of the {total} objects has a box of at least {min_area:g} px; lower {setting}, or give "
                        f"more objects")
    return found


def object_crops(image: Image, pixels: np.ndarray, side: int, margin: float) -> Crops:
    """Crops of all objects of an image, with the same margin on all four sides.

    Args:
        image: whose objects have a box.
        pixels: (H, W, 3) uint8.
        side: of the crops [px].
        margin: on each side, as a share of the box's side.

    Returns:
        (K, side, side, 3) uint8, boxes (K, 4) float32 xyxy in the crops' pixels, and the windows.
    """
    windows = [crop_window(object_box(item), image.size, (margin,) * 4) for item in image.objects]
    crops = [cut(pixels, window, side) for window in windows]
    boxes = [box_in_crop(object_box(item), window, side) for item, window in zip(image.objects, windows, strict=True)]
    return (np.stack(crops) if crops else np.zeros((0, side, side, 3), np.uint8),
            np.array(boxes, np.float32).reshape(-1, 4), windows)


def read_crops(image: Image, side: int, margin: float) -> Crops:
    """``object_crops`` of an image's file, which is not decoded where there are no objects."""
    pixels = read_rgb(image.path) if image.objects else np.zeros((*image.size, 3), np.uint8)
    return object_crops(image, pixels, side, margin)


class Pictures:
    """Decoded images; the last few stay in memory, because objects of one image are often asked for together."""

    def __init__(self, keep_bytes: int = 512 << 20) -> None:
        self.keep_bytes = keep_bytes
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, file_name: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if file_name in self._kept:
            self._kept.move_to_end(file_name)
            return self._kept[file_name]
        pixels = self._kept[file_name] = read_rgb(layout.IMAGES / file_name)
        self._bytes += pixels.nbytes
        while self._bytes > self.keep_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

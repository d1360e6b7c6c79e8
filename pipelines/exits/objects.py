"""The objects of the weak annotations, and the crops that the networks of EXITS see of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.exits.settings import CropSettings
from stages.cues.crops import Window, box_in_crop, crop_window, cut, object_box
from stages.labels.coco import annotations_by_image, is_thing
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json


@dataclass(frozen=True)
class Image:
    """One image with its objects.

    Attributes:
        key: stem of its per-image files.
        entry: the COCO image.
        objects: annotations with ``extreme_points`` or ``bbox``.
    """

    key: str
    entry: dict[str, Any]
    objects: tuple[dict[str, Any], ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.entry["height"], self.entry["width"]


def read_images(path: Path) -> tuple[list[Image], list[dict[str, Any]]]:
    """Images in file order, with the objects of thing classes, and the categories.

    Raises:
        UserError: an object has neither extreme points nor a box.
    """
    weak = read_json(path)
    things = {category["id"] for category in weak["categories"] if is_thing(category)}
    groups = annotations_by_image(weak)
    images = []
    for entry in weak["images"]:
        objects = [item for item in groups[entry["id"]] if item["category_id"] in things and not item.get("iscrowd", 0)]
        for item in objects:
            if "extreme_points" not in item and "bbox" not in item:
                raise UserError(f"{path}: image {entry['id']} ({entry['file_name']}), annotation {item['id']}: neither "
                                f"extreme points nor a box; exits needs annotations.kinds: [extreme_points] or [boxes]")
        images.append(Image(layout.image_key(entry), entry, tuple(objects)))
    return images, weak["categories"]


def trainable(images: list[Image], min_area: float) -> list[tuple[Image, int]]:
    """(image, index of the object) of all objects whose box is large enough to learn from.

    Raises:
        UserError: there is none.
    """
    found = []
    for image in images:
        for index, item in enumerate(image.objects):
            left, top, right, bottom = object_box(item)
            if (right - left) * (bottom - top) >= min_area:
                found.append((image, index))
    if not found:
        total = sum(len(image.objects) for image in images)
        raise UserError(f"none of the {total} objects has a box of at least {min_area:g} px; lower "
                        f"exits.crops.min_area, or give more objects")
    return found


def fixed_window(image: Image, index: int, settings: CropSettings) -> Window:
    """The crop of an object at inference: the same margin on all sides."""
    return crop_window(object_box(image.objects[index]), image.size, (settings.margin,) * 4)


def random_window(image: Image, index: int, settings: CropSettings, generator: np.random.Generator) -> Window:
    """A crop of an object in training: each side has a margin of its own."""
    return crop_window(object_box(image.objects[index]), image.size, generator.uniform(*settings.random_margin, size=4))


class Pictures:
    """Decoded images; the last few stay in memory, because objects of one image are often asked for together."""

    def __init__(self, keep_bytes: int = 512 << 20) -> None:
        self.keep_bytes = keep_bytes
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, file_name: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        from stages.labels.images import read_rgb

        if file_name in self._kept:
            self._kept.move_to_end(file_name)
            return self._kept[file_name]
        pixels = self._kept[file_name] = read_rgb(layout.IMAGES / file_name)
        self._bytes += pixels.nbytes
        while self._bytes > self.keep_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


def fixed_crops(image: Image, settings: CropSettings, pictures: Pictures) -> \
        tuple[np.ndarray, np.ndarray, list[Window]]:
    """Crops at inference of all objects of an image.

    Returns:
        (K, side, side, 3) uint8, boxes (K, 4) float32 in the crops' pixels, and the windows.
    """
    pixels = pictures[image.entry["file_name"]]
    windows = [fixed_window(image, index, settings) for index in range(len(image.objects))]
    crops = [cut(pixels, window, settings.side) for window in windows]
    boxes = [box_in_crop(object_box(item), window, settings.side)
             for item, window in zip(image.objects, windows, strict=True)]
    return (np.stack(crops) if crops else np.zeros((0, settings.side, settings.side, 3), np.uint8),
            np.array(boxes, np.float32).reshape(-1, 4), windows)

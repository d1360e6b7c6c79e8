"""One image of a data set -> its file in place and its truth, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.prepare import cityscapes_masks, coco, images, kitti_masks, panoptic_masks, voc_masks
from stages.prepare.settings import DatasetSettings
from stages.prepare.shapes_rendering import render
from stages.prepare.sources import SourceImage
from stages.runtime.errors import UserError

Masks = tuple[list[Entry], rle_codec.RLE | None]
"""Objects, crowds and stuff of one image, and the pixels that nobody labelled, if there are any: its void."""
READ_MASKS: dict[str, Callable[[SourceImage, int, int], Masks]] = {
    "cityscapes": cityscapes_masks.read_objects, "kitti": kitti_masks.read_objects,
    "panoptic": panoptic_masks.read_objects, "voc": voc_masks.read_objects}
"""Kinds of data sets whose masks lie in files of their own."""


@dataclass(frozen=True)
class Task:
    """All that a worker needs for one image; ``placement`` is None for rendered images."""

    image: SourceImage
    placement: images.Placement | None
    folder: Path
    kept: tuple[int, ...]
    dataset: DatasetSettings

    @property
    def files(self) -> list[str]:
        """Files that the result depends on."""
        return [str(self.image.path), *self.image.masks] if self.image.folder else []


def make_record(task: Task) -> Entry:
    """Put the image into the folder and collect its objects.

    Returns:
        ``image`` (as the truth file lists it), ``objects`` (see ``coco.read_object``), ``problems``. The image has
        ``void``, an RLE, where the data set says which pixels nobody labelled: they count in no figure. Other pixels
        without an object or stuff are background where the data set has things only, and void where it has stuff.
    """
    if task.placement is None:
        return _render(task)
    image = task.image
    entry: Entry = {"id": image.id, "file_name": task.placement.name}
    problems: list[str] = []
    try:
        width, height = images.place_image(image, task.placement, task.folder, task.dataset.copy_images)
        entry |= {"width": width, "height": height}
        if image.masks:
            read_objects = READ_MASKS[task.dataset.kind]
            labelled, void = read_objects(image, width, height)
            objects = [item for item in labelled if item["category_id"] in task.kept]
            if void is not None:
                entry["void"] = void
        else:
            objects, problems = _read_objects(task, width, height)
    except UserError as error:
        return {"image": entry, "objects": [], "problems": [f"{image.label}: {error}"]}
    if image.tags is not None:
        entry["tags"] = list(image.tags)
    if image.tag_crops is not None:
        entry["tag_crops"] = [dict(crop) for crop in image.tag_crops]
    if image.coarse:
        entry["coarse"] = 1
    if image.negative is not None:
        entry |= {"neg_category_ids": list(image.negative), "not_exhaustive_category_ids": list(image.not_exhaustive)}
    return {"image": entry, "objects": objects, "problems": [f"{image.label}: {problem}" for problem in problems]}


def _read_objects(task: Task, width: int, height: int) -> tuple[list[Entry], list[str]]:
    objects, problems = [], []
    for annotation in task.image.objects:
        item, wrong = coco.read_object(annotation, width, height, task.dataset.empty_masks == "drop")
        problems += wrong
        if item is not None:
            objects.append(item)
    return objects, problems


def _render(task: Task) -> Entry:
    image, settings = task.image, task.dataset.shapes
    pixels, instances = render(image.scene, task.dataset.seed, settings)
    images.write_png(task.folder / image.file_name, pixels)
    entry = {"id": image.id, "file_name": image.file_name, "width": settings.width, "height": settings.height}
    objects = [{"category_id": item.category_id, "iscrowd": 0, "segmentation": rle_codec.encode(item.mask)}
               for item in instances if item.category_id in task.kept and item.mask.any()]
    return {"image": entry, "objects": objects, "problems": []}


def shown_categories(image: Entry, objects: Sequence[Entry]) -> set[int]:
    """Category ids that an image shows: its own tags, those of its crops, and the objects that are not crowds."""
    crops = (tag for crop in image.get("tag_crops", ()) for tag in crop["tags"])
    return {*image.get("tags", ()), *crops,
            *(item["category_id"] for item in objects if not item.get("iscrowd", 0))}

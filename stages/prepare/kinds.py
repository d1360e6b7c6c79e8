"""The kinds of data sets by name: what each needs, and how its lists are read. No image is decoded here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stages.prepare import cityscapes, coco, folder, kitti, lvis, panoptic, shapes, voc
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source

NEEDED_PATHS: dict[str, Callable[[DatasetSettings], list[Path]]] = {
    "shapes": shapes.needed_paths, "coco": coco.needed_paths, "lvis": lvis.needed_paths, "voc": voc.needed_paths,
    "folder": folder.needed_paths, "kitti": kitti.needed_paths, "cityscapes": cityscapes.needed_paths,
    "panoptic": panoptic.needed_paths}
READERS: dict[str, Callable[[DatasetSettings], Source]] = {
    "shapes": shapes.read, "coco": coco.read, "lvis": lvis.read, "voc": voc.read, "folder": folder.read,
    "kitti": kitti.read, "cityscapes": cityscapes.read, "panoptic": panoptic.read}


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Files and folders that must be there before ``prepare`` can start; ``check`` asks for them first."""
    return NEEDED_PATHS[dataset.kind](dataset)


def read(dataset: DatasetSettings) -> Source:
    """Categories and images of a data set, as its own files have them.

    Raises:
        UserError: a missing file or folder, or a file that is not what it should be.
    """
    return READERS[dataset.kind](dataset)

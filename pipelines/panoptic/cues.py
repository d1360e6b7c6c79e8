"""The first approximate truth of an image, and the maps that it is made of (sections 3.2 and 3.3)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipelines.panoptic.box_cues import SOURCES, paint, source_masks, truth_masks
from pipelines.panoptic.rules import instances_of, next_labels, stuff_labels
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import Boxes, Classes, boxes_of, full_labels
from stages.labels.coco import Entry
from stages.labels.given import is_full
from stages.labels.maps import upsample_cells
from stages.labels.panoptic import VOID, png_folder, write_panoptic
from stages.labels.segments import decode_ids, write_segments
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, read_npz, write_json
from stages.segmentation.labels import IGNORE, category_map, index_table, read_indices, write_semantic_png

FIRST = "labels"
"""Sub-folder of the first approximate truth."""
PANOPTIC = "panoptic.json"
"""In a folder of label maps: which box each pixel belongs to, a COCO panoptic file without the stuff that is open."""
_STUFF = 1 << 20
"""Segment ids of stuff begin here; below are the boxes, counted from 1."""
_LISTED = "listed"


def cue_maps(image: Entry, annotations: Sequence[Entry], categories: Sequence[Entry], classes: Classes, boxes: Path,
             stuff: Path, settings: PanopticSettings) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Label maps of a training image.

    Args:
        image, annotations: of the weak annotations.
        categories, classes: of the data set.
        boxes, stuff: folders of the cues.
        settings: of the method.

    Returns:
        (H, W) int16 by name: things by each of ``SOURCES``, ``stuff``, and ``FIRST``, the first approximate truth; and
        the instances (H, W) int32 of that.
    """
    size = (image["height"], image["width"])
    if is_full(image):
        labels, instances = full_labels(image, annotations, categories, classes)
        return dict.fromkeys((*SOURCES, "stuff", FIRST), labels), instances
    given = boxes_of(image, annotations, classes)
    cues = read_box_cues(boxes, image, len(given))
    maps = {source: paint(given, source_masks(cues, given, size, source, annotations), size) for source in SOURCES}
    maps["stuff"] = stuff_of(image, classes, stuff, settings.stuff.threshold)
    things = paint(given, truth_masks(cues, given, size, settings.rounds, annotations), size)
    maps[FIRST] = next_labels(maps["stuff"], image, given, things, classes, settings.rounds, 0)
    for source in SOURCES:  # outside the boxes is background, or nobody knows what
        maps[source][maps[source] == 0] = 0 if classes.background else IGNORE
    return maps, instances_of(maps[FIRST], given, classes)


def read_box_cues(folder: Path, image: Entry, count: int) -> dict[str, np.ndarray]:
    """The stored masks of an image's boxes.

    Raises:
        UserError: they are of another number of boxes, or of another size.
    """
    path = folder / f"{layout.image_key(image)}.npz"
    stored = read_npz(path)
    wanted = (count, image["height"], -(-image["width"] // 8))
    if stored["grabcut"].shape != wanted or stored["proposal"].shape != wanted:
        raise UserError(f"{path}: masks of {stored['grabcut'].shape[0]} boxes, image {image['id']} has {count} of "
                        f"{image['width']} x {image['height']} px; delete {folder} and run `dvc repro` again")
    return stored


def stuff_of(image: Entry, classes: Classes, folder: Path, threshold: float) -> np.ndarray:
    """The cues of stuff of an image as a map: (H, W) int16."""
    size = (image["height"], image["width"])
    if classes.background:
        return np.full(size, IGNORE, np.int16)
    stored = read_npz(folder / f"{layout.image_key(image)}.npz")
    if not len(stored["channels"]):
        return np.full(size, IGNORE, np.int16)
    maps = upsample_cells(stored["maps"], int(stored["stride"]), size)
    return stuff_labels(maps, stored["channels"], threshold)


def write_maps(folder: Path, image: Entry, labels: np.ndarray, instances: np.ndarray, boxes: Boxes, classes: Classes
               ) -> None:
    """Write a label map and its instances; when all images are done, ``close_maps`` lists the instances.

    The label map is written last: it says that the image is done.

    Args:
        folder: of the label maps; the instances' PNGs lie in its sub-folder ``panoptic``.
        image: of the weak annotations.
        labels: (H, W) channels or IGNORE.
        instances: (H, W), 1 + the box's index, 0 or IGNORE.
        boxes: of the image.
        classes: of the data set.
    """
    segments = np.where(instances > 0, instances, VOID)
    shown = [channel for channel in np.unique(labels).tolist() if channel in classes.stuff and channel > 0]
    for channel in shown:
        segments[labels == channel] = _STUFF + channel
    present = set(np.unique(segments).tolist())
    rows = [{"id": 1 + index, "category_id": classes.category(channel)}
            for index, channel in enumerate(boxes.channels.tolist()) if 1 + index in present]
    rows += [{"id": _STUFF + channel, "category_id": classes.category(channel)} for channel in shown]
    annotation = write_segments(png_folder(folder / PANOPTIC), image, segments, rows)
    write_json(folder / _LISTED / f"{layout.image_key(image)}.json", annotation)
    write_labels(folder, image, labels, classes)


def close_maps(folder: Path, images: Sequence[Entry], categories: Sequence[Entry]) -> None:
    """List the instances of all images in ``PANOPTIC``, a COCO panoptic JSON, beside the label maps."""
    if not (folder / PANOPTIC).exists():  # it does where a kill came in between
        listed = [read_json(folder / _LISTED / f"{layout.image_key(image)}.json") for image in images]
        write_panoptic(folder / PANOPTIC, images, categories, listed)
    shutil.rmtree(folder / _LISTED, ignore_errors=True)


def write_labels(folder: Path, image: Entry, labels: np.ndarray, classes: Classes) -> None:
    """Write a label map as PNG of category ids."""
    write_semantic_png(folder / f"{layout.image_key(image)}.png",
                       category_map(labels.astype(np.int64), classes.category_ids))


def read_maps(folder: Path, image: Entry, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """What ``write_maps`` wrote: labels (H, W) int16 and instances (H, W) int32.

    Raises:
        UserError: a file is missing, damaged or of another size, or holds ids that are no categories.
    """
    size, name = (image["height"], image["width"]), f"{layout.image_key(image)}.png"
    labels = read_indices(folder / name, size, index_table(classes.category_ids))
    path = png_folder(folder / PANOPTIC) / name
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (*size, 3) or pixels.dtype != np.uint8:
        raise UserError(f"{path}: an RGB PNG with {size[1]} x {size[0]} pixels was expected; delete {folder} and run "
                        f"`dvc repro` again")
    segments = decode_ids(pixels[..., ::-1])
    stuff = np.isin(labels, classes.stuff)
    return labels, np.where(stuff, 0, np.where(segments == VOID, IGNORE, segments)).astype(np.int32)

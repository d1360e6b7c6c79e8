"""From COCO files to the labels that a detector is trained on, and from detections back to COCO results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from stages.detector.settings import DetectorTrainSettings
from stages.labels import coco, rle
from stages.labels.coco import Entry
from stages.runtime.errors import UserError


class Detection(TypedDict):
    """One object that a detector found: ``label`` is a position in its categories, ``box_xyxy`` (4,) counts from pixel
    edges, ``mask`` is H x W, bool, or None where the detector was trained on boxes alone."""

    label: int
    score: float
    box_xyxy: np.ndarray
    mask: np.ndarray | None


@dataclass(frozen=True)
class Labels:
    """The images to train on, with their instances.

    Attributes:
        images: COCO images, sorted by id.
        instances: image id -> ``category_id`` and ``segmentation``, or ``bbox``, of each thing that is no crowd and
            whose score, if it has one, is above 0.
        crowds: image id -> RLEs of regions that are neither object nor background.
        categories: the things, ``{"id", "name"}``, by position: position + 1 is torchvision's label.
        folder: where the ``file_name``s lie.
        masks: whether the instances have masks; with boxes alone the network has no mask head.
    """

    images: list[Entry]
    instances: Mapping[int, list[Entry]]
    crowds: Mapping[int, list[rle.RLE]]
    categories: list[Entry]
    folder: Path
    masks: bool = True

    @property
    def position(self) -> dict[int, int]:
        """category id -> 0, 1, 2, ..."""
        return {category["id"]: index for index, category in enumerate(self.categories)}

    def __len__(self) -> int:
        return len(self.images)


def read_labels(path: Path, folder: Path, train: DetectorTrainSettings) -> Labels:
    """Read instance labels for training.

    Stuff is left out, and so are labels of score 0, by which a method says that they are not to be learnt. An image
    without instances is a negative (``keep_empty``), unless it carries crowd regions or such labels: then nothing in it
    is certain enough to learn from.

    Raises:
        UserError: not COCO JSON, or not one instance of a thing in it.
    """
    return _labels(path, folder, train, masks=True)


def read_boxes(path: Path, folder: Path, train: DetectorTrainSettings) -> Labels:
    """Read the boxes of weak annotations, for a detector without masks (panoptic section 3.5: the detector sees boxes
    only). A crowd's box is the region of the crowd; an object of an image that is labelled in full and has no box has
    that of its mask.

    Raises:
        UserError: not COCO JSON, an object without a box, or not one object in it.
    """
    return _labels(path, folder, train, masks=False)


def _labels(path: Path, folder: Path, train: DetectorTrainSettings, masks: bool) -> Labels:
    content = coco.read_coco(path)
    things = sorted((item for item in content["categories"] if coco.is_thing(item)), key=lambda item: item["id"])
    known = {item["id"] for item in things}
    images = coco.images_by_id(content)
    # Only what training needs: on COCO every loader process holds its own copy of this.
    key = "segmentation" if masks else "bbox"
    instances: dict[int, list[Entry]] = {}
    crowds: dict[int, list[rle.RLE]] = {}
    doubtful = set()
    for image_id, group in coco.annotations_by_image(content).items():
        things_here = [item for item in group if item["category_id"] in known]
        wanted = [item for item in things_here if item.get("score") != 0]
        if len(wanted) < len(things_here):
            doubtful.add(image_id)
        instances[image_id] = [
            {"category_id": item["category_id"], key: _mask(item, path) if masks else _box(item, path)}
            for item in wanted if not item.get("iscrowd")]
        height, width = images[image_id]["height"], images[image_id]["width"]
        crowds[image_id] = [_mask(item, path) if masks else rle.from_box(_box(item, path), height, width)
                            for item in wanted if item.get("iscrowd")] * train.ignore_crowds
    if not any(instances.values()):
        raise UserError(f"{path}: no instance of any thing class in {len(instances)} images, so there is nothing to "
                        f"train a detector on; look at the labels (score, report) and the method's thresholds")
    kept = [image for image in sorted(content["images"], key=lambda image: image["id"])
            if instances[image["id"]]
            or (train.keep_empty and not crowds[image["id"]] and image["id"] not in doubtful)]
    categories = [{"id": item["id"], "name": item["name"]} for item in things]
    return Labels(kept, instances, crowds, categories, folder, masks)


def _mask(item: Entry, path: Path) -> rle.RLE:
    """The mask of a label."""
    if item.get("segmentation") is None:
        raise UserError(f"{path}: image {item['image_id']}, annotation {item['id']}: no segmentation; delete the file "
                        f"and run `dvc repro` again")
    return item["segmentation"]


def _box(item: Entry, path: Path) -> list[float]:
    """The box [x, y, width, height] of an annotation."""
    if "bbox" in item:
        return item["bbox"]
    if "segmentation" in item:
        return [float(value) for value in rle.bbox(item["segmentation"])]
    raise UserError(f"{path}: image {item['image_id']}, annotation {item['id']}: no bbox; a detector of boxes needs "
                    f"one for every object (annotations.kinds: [boxes])")


def coco_results(image_id: int, detections: Sequence[Detection], categories: Sequence[Entry]) -> list[Entry]:
    """Detections of one image as COCO results with the input's category ids, best first; without masks they have no
    ``segmentation``.

    Args:
        image_id: id of the image.
        detections: what the detector found.
        categories: the detector's categories.
    """
    results = []
    for item in detections:
        mask = item["mask"]
        if mask is not None and not mask.any():
            continue
        left, top, right, bottom = (float(value) for value in item["box_xyxy"])
        results.append({
            "image_id": image_id,
            "category_id": categories[int(item["label"])]["id"],
            **({} if mask is None else {"segmentation": rle.encode(mask)}),
            "bbox": [round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)],
            "score": round(float(item["score"]), 5),
        })
    return sorted(results, key=lambda item: (-item["score"], item["category_id"], item["bbox"]))

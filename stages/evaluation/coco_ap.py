"""COCO's average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stages.evaluation.records import Record

SIZES = ("small", "medium", "large", "medium_and_large")


@dataclass(frozen=True)
class CocoResult:
    """COCO's figures in 0..1; a figure without truth objects to measure it on is absent.

    Attributes:
        mean: ``AP`` (IoU .5 to .95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR``;
            ``AP_medium_and_large`` and ``AP50_medium_and_large`` of all objects that are not small.
        per_class: the same by category id.
    """

    mean: dict[str, float]
    per_class: dict[int, dict[str, float]]


def coco_average_precision(images: Sequence[Record], truth: Sequence[Record],
                           detections: Sequence[Record], categories: Sequence[int],
                           max_detections: int = 100, medium_from: float = 32.0 ** 2,
                           large_from: float = 96.0 ** 2) -> CocoResult:
    """Run COCOeval on masks.

    Args:
        images: COCO image records.
        truth: COCO annotations with ids from 1; crowd regions are ignored as COCO does.
        detections: COCO results with RLE masks.
        categories: the category ids to measure.
        max_detections: detections per image and class that count, the best-scored ones.
        medium_from, large_from: areas in pixels at which a medium and a large object begin.
    """
    precision, recall = class_curves(images, truth, detections, categories, max_detections,
                                     (0.0, medium_from, large_from))
    return CocoResult(_figures(precision, recall), {
        category: _figures(precision[:, :, column:column + 1], recall[:, column:column + 1])
        for column, category in enumerate(categories) if (recall[0, column, 0] > -1)
    })


def class_curves(images: Sequence[Record], truth: Sequence[Record],
                 detections: Sequence[Record], categories: Sequence[int], max_detections: int,
                 sizes_from: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """COCOeval's tables, class by class.

    COCOeval sets up a table of all images times all classes first, tens of gigabytes for the 20 thousand images and
    1203 classes of LVIS. Classes do not influence each other, nor do images that show nothing of a class, so one class
    at a time on its own images gives the same numbers.

    Args:
        images, truth, detections, categories, max_detections: as in :func:`coco_average_precision`.
        sizes_from: areas in pixels at which small, medium and large objects begin.

    Returns:
        precision (10 IoU, 101 recall, classes, 5 sizes) and recall (10, classes, 5) float64, sizes being all, small,
        medium, large, medium and large; -1 where there is no truth.
    """
    records = {image["id"]: image for image in images}
    truths, found = _by_class(truth), _by_class(detections)
    ranges = [[0, 1e10], *([low, high] for low, high in zip(sizes_from, (*sizes_from[1:], 1e10), strict=True)),
              [sizes_from[1], 1e10]]
    precision = -np.ones((10, 101, len(categories), len(ranges)))
    recall = -np.ones((10, len(categories), len(ranges)))
    for column, category in enumerate(categories):
        objects, masks = truths.get(category, []), found.get(category, [])
        if objects:
            shown = [records[number] for number in sorted({item["image_id"] for item in (*objects, *masks)})]
            precision[:, :, column], recall[:, column] = _class_curve(shown, objects, masks, category, max_detections,
                                                                      ranges)
    return precision, recall


def _class_curve(images: list[Record], truth: list[Record], detections: list[Record],
                 category: int, max_detections: int, ranges: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """One class: precision (10, 101, 5) and recall (10, 5)."""
    with contextlib.redirect_stdout(io.StringIO()):
        names: list[Record] = [{"id": category}]
        evaluator = COCOeval(_index(images, truth, names), _index(images, detections, names), "segm")
        evaluator.params.maxDets = [max_detections]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = ranges, ["all", *SIZES]
        evaluator.evaluate()
        evaluator.accumulate()
    # (IoU, recall, class, size, maximal detections) and the same without recall.
    return evaluator.eval["precision"][:, :, 0, :, 0], evaluator.eval["recall"][:, 0, :, 0]


def _by_class(annotations: Sequence[Record]) -> dict[int, list[Record]]:
    groups: dict[int, list[Record]] = {}
    for annotation in annotations:
        groups.setdefault(annotation["category_id"], []).append(annotation)
    return groups


def _index(images: Sequence[Record], annotations: Sequence[Record],
           categories: list[Record]) -> COCO:
    """A pycocotools COCO object of copies: COCOeval writes into what it is given."""
    copies = []
    for number, annotation in enumerate(annotations, start=1):
        area = annotation["area"] if "area" in annotation else float(rle.area(annotation["segmentation"]))
        copies.append({
            "id": annotation.get("id", number), "image_id": annotation["image_id"],
            "category_id": annotation["category_id"], "segmentation": annotation["segmentation"], "area": area,
            "iscrowd": annotation.get("iscrowd", 0), "score": annotation.get("score", 1.0),
        })
    index = COCO()
    index.dataset = {"images": list(images), "annotations": copies, "categories": categories}
    index.createIndex()
    return index


def _figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """``precision`` (IoU 10, recall 101, classes, area ranges 5) and ``recall`` (10, classes, 5) to named figures."""
    pieces = {
        "AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0],
        **{f"AP_{size}": precision[..., number] for number, size in enumerate(SIZES, start=1)},
        "AP50_medium_and_large": precision[0, ..., 1 + SIZES.index("medium_and_large")], "AR": recall[..., 0],
    }
    return {name: float(piece[piece > -1].mean()) for name, piece in pieces.items() if (piece > -1).any()}

"""COCO's average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class CocoResult:
    """COCO's figures in 0..1; a figure without truth objects to measure it on is absent.

    Attributes:
        mean: ``AP`` (IoU .5 to .95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR``.
        per_class: the same by category id.
    """

    mean: dict[str, float]
    per_class: dict[int, dict[str, float]]


def coco_average_precision(images: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]],
                           detections: Sequence[Mapping[str, Any]], categories: Sequence[int],
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
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        names = [{"id": category} for category in categories]
        evaluator = COCOeval(_index(images, truth, names), _index(images, detections, names), "segm")
        parameters = evaluator.params
        parameters.imgIds = sorted(image["id"] for image in images)
        parameters.catIds = list(categories)
        parameters.maxDets = [1, min(10, max_detections), max_detections]
        parameters.areaRngLbl = ["all", *SIZES]
        parameters.areaRng = [[0, 1e10], [0, medium_from], [medium_from, large_from], [large_from, 1e10]]
        if images and categories:
            evaluator.evaluate()
            evaluator.accumulate()
    if not images or not categories:
        return CocoResult({}, {})
    # (IoU, recall, class, area range, maximal detections) and the same without recall; -1 where there is no truth.
    precision, recall = evaluator.eval["precision"][..., -1], evaluator.eval["recall"][..., -1]
    return CocoResult(_figures(precision, recall), {
        category: _figures(precision[:, :, column:column + 1], recall[:, column:column + 1])
        for column, category in enumerate(categories) if (recall[0, column, 0] > -1)
    })


def _index(images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]],
           categories: list[dict[str, Any]]) -> Any:
    """A pycocotools COCO object of copies: COCOeval writes into what it is given."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

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
    """``precision`` (IoU 10, recall 101, classes, area ranges 4) and ``recall`` (10, classes, 4) to named figures."""
    pieces = {
        "AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0],
        **{f"AP_{size}": precision[..., number] for number, size in enumerate(SIZES, start=1)},
        "AR": recall[..., 0],
    }
    return {name: float(piece[piece > -1].mean()) for name, piece in pieces.items() if (piece > -1).any()}

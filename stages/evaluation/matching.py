"""Which detection lies on which object: overlaps, computed once, from which AP^r, recall and mean IoU all follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pycocotools import mask as rle

from stages.evaluation.records import Record

Item = TypeVar("Item", bound=Record)


@dataclass(frozen=True)
class Matches:
    """Detections and truth objects of many images in columns; only same-class overlaps within one image count.

    Attributes:
        category: (D,) int64, category id of each detection.
        score: (D,) float64.
        best_iou: (D,) float64, IoU with the truth object that it overlaps most; 0 where its class has none there.
        best_truth: (D,) int64, row of that truth object, or -1.
        crowd_cover: (D,) float64, largest share of the detection that one crowd region of its class covers.
        truth_category: (T,) int64, category id of each truth object (crowd regions are no objects).
        truth_iou: (T,) float64, IoU with the same-class detection that covers the object best; 0 if there is none.
        truth_area: (T,) float64 [pixels].
        truth_id: (T,) int64, annotation id.
        crowds: number of crowd regions.

    The detections keep the order (image, input), so that stable sorting by score breaks ties as pycocotools does.
    """

    category: np.ndarray
    score: np.ndarray
    best_iou: np.ndarray
    best_truth: np.ndarray
    crowd_cover: np.ndarray
    truth_category: np.ndarray
    truth_iou: np.ndarray
    truth_area: np.ndarray
    truth_id: np.ndarray
    crowds: int


def by_image(annotations: Iterable[Item]) -> dict[int, list[Item]]:
    """Group annotations by ``image_id``, each group in input order."""
    groups: dict[int, list[Item]] = {}
    for annotation in annotations:
        groups.setdefault(annotation["image_id"], []).append(annotation)
    return groups


def match(truth: Sequence[Record], detections: Sequence[Record]) -> Matches:
    """Find each detection's best truth object and each truth object's best detection.

    Args:
        truth: COCO annotations with ``id, image_id, category_id, segmentation`` (compressed RLE) and ``iscrowd``.
        detections: the same without ``iscrowd``, with ``score`` (1 where it is missing).

    Masks stay run-length encoded; memory grows with the objects and never with images times pixels.
    """
    truth_groups, detection_groups = by_image(truth), by_image(detections)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (
        "category", "score", "best_iou", "best_truth", "crowd_cover",
        "truth_category", "truth_iou", "truth_area", "truth_id")}
    seen = crowds = 0
    for image_id in sorted(truth_groups.keys() | detection_groups.keys()):
        image = _match_image(truth_groups.get(image_id, []), detection_groups.get(image_id, []))
        image["best_truth"] = np.where(image["best_truth"] >= 0, image["best_truth"] + seen, -1)
        for name, column in columns.items():
            column.append(image[name])
        seen += len(image["truth_id"])
        crowds += sum(bool(item.get("iscrowd", 0)) for item in truth_groups.get(image_id, []))
    integer = {"category", "best_truth", "truth_category", "truth_id"}
    joined = {name: np.concatenate(column) if column else np.zeros(0) for name, column in columns.items()}
    return Matches(**{name: column.astype(np.int64 if name in integer else np.float64)
                      for name, column in joined.items()}, crowds=crowds)


def _match_image(truth: Sequence[Record], detections: Sequence[Record]) -> dict[str, np.ndarray]:
    """The columns of :class:`Matches` for one image; ``best_truth`` counts within the image."""
    objects = [item for item in truth if not item.get("iscrowd", 0)]
    crowds = [item for item in truth if item.get("iscrowd", 0)]
    category = np.array([item["category_id"] for item in detections], np.int64)
    truth_category = np.array([item["category_id"] for item in objects], np.int64)
    crowd_category = np.array([item["category_id"] for item in crowds], np.int64)
    best_iou, crowd_cover = np.zeros(len(detections)), np.zeros(len(detections))
    best_truth = np.full(len(detections), -1, np.int64)
    truth_iou = np.zeros(len(objects))
    for wanted in np.unique(category):
        rows = np.flatnonzero(category == wanted)
        columns = np.flatnonzero(truth_category == wanted)
        covers = np.flatnonzero(crowd_category == wanted)
        masks = [detections[row]["segmentation"] for row in rows.tolist()]
        if len(columns):
            iou = overlaps(masks, [objects[column]["segmentation"] for column in columns.tolist()])
            best = iou.argmax(axis=1)
            best_iou[rows] = iou[np.arange(len(rows)), best]
            best_truth[rows] = np.where(best_iou[rows] > 0, columns[best], -1)
            truth_iou[columns] = iou.max(axis=0)
        if len(covers):
            regions = [crowds[cover]["segmentation"] for cover in covers.tolist()]
            crowd_cover[rows] = overlaps(masks, regions, crowd=True).max(axis=1)
    return {
        "category": category,
        "score": np.array([item.get("score", 1.0) for item in detections], np.float64),
        "best_iou": best_iou, "best_truth": best_truth, "crowd_cover": crowd_cover,
        "truth_category": truth_category, "truth_iou": truth_iou,
        "truth_area": np.array([item["area"] for item in objects], np.float64),
        "truth_id": np.array([item["id"] for item in objects], np.int64),
    }


def overlaps(masks: Sequence[Record], others: Sequence[Record], crowd: bool = False) -> np.ndarray:
    """IoU of RLE masks, (len(masks), len(others)) float64; with ``crowd`` the share of ``masks`` that lies in each."""
    if not len(masks) or not len(others):
        return np.zeros((len(masks), len(others)))
    return np.asarray(rle.iou(list(masks), list(others), [int(crowd)] * len(others)), np.float64)

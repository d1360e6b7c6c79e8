"""LVIS's average precision: COCO's, on a truth in which no image is labelled for all classes (a federated data set).

The rules (Gupta et al. 2019, section 2.2, and the settings of the LVIS challenges): the best-scored 300 detections of
an image count, over all classes; of these, those of classes that nobody looked for in the image are left out; where
not every object of a class is labelled, a detection that lies on no labelled one is neither hit nor false alarm. Each
class has its AP, and the mean of the rare, the common and the frequent classes is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evaluation.coco_ap import class_curves
from stages.evaluation.records import Record
from stages.labels import rle

MAX_DETECTIONS = 300


@dataclass(frozen=True)
class LvisResult:
    """LVIS's figures in 0..1; a figure without truth objects to measure it on is absent.

    Attributes:
        mean: ``AP`` (IoU .5 to .95), ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` (small, medium, large objects),
            ``APr``, ``APc``, ``APf`` (rare, common, frequent classes).
        per_class: ``AP`` by category id.
    """

    mean: dict[str, float]
    per_class: dict[int, float]


def federated_average_precision(images: Sequence[Record], truth: Sequence[Record],
                                detections: Sequence[Record], categories: Sequence[Record],
                                max_detections: int = MAX_DETECTIONS, medium_from: float = 32.0 ** 2,
                                large_from: float = 96.0 ** 2) -> LvisResult:
    """Measure masks by the LVIS protocol.

    Args:
        images: COCO image records with ``neg_category_ids`` and ``not_exhaustive_category_ids``.
        truth: COCO annotations.
        detections: COCO results with RLE masks.
        categories: COCO categories with ``frequency``: r, c or f.
        max_detections: detections per image that count, over all classes.
        medium_from, large_from: areas in pixels at which a medium and a large object begin.
    """
    kept = judged_detections(images, truth, best_of_each_image(detections, max_detections))
    precision, _ = class_curves(images, [*truth, *_excuses(images, truth, kept)], kept,
                                [category["id"] for category in categories], max_detections,
                                (0.0, medium_from, large_from))
    pieces = {"AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0],
              **{f"AP{size}": precision[..., number] for number, size in enumerate("sml", start=1)}}
    for frequency in "rcf":
        chosen = [column for column, category in enumerate(categories) if category.get("frequency") == frequency]
        pieces[f"AP{frequency}"] = precision[:, :, chosen, 0]
    mean = {name: float(piece[piece > -1].mean()) for name, piece in pieces.items() if (piece > -1).any()}
    return LvisResult(mean, {category["id"]: float(precision[:, :, column, 0].mean())
                             for column, category in enumerate(categories) if precision[0, 0, column, 0] > -1})


def best_of_each_image(detections: Iterable[Record], count: int) -> list[Record]:
    """The ``count`` best-scored detections of each image, over all classes; of equal scores the first ones."""
    groups: dict[int, list[Record]] = {}
    for item in detections:
        groups.setdefault(item["image_id"], []).append(item)
    return [item for group in groups.values()
            for item in sorted(group, key=lambda item: -item.get("score", 1.0))[:count]]


def judged_detections(images: Iterable[Record], truth: Iterable[Record],
                      detections: Iterable[Record]) -> list[Record]:
    """The detections of classes that were looked for in their image: they have truth there, or are known absent."""
    known = {image["id"]: set(image["neg_category_ids"]) for image in images}
    for item in truth:
        known[item["image_id"]].add(item["category_id"])
    return [item for item in detections if item["category_id"] in known[item["image_id"]]]


def _excuses(images: Iterable[Record], truth: Sequence[Record],
             detections: Iterable[Record]) -> list[Record]:
    """A crowd over the whole image for each class of it that is not exhaustively labelled.

    COCO's protocol matches objects first and ignores what else lies in a crowd, by the share of the detection that the
    crowd covers: under a crowd over everything, exactly the detections without an object are ignored.
    """
    found = {(item["image_id"], item["category_id"]) for item in detections}
    number = max((item["id"] for item in truth), default=0)
    whole: dict[tuple[int, int], Record] = {}
    crowds: list[Record] = []
    for image in images:
        size = (image["height"], image["width"])
        for category in image["not_exhaustive_category_ids"]:
            if (image["id"], category) in found:
                if size not in whole:
                    whole[size] = rle.encode(np.ones(size, np.uint8))
                number += 1
                crowds.append({"id": number, "image_id": image["id"], "category_id": category, "iscrowd": 1,
                               "segmentation": whole[size], "area": size[0] * size[1]})
    return crowds

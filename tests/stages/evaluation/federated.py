"""Federated truths, and a slow and plain reading of the LVIS protocol to measure the fast one against: whole masks,
float64, loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.labels import rle
from tests.stages.evaluation.scenes import annotation, scene, square

THRESHOLDS = [round(0.5 + 0.05 * step, 2) for step in range(10)]
LEVELS = "rcf"


def federated_scene(seed: int, images: int = 14, classes: int = 7, size: tuple[int, int] = (60, 80),
                    scores: int = 0) -> tuple[list[dict], list[dict], list[dict], list[dict]]:
    """A random scene with negatives, not-exhaustive classes, classes without truth and detections everywhere.

    Args:
        seed: of everything.
        images, classes, size: as in ``scene``.
        scores: number of different scores, so that ties occur; 0 leaves them distinct.
    """
    records, categories, truth, detections = scene(seed, images, classes, size)
    random = np.random.default_rng(seed + 1000)
    for number, category in enumerate(categories):
        category["frequency"] = LEVELS[number % 3]
    last = categories[-1]["id"]  # has no truth anywhere
    truth = [item for item in truth if item["category_id"] != last]
    ids = [category["id"] for category in categories]
    for record in records:
        present = {item["category_id"] for item in truth if item["image_id"] == record["id"]}
        absent = [number for number in ids if number not in present]
        record["neg_category_ids"] = [number for number in absent if random.random() < 0.4]
        record["not_exhaustive_category_ids"] = [number for number in sorted(present) if random.random() < 0.4]
        for _ in range(4):  # false alarms of every kind: verified, not verified, not exhaustive
            mask = square(*size, *random.integers(0, 60, 2), *random.integers(1, 50, 2))
            if mask.any():
                detections.append(annotation(len(detections) + 1, record["id"], int(random.choice(ids)), mask,
                                             score=float(random.random())))
    if scores:
        for item in detections:
            item["score"] = round(item["score"] * scores) / scores
    return records, categories, truth, detections


def best(detections: list[dict], count: int) -> list[dict]:
    """The ``count`` best-scored detections of each image, over all classes."""
    kept = []
    for image in {item["image_id"] for item in detections}:
        mine = [item for item in detections if item["image_id"] == image]
        kept += sorted(mine, key=lambda item: -item["score"])[:count]
    return kept


def judge(objects: list[dict], found: list[dict], area: tuple[float, float], threshold: float,
          exhaustive: bool) -> tuple[list[tuple[float, str]], int]:
    """One image and class: (score, "hit" | "miss" | "ignored") of each detection, and the number of objects."""
    outside = [not area[0] <= item["area"] <= area[1] for item in objects]
    taken: set[int] = set()
    results = []
    for item in sorted(found, key=lambda item: -item["score"]):
        mask = rle.decode(item["segmentation"]).astype(bool)
        overlaps = []
        for place, other in enumerate(objects):
            shape = rle.decode(other["segmentation"]).astype(bool)
            iou = np.logical_and(mask, shape).sum(dtype=np.float64) / np.logical_or(mask, shape).sum(dtype=np.float64)
            if place not in taken and iou >= threshold:
                overlaps.append((not outside[place], iou, place))
        if overlaps:  # an object of the wanted size comes before any other, then the larger overlap, then the later one
            wanted, _, place = max(overlaps)
            taken.add(place)
            results.append((item["score"], "hit" if wanted else "ignored"))
        else:
            excused = not exhaustive or not area[0] <= mask.sum() <= area[1]
            results.append((item["score"], "ignored" if excused else "miss"))
    return results, len(objects) - sum(outside)


def curve_area(results: list[tuple[float, str]], objects: int) -> float:
    """Mean over 101 recall values of the best precision at that recall or a higher one."""
    ranked = [kind for _, kind in sorted(results, key=lambda item: -item[0]) if kind != "ignored"]
    points = []
    hits = 0
    for count, kind in enumerate(ranked, start=1):
        hits += kind == "hit"
        points.append((hits / objects, hits / count))
    return float(np.mean([max((precision for recall, precision in points if recall >= wanted), default=0.0)
                          for wanted in np.linspace(0.0, 1.0, 101)]))


def federated_ap(images: list[dict], categories: list[dict], truth: list[dict], detections: list[dict],
                 max_detections: int = 300, limits: tuple[float, float] = (32 ** 2, 96 ** 2),
                 ) -> tuple[dict[str, float], dict[int, float]]:
    """All figures of the protocol in 0..1 (absent where there is nothing to measure), and AP by category id."""
    areas = {"AP": (0, 1e10), "APs": (0, limits[0]), "APm": limits, "APl": (limits[1], 1e10)}
    detections = best(detections, max_detections)
    table: dict[tuple[int, str, float], float] = {}
    for category in categories:
        number = category["id"]
        for name, area in areas.items():
            for threshold in THRESHOLDS:
                results: list[tuple[float, str]] = []
                objects = 0
                for image in sorted(images, key=lambda item: item["id"]):
                    place = (image["id"], number)
                    mine = [item for item in truth if (item["image_id"], item["category_id"]) == place]
                    found = [item for item in detections if (item["image_id"], item["category_id"]) == place]
                    if not mine and number not in image["neg_category_ids"]:
                        continue  # nobody looked for the class here
                    exhaustive = number not in image["not_exhaustive_category_ids"]
                    judged, count = judge(mine, found, area, threshold, exhaustive)
                    results, objects = results + judged, objects + count
                if objects:
                    table[number, name, threshold] = curve_area(results, objects)

    def mean(name: str = "AP", thresholds: list[float] = THRESHOLDS, level: str = LEVELS) -> float | None:
        chosen = {category["id"] for category in categories if category["frequency"] in level}
        values = [table[key] for key in table if key[0] in chosen and key[1] == name and key[2] in thresholds]
        return float(np.mean(values)) if values else None

    figures: dict[str, Any] = {name: mean(name) for name in areas}
    figures |= {"AP50": mean(thresholds=[0.5]), "AP75": mean(thresholds=[0.75])}
    figures |= {f"AP{level}": mean(level=level) for level in LEVELS}
    per_class = {category["id"]: [table[key] for key in table if key[:2] == (category["id"], "AP")]
                 for category in categories}
    return ({name: value for name, value in figures.items() if value is not None},
            {number: float(np.mean(values)) for number, values in per_class.items() if values})

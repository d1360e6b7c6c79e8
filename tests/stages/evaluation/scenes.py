"""Small truths and detections for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.labels import rle


def annotation(number: int, image: int, category: int, mask: Any, **more: Any) -> dict[str, Any]:
    """A COCO annotation of a mask that is given as an array or as rows of 0 and 1, e.g. ``"0110 0110"``."""
    if isinstance(mask, str):
        mask = np.array([[int(pixel) for pixel in row] for row in mask.split()])
    code = rle.encode(np.asarray(mask))
    return {"id": number, "image_id": image, "category_id": category, "segmentation": code, "area": rle.area(code),
            "bbox": rle.bbox(code), "iscrowd": 0, **more}


def square(height: int, width: int, x: int, y: int, w: int, h: int) -> np.ndarray:
    """A mask (height, width) with a filled box at x, y."""
    mask = np.zeros((height, width), np.uint8)
    mask[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)] = 1
    return mask


def scene(seed: int, images: int = 12, classes: int = 3, size: tuple[int, int] = (60, 80), crowds: bool = False,
          noise: float = 3.0) -> tuple[list[dict], list[dict], list[dict], list[dict]]:
    """Random disjoint boxes as truth, moved copies and false alarms as detections.

    Returns:
        images, categories, truth, detections (with ids and distinct scores).
    """
    random = np.random.default_rng(seed)
    height, width = size
    records = [{"id": 10 + 3 * number, "file_name": f"{number}.jpg", "height": height, "width": width}
               for number in range(images)]
    categories = [{"id": 5 * number + 2, "name": f"class {number}", "isthing": 1} for number in range(classes)]
    truth: list[dict] = []
    detections: list[dict] = []
    for record in records:
        taken = np.zeros(size, bool)
        for _ in range(random.integers(0, 6)):
            w, h = random.integers(1, 40, 2)
            x, y = random.integers(0, width - 2), random.integers(0, height - 2)
            mask = square(height, width, x, y, w, h) & ~taken
            if not mask.any():
                continue
            taken |= mask.astype(bool)
            category = categories[random.integers(classes)]["id"]
            crowd = int(crowds and random.random() < 0.3)
            truth.append(annotation(len(truth) + 1, record["id"], category, mask, iscrowd=crowd))
            for _ in range(random.integers(0, 3)):
                moved = square(height, width, *(np.array([x, y, w, h]) + random.normal(0, noise, 4)).astype(int))
                if moved.any():
                    detections.append(annotation(len(detections) + 1, record["id"], category, moved,
                                                 score=float(random.random())))
        for _ in range(random.integers(0, 3)):
            false = square(height, width, *random.integers(0, 50, 2), 12, 9)
            detections.append(annotation(len(detections) + 1, record["id"], categories[random.integers(classes)]["id"],
                                         false, score=float(random.random())))
    return records, categories, truth, detections

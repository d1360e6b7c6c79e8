"""From the generator's probabilities to the labels of an image (section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.exits.settings import SynthesisSettings
from stages.cues.crops import Window, object_box, paste
from stages.cues.objects import Image, box_area
from stages.cues.simple_masks import box_mask
from stages.labels import rle
from stages.labels.coco import Entry
from stages.runtime.files import read_npz


def generated_mask(probabilities: np.ndarray, window: Window, item: Entry, size: tuple[int, int],
                   settings: SynthesisSettings) -> tuple[np.ndarray, float]:
    """Mask and score of one object from the generator's probabilities.

    Args:
        probabilities: (m, m) in 0..1 over the window.
        window: of the crop in the image.
        item: its annotation.
        size: (H, W) of the image.
        settings: threshold, and what of the supervision is imposed on the mask.

    Returns:
        (H, W) bool and the mean probability within it (not in the paper); the box itself, with score 0, where the
        generator sees nothing.
    """
    box = box_mask(object_box(item), size)
    values = paste(probabilities, window, size)
    mask = values >= settings.threshold
    if settings.inside_box:
        mask &= box
    if not mask.any():
        return box, 0.0
    score = float(values[mask].mean())
    if settings.extreme_points and "extreme_points" in item:
        for x, y in item["extreme_points"]:
            mask[min(max(round(y), 0), size[0] - 1), min(max(round(x), 0), size[1] - 1)] = True
    return mask, round(score, 6)


def image_labels(image: Image, folder: Path, settings: SynthesisSettings) -> list[Entry]:
    """Labels of one image, one for each object, as ``stages.labels.coco.write_instances`` takes them.

    Args:
        image: with K objects.
        folder: of ``infer_masks``: ``probabilities`` (K, m, m) uint8 in 1/255 and ``windows`` (K, 4) of each image.
        settings: of the synthesis.
    """
    found = read_npz(folder / f"{image.key}.npz")
    rows = []
    for item, probabilities, (x0, y0, x1, y1) in zip(image.objects, found["probabilities"], found["windows"].tolist(),
                                                     strict=True):
        if box_area(item) < settings.min_box:
            mask, score = box_mask(object_box(item), image.size), 1.0
        else:
            mask, score = generated_mask(probabilities / 255, (x0, y0, x1, y1), item, image.size, settings)
        rows.append({"image_id": image.entry["id"], "category_id": item["category_id"],
                     "segmentation": rle.encode(mask), "score": score, "weak_id": item["id"]})
    return rows


def label_figures(points: Mapping[str, float], scores: Sequence[float]) -> dict[str, float]:
    """EXITS' own figures of the training labels [%]: points inside boxes that were retrieved as foreground and as
    background, and the generator's mean certainty.

    Args:
        points: of ``propagate``'s summary.
        scores: of the labels.
    """
    figures = {name: points[name] for name in ("pseudo_foreground", "pseudo_background")}
    return {**figures, **({"certainty": round(100 * float(np.mean(scores)), 3)} if scores else {})}

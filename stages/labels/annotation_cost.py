"""What the labels cost to make, and how many images a budget affords."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from stages.labels.settings import AnnotationSeconds

SOURCES = {
    "masks": "BESTIE section 4.3",
    "boxes": "BESTIE section 4.3",
    "extreme_points": "BESTIE section 4.3 for boxes; extreme points cost the same by EXITS",
    "points": "BESTIE section 4.3; WISE says 22.1",
    "tags": "BESTIE section 4.3",
}
"""Kinds of annotation from the dearest to the cheapest, and who timed them."""
FULL_SUPERVISION = "masks"
"""The method that is trained on true masks, whatever else is annotated."""


def supervision(method: str, choice: str, annotations: Mapping[str, Any]) -> tuple[list[str], float]:
    """The kinds of annotation that a method was given, and the share of images with masks.

    Args:
        method: its name.
        choice: ``evaluate.supervision``; auto takes what was annotated.
        annotations: the section of params.yaml.
    """
    if method == FULL_SUPERVISION:
        return ["masks"], 1.0
    if choice != "auto":
        return [choice], 1.0
    return annotations.get("kinds", ["tags"]), annotations.get("masked_images", 1.0)


def annotation_cost(kinds: Collection[str], masked_images: float, seconds: AnnotationSeconds) -> dict[str, Any]:
    """Seconds of annotation per image.

    Args:
        kinds: as in ``annotations.kinds``; the dearest one counts, because the time for points or boxes includes
            naming their classes.
        masked_images: share of the images that get masks, 0..1, if ``kinds`` has masks; the others get the rest.
        seconds: per kind.
    """
    share = masked_images if "masks" in kinds else 0.0
    kind = next((name for name in SOURCES if name in kinds and (name != "masks" or share == 1.0)), "tags")
    value = (1.0 - share) * _seconds(kind, seconds) + share * seconds.masks
    return {"seconds_per_image": round(value, 3), "masked_images": share, "kind": kind, "source": SOURCES[kind]}


def affordable(budget: float, seconds_per_image: float) -> int:
    """Images that a budget pays for, to the nearest: the paper's 29,280 s are 1,464 images with tags (20.0 s), 1,325
    with points (22.1 s) or 122 with masks (239.7 s) (WISE section 4.3.2).

    Raises:
        ValueError: an image costs nothing.
    """
    if seconds_per_image <= 0:
        raise ValueError("an image costs nothing")
    return math.floor(budget / seconds_per_image + 0.5)


def _seconds(kind: str, seconds: AnnotationSeconds) -> float:
    return float(getattr(seconds, "boxes" if kind == "extreme_points" else kind))

"""What the labels cost to make, and how many images a budget affords."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from stages.labels.coco import is_thing
from stages.labels.given import is_full
from stages.labels.settings import AnnotationSeconds
from stages.labels.tag_crops import tag_crops

SOURCES = {
    "masks": "BESTIE section 4.3",
    "boxes": "BESTIE section 4.3",
    "extreme_points": "BESTIE section 4.3 for boxes; extreme points cost the same by EXITS",
    "points": "BESTIE section 4.3; WISE says 22.1",
    "tags": "BESTIE section 4.3",
}
"""Kinds of annotation from the dearest to the cheapest, and who timed them."""
COUNTED = "panoptic App. D: so many seconds a box and a tag of stuff, counted"
FULL_SUPERVISION = "masks"
"""The method that is trained on true masks, whatever else is annotated."""


@dataclass(frozen=True)
class Counts:
    """What was annotated in the training images.

    Attributes:
        masked: share of the images that are labelled in full, 0..1; the means below are over the others.
        boxes: boxes per image, crowds included.
        stuff_tags: tags of stuff per image, crop by crop where crops are tagged.
        crops: crops per image; 1 where the image itself is tagged.
    """

    masked: float
    boxes: float
    stuff_tags: float
    crops: float


def count_labels(weak: dict[str, Any]) -> Counts:
    """Count what the weak annotations of the training images hold."""
    stuff = {category["id"] for category in weak["categories"] if not is_thing(category)}
    images = {image["id"]: image for image in weak["images"] if not is_full(image)}
    boxes = sum("bbox" in item and item["image_id"] in images for item in weak["annotations"])
    crops = [crop for image in images.values() for crop in tag_crops(image)]
    tags = sum(len(stuff & set(crop.tags)) for crop in crops)
    count = max(1, len(images))
    return Counts(1 - len(images) / max(1, len(weak["images"])), boxes / count, tags / count, len(crops) / count)


def supervision(method: str, choice: str, annotations: Mapping[str, Any],
                counts: Counts | None = None) -> tuple[list[str], float]:
    """The kinds of annotation that a method was given, and the share of images with masks.

    Args:
        method: its name.
        choice: ``evaluate.supervision``; auto takes what was annotated.
        annotations: the section of params.yaml.
        counts: of the training images. Before they are annotated there are none: then a share is the one that is asked
            for, and images that are listed one by one do not count.
    """
    if method == FULL_SUPERVISION:
        return ["masks"], 1.0
    if choice != "auto":
        return [choice], 1.0
    asked = annotations.get("masked_images", 1.0)
    share = counts.masked if counts is not None else asked if isinstance(asked, (int, float)) else 0.0
    return annotations.get("kinds", ["tags"]), share


def annotation_cost(kinds: Collection[str], masked_images: float, seconds: AnnotationSeconds,
                    counts: Counts | None = None) -> dict[str, Any]:
    """Seconds of annotation per image.

    Args:
        kinds: as in ``annotations.kinds``; the dearest one counts, because the time for points or boxes includes
            naming their classes.
        masked_images: share of the images that get masks, 0..1, if ``kinds`` has masks; the others get the rest.
        seconds: per kind.
        counts: of the training images. Where boxes were drawn, ``counted`` is the time that the boxes and the tags of
            stuff take one by one, the time of boxes including their classes. Where stuff was tagged beside boxes this
            is the time that is given, because no image's average includes such tags; ``per_image`` is the average.
    """
    share = masked_images if "masks" in kinds else 0.0
    kind = next((name for name in SOURCES if name in kinds and (name != "masks" or share == 1.0)), "tags")

    def mixed(weak: float) -> float:
        return round((1.0 - share) * weak + share * seconds.masks, 3)

    cost: dict[str, Any] = {"seconds_per_image": mixed(_seconds(kind, seconds)), "masked_images": round(share, 4),
                     "kind": kind, "source": SOURCES[kind]}
    if counts is None or "boxes" not in kinds or share == 1.0:
        return cost
    tags = counts.stuff_tags if "tags" in kinds else 0.0
    cost["counted"] = {
        "seconds_per_image": mixed(counts.boxes * seconds.box + tags * seconds.stuff_tag), "source": COUNTED,
        "boxes_per_image": round(counts.boxes, 3), "stuff_tags_per_image": round(tags, 3),
        "crops_per_image": round(counts.crops, 3)}
    if tags:
        average = {key: cost[key] for key in ("seconds_per_image", "kind", "source")}
        cost |= {"seconds_per_image": cost["counted"]["seconds_per_image"], "kind": "boxes and tags of stuff",
                 "source": COUNTED, "per_image": average}
    return cost


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

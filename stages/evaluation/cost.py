"""What the labels cost to make, and how much of full supervision's AP they keep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evaluation.records import Metrics, Record
from stages.evaluation.settings import AnnotationSeconds
from stages.labels.coco import is_thing
from stages.labels.given import is_full
from stages.labels.tag_crops import tag_crops
from stages.runtime.files import read_json, write_json

SOURCES = {
    "masks": "BESTIE section 4.3",
    "boxes": "BESTIE section 4.3",
    "extreme_points": "BESTIE section 4.3 for boxes; extreme points cost the same by EXITS",
    "points": "BESTIE section 4.3; WISE says 22.1",
    "tags": "BESTIE section 4.3",
}
"""Kinds of annotation from the dearest to the cheapest, and who timed them."""
COUNTED = "panoptic App. D: so many seconds a box and a tag of stuff, counted"
PROTOCOLS = ("voc", "coco", "lvis")
"""Keys of the metrics that hold AP; ``lvis`` is there on federated truth only."""


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


def supervision(choice: str, annotations: Record, counts: Counts) -> tuple[list[str], float]:
    """The kinds of annotation that a method was given, and the share of images with masks.

    Args:
        choice: ``evaluate.supervision``; auto takes what was annotated.
        annotations: the section of params.yaml.
        counts: of the training images.
    """
    if choice != "auto":
        return [choice], 1.0
    return annotations.get("kinds", ["tags"]), counts.masked


def used(detector: Record) -> Metrics:
    """The detector's settings without those of the engine that does not run."""
    engines = {"detectron2", "torchvision"} - {detector.get("engine", "detectron2")}
    return {key: value for key, value in detector.items() if key not in engines}


def annotation_cost(kinds: Collection[str], masked_images: float, seconds: AnnotationSeconds,
                    counts: Counts | None = None) -> Metrics:
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

    cost: Metrics = {"seconds_per_image": mixed(_seconds(kind, seconds)), "masked_images": round(share, 4),
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


def _seconds(kind: str, seconds: AnnotationSeconds) -> float:
    return float(getattr(seconds, "boxes" if kind == "extreme_points" else kind))


def reference_key(truth: Path, settings: Record) -> str:
    """12 hexadecimal digits that agree for runs whose detectors may be compared: same truth, data and detector."""
    digest = hashlib.blake2b(digest_size=6)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(truth.read_bytes())
    return digest.hexdigest()


def remember_reference(path: Path, key: str, metrics: Record) -> None:
    """Note the AP of a fully supervised run under its key; other keys stay."""
    known = read_json(path) if path.exists() else {}
    known[key] = {protocol: metrics[protocol] for protocol in PROTOCOLS if protocol in metrics}
    write_json(path, dict(sorted(known.items())), indent=2)


def retention(path: Path, key: str, metrics: Record) -> Metrics:
    """AP as a percentage of full supervision's AP, by the names of the figures; or the reason why not."""
    known = read_json(path) if path.exists() else {}
    if key not in known:
        reason = ("no run with method: masks on this data with this detector yet" if not known else
                  f"{path} holds runs with method: masks, none on this data with this detector ({key})")
        return {"available": 0, "reason": f"{reason}; run it once, then this method again"}
    result: Metrics = {"available": 1}
    for protocol in PROTOCOLS:
        if protocol in metrics and protocol in known[key]:
            result[protocol] = {name: round(100.0 * metrics[protocol][name] / full, 3)
                                for name, full in known[key][protocol].items()
                                if full > 0 and name in metrics[protocol]}
    return result

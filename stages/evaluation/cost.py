"""What the labels cost to make, and how much of full supervision's AP they keep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from stages.evaluation.records import Metrics, Record
from stages.evaluation.settings import AnnotationSeconds
from stages.runtime.files import read_json, write_json

SOURCES = {
    "masks": "BESTIE section 4.3",
    "boxes": "BESTIE section 4.3",
    "extreme_points": "BESTIE section 4.3 for boxes; extreme points cost the same by EXITS",
    "points": "BESTIE section 4.3; WISE says 22.1",
    "tags": "BESTIE section 4.3",
}
"""Kinds of annotation from the dearest to the cheapest, and who timed them."""
PROTOCOLS = ("voc", "coco", "lvis")
"""Keys of the metrics that hold AP; ``lvis`` is there on federated truth only."""


def supervision(choice: str, annotations: Record) -> tuple[list[str], float]:
    """The kinds of annotation that a method was given, and the share of images with masks.

    Args:
        choice: ``evaluate.supervision``; auto takes what was annotated.
        annotations: the section of params.yaml.
    """
    if choice != "auto":
        return [choice], 1.0
    return annotations.get("kinds", ["tags"]), annotations.get("masked_images", 1.0)


def used(detector: Record) -> Metrics:
    """The detector's settings without those of the engine that does not run."""
    engines = {"detectron2", "torchvision"} - {detector.get("engine", "detectron2")}
    return {key: value for key, value in detector.items() if key not in engines}


def annotation_cost(kinds: Collection[str], masked_images: float, seconds: AnnotationSeconds) -> Metrics:
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


def said_of_proposals(proposals: Record) -> Metrics:
    """Who made a method's proposals, by the keys that stand beside its annotation time; nothing without proposals."""
    return {"proposals" if name == "provider" else f"proposals_{name}": value for name, value in proposals.items()}


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

"""Where things lie, relative to the working directory (the root of a clone or of a workspace)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATASET = Path("data/dataset")
IMAGES = DATASET / "images"
TRUTH = {"train": DATASET / "train_truth.json", "val": DATASET / "val_truth.json"}
ANNOTATIONS = Path("data/annotations")
WEAK = {"train": ANNOTATIONS / "train_weak.json", "val": ANNOTATIONS / "val_weak.json"}
METRICS = Path("metrics")
WORK = Path(".work")


def method_data(method: str) -> Path:
    """Folder of a method's labels and intermediates."""
    return Path("data") / method


def method_models(method: str) -> Path:
    """Folder of a method's trained networks."""
    return Path("models") / method


def pseudo_labels(method: str, split: str = "train") -> Path:
    """A method's labels of the training images or, by methods that make them, of val (``val_points``: from its
    annotated points): COCO instances."""
    return method_data(method) / ("pseudo_labels.json" if split == "train" else f"pseudo_labels_{split}.json")


def panoptic(method: str, split: str = "train") -> Path:
    """The JSON of the panoptic output of methods that make one; its PNGs lie in the folder of its name."""
    return method_data(method) / ("panoptic.json" if split == "train" else f"panoptic_{split}.json")


def label_maps(method: str) -> Path:
    """The list of label maps that a method keeps of its training images: cues, rounds of refinement."""
    return method_data(method) / "maps.json"


def predictions(method: str) -> Path:
    """The detector's masks on the validation images: COCO results."""
    return method_data(method) / "predictions.json"


def image_key(image: Mapping[str, Any]) -> str:
    """Stem of an image's per-image files: its id, twelve digits as in COCO's own file names."""
    return f"{image['id']:012d}"

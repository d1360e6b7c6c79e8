"""From a rehearsal to the full run: hours, memory and disk of each stage, as far as what was measured says them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.rehearsal.shortened import Planned
from pipelines.rehearsal.watch import Measured
from stages.prepare.settings import DatasetSettings


@dataclass(frozen=True)
class Counts:
    """Images of train and val, and objects of an image (None: as in the rehearsal)."""

    train: int
    val: int
    objects: float | None = None


# What the data sets publish; of VOC those of SBD, of KITTI cars and persons of the usual training list.
_FULL = {
    ("voc", "train_aug"): Counts(10_582, 1_449, 2.4), ("voc", "train"): Counts(1_464, 1_449, 2.4),
    ("coco", "annotations/instances_train2017.json"): Counts(118_287, 5_000, 7.2),
    ("coco", "annotations/instances_train2014.json"): Counts(118_287, 5_000, 7.2),
    ("lvis", "annotations/lvis_v1_train.json"): Counts(100_170, 19_809, 12.7),
    ("kitti", "train.txt"): Counts(3_712, 200, 4.5),
    ("cityscapes", "train"): Counts(2_975, 500, 17.5),
    ("cityscapes", "train+train_extra"): Counts(22_973, 500, 17.5)}


# Bytes of an image, of the archives that their makers offer.
_BYTES = {"voc": 115e3, "coco": 163e3, "lvis": 163e3, "kitti": 0.8e6, "cityscapes": 2.3e6}


def published(dataset: DatasetSettings) -> Counts | None:
    """Counts of a data set that is known, whole; of the rendered one those of the settings."""
    if dataset.kind == "shapes":
        return Counts(dataset.shapes.train, dataset.shapes.val)
    # 2014's are counted with the 35k images of val.
    if dataset.split is not None or bool(dataset.train_more) != (dataset.train or "").endswith("train2014.json"):
        return None
    defaults = {"voc": "train_aug", "cityscapes": "train"}
    return _FULL.get((dataset.kind, dataset.train or defaults.get(dataset.kind, "")))


@dataclass(frozen=True)
class Scale:
    """From the images of the rehearsal to those of the full run."""

    here: Counts
    full: Counts

    def items(self, loop: Mapping[str, Any]) -> float:
        """How many items a loop over images, or over groups of them, has in the full run; at most its ``most``."""
        full = loop["items"] * self.growth(loop)
        return min(full, loop["most"]) if "most" in loop else full

    def growth(self, loop: Mapping[str, Any]) -> float:
        """How many times the items of a loop the full run has, by its part; of one that says none, by its images."""
        parts = {"train": (self.full.train, self.here.train), "val": (self.full.val, self.here.val),
                 "": (self.full.train + self.full.val, self.here.train + self.here.val)}
        part = loop.get("part", "")
        if part not in parts:
            part = ""
        if part == "" and loop.get("images", loop["items"]) <= self.here.train:
            part = "train"
        full, here = parts[part]
        return full / max(1, here)

    def samples(self, count: int) -> float:
        """Samples of a training in the full run that had ``count`` here: images of train, or objects of them."""
        if count <= self.here.train:  # images without labels are no samples
            return self.full.train * count / self.here.train
        per_image = self.full.objects if self.full.objects is not None else count / self.here.train
        return self.full.train * per_image


def full_seconds(measured: Measured, planned: Sequence[Planned], scale: Scale) -> float:
    """Seconds of a stage in the full run: its loops at the pace that they had here, and once what it takes beside them.

    A training's step takes as long per sample as here, and a round of several as long as those here. Workers share the
    items, as far as they go round, and of processes side by side the slowest counts. A stage without loops counts as it
    is.
    """
    here: dict[tuple[str, str], dict[int, float]] = {}
    full: dict[tuple[str, str], dict[int, float]] = {}
    for loop in measured.loops:
        if "batch" in loop and planned:
            plan = planned[0]
            took = plan.full_steps(scale.samples(loop["samples"])) * loop["each"] * plan.batch / loop["batch"]
        else:
            items = scale.items(loop)
            took = items * loop["each"] / max(1.0, min(loop.get("workers", 1), items))
        name, rank = (loop.get("walk", ""), loop.get("part", "")), loop.get("rank", 0)
        for sums, seconds in ((here, loop["seconds"]), (full, took)):
            ranks = sums.setdefault(name, {})
            ranks[rank] = ranks.get(rank, 0.0) + seconds
    beside = measured.seconds - sum(max(ranks.values()) for ranks in here.values())
    return max(0.0, beside) + _rounds(planned) * sum(max(ranks.values()) for ranks in full.values())


def _rounds(planned: Sequence[Planned]) -> float:
    """Rounds of the full run for each of the rehearsal, of the stage that has these trainings."""
    return max((plan.rounds for plan in planned), default=1.0)


def full_bytes(outputs: Mapping[str, int], measured: Measured, planned: Sequence[Planned], scale: Scale) -> float:
    """Bytes of a stage's outputs in the full run: what its loops over images leave in data/ grows as they do, and with
    the rounds of a training; networks do not."""
    loops = [loop for loop in measured.loops if "batch" not in loop]
    items = sum(loop["items"] for loop in loops)
    grown = _rounds(planned) * (sum(map(scale.items, loops)) / items if items else 1.0)
    total = 0.0
    for path, size in outputs.items():
        named = re.split(r"[_.]", Path(path).name)
        part = next((part for part in ("train", "val") if part in named), None)
        factor = grown if part is None or not loops else scale.growth({"part": part, "items": 0})
        total += size * (factor if path.startswith("data/") else 1)
    return total


def image_bytes(kind: str, scale: Scale) -> float | None:
    """Bytes of the images of a published data set, which a miniature's rendered ones do not tell."""
    return None if kind not in _BYTES else _BYTES[kind] * (scale.full.train + scale.full.val)

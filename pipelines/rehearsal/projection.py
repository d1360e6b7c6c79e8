"""From a rehearsal to the full run: hours, memory and disk of each stage, as far as what was measured says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def published(dataset: DatasetSettings) -> Counts | None:
    """Counts of a data set that is known; of the rendered one those of the settings."""
    if dataset.kind == "shapes":
        return Counts(dataset.shapes.train, dataset.shapes.val)
    defaults = {"voc": "train_aug", "cityscapes": "train"}
    return _FULL.get((dataset.kind, dataset.train or defaults.get(dataset.kind, "")))


@dataclass(frozen=True)
class Scale:
    """From the images of the rehearsal to those of the full run."""

    here: Counts
    full: Counts

    def items(self, loop: Mapping[str, Any]) -> float:
        """How many items a loop of images has in the full run; its items may be groups of ``images`` of them, and stop
        at ``most``."""
        images = loop.get("images", loop["items"])
        full = self._images(images) * loop["items"] / max(1, images)
        return min(full, loop["most"]) if "most" in loop else full

    def _images(self, count: int) -> float:
        """Images of the full run for so many here: those of train, of val or of both, or a share of them, as some may
        have no labels."""
        both = self.here.train + self.here.val
        full = {self.here.train: self.full.train, self.here.val: self.full.val, both: self.full.train + self.full.val}
        if count in full:
            return float(full[count])
        if count < self.here.train:
            return self.full.train * count / self.here.train
        return (self.full.train + self.full.val) * count / both

    def samples(self, count: int) -> float:
        """Samples of a training in the full run that had ``count`` here: images of train, or objects of them."""
        if count <= self.here.train:  # images without labels are no samples
            return self.full.train * count / self.here.train
        per_image = self.full.objects if self.full.objects is not None else count / self.here.train
        return self.full.train * per_image


def each(loop: Mapping[str, Any]) -> float:
    """Seconds of one item of a loop, without the start where there were enough items to tell."""
    rest = loop["items"] - loop["first"]
    if rest > 0:
        return (loop["seconds"] - loop["start"]) / rest
    return loop["seconds"] / max(1, loop["items"])


def full_seconds(measured: Measured, planned: Sequence[Planned], scale: Scale) -> float:
    """Seconds of a stage in the full run: its loops at the pace that they had here, and once what it takes beside them.

    A training's step takes as long per sample as here, and a round of several as long as those here. A stage without
    loops counts as it is.
    """
    beside = measured.seconds - sum(loop["seconds"] for loop in measured.loops)
    looped = 0.0
    for loop in measured.loops:
        if "batch" in loop and planned:
            plan = planned[0]
            looped += plan.full_steps(scale.samples(loop["samples"])) * each(loop) * plan.batch / loop["batch"]
        else:
            looped += scale.items(loop) * each(loop)
    return max(0.0, beside) + _rounds(planned) * looped


def _rounds(planned: Sequence[Planned]) -> float:
    """Rounds of the full run for each of the rehearsal, of the stage that has these trainings."""
    return max((plan.rounds for plan in planned), default=1.0)


def full_bytes(outputs: Mapping[str, int], measured: Measured, planned: Sequence[Planned], scale: Scale) -> float:
    """Bytes of a stage's outputs in the full run: what lies in data/ grows with the images, as far as the stage's loop
    goes, and with the rounds of a training, networks do not."""
    grown = _rounds(planned) * (scale.full.train + scale.full.val) / (scale.here.train + scale.here.val)
    for loop in measured.loops:
        if "most" in loop:
            grown = scale.items(loop) / max(1, loop["items"])
    return sum(size * (grown if path.startswith("data/") else 1) for path, size in outputs.items())

"""About how long a detector's training takes and what it keeps, for `check`."""

from __future__ import annotations

from stages.detector.settings import DetectorSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per image, for its boxes, and per image and megapixel, forward and backward, by kind of device: torchvision's
# at the size of the shapes, and a ResNet-50 with a pyramid (`python -m pipelines.memory`).
_NARROW_BOXES, _NARROW = {"cpu": 0.01, "cuda": 0.005}, {"cpu": 1.6, "cuda": 0.02}
_BOXES, _FULL = {"cpu": 0.7, "cuda": 0.02}, {"cpu": 8.0, "cuda": gpu_seconds(1.7)}


def estimate(settings: DetectorSettings, machine: Machine) -> tuple[float, float]:
    """Seconds of its training and bytes that it writes, within a factor of three or so.

    Scaled from measured steps: a share for the boxes of each image, and one that goes with its pixels.
    """
    train = settings.train
    side = sorted(train.min_sides)[len(train.min_sides) // 2]
    megapixels = side * min(1.33 * side, train.max_side) / 1e6
    narrow = settings.engine == "torchvision" and settings.torchvision.fpn_channels < 128
    boxes, pixels = (_NARROW_BOXES, _NARROW) if narrow else (_BOXES, _FULL)
    each = machine.rate(boxes, mixed=False) + machine.rate(pixels) * megapixels
    return train.steps * train.batch_size * each, 3 * (15e6 if narrow else 180e6)

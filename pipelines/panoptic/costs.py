"""About how long the panoptic stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.panoptic.settings import PanopticSettings, box_detector
from stages.cues.settings import BackboneSettings
from stages.detector import costs
from stages.detector.settings import DetectorSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per image and megapixel of network input, forward and backward, by kind of device: a narrow ResNet-10, a
# MobileNetV2, a ResNet-101 dilated to stride 8, whose operations are counted (`python -m pipelines.memory`). The
# CRF with ten labels takes about as long as a narrow network.
_NARROW = {"cpu": 2.5, "cuda": 0.02}
_SMALL = {"cpu": 6.0, "cuda": 0.05}
_FULL = {"cpu": 80.0, "cuda": gpu_seconds(4.4)}
_CRF = {"cpu": 8.0, "cuda": 0.1}
_GRABCUT = 0.1
"""Seconds a box takes, at most."""
_BOXES = 5
"""About how many boxes an image has."""


def _rate(backbone: BackboneSettings, machine: Machine) -> float:
    rates = _NARROW if backbone.arguments.get("channels") else _SMALL if "mobile" in backbone.name else _FULL
    return machine.rate(rates) / 1e6


def estimate(settings: PanopticSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain, without the proposals, on ``images`` training images of ``pixels`` each."""
    network, rounds, instances = settings.network, settings.rounds, settings.instances
    rate, crf = _rate(network.backbone, machine), machine.rate(_CRF, mixed=False) / 1e6
    crop = network.augment.crop ** 2
    seconds = images * _BOXES * _GRABCUT / machine.workers
    # Fixed crops overlap a little: together they are about half as large again as their image.
    share = settings.classifier.passes(15 * images)
    seconds += 1.5 * images * pixels * (share + 1 / 3) * _rate(settings.classifier.backbone, machine)
    samples = rounds.steps * network.batch_size if rounds.steps else network.passes(images) * images
    seconds += rounds.rounds * (samples * crop * rate + images * pixels * (rate / 3 + crf))
    samples = instances.passes(images) * images
    seconds += samples * instances.augment.crop ** 2 * ((rate if instances.end_to_end else rate / 3) + crf)
    seconds += images * pixels * (rate / 3 + crf)
    # Which engine runs is another section's business; narrow networks are for torchvision's.
    narrow = settings.detector.torchvision.fpn_channels < 128
    took, kept = costs.estimate(box_detector(settings.detector, DetectorSettings(
        engine="torchvision" if narrow else "detectron2")), machine)
    weights = 1e6 if network.backbone.arguments.get("channels") else 3e8
    return (seconds + took,
            images * pixels * 0.1 * rounds.rounds + weights * (rounds.rounds + 3) + kept)

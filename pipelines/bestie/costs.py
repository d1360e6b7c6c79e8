"""About how long BESTIE's stages take and what they keep, for `check`."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.bestie.settings import BestieSettings
from stages.cues.settings import BackboneSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per image and megapixel of network input, forward and backward, by kind of device. Measured on two cores: a
# narrow ResNet-10 under its decoders takes 0.25 s per 8 crops of 128 px, MobileNetV2 about three times that; VGG-16,
# ResNet-101 and HRNet-W48 scaled by their multiplications, which are counted (`python -m pipelines.memory`). Within a
# factor of 3.
_NARROW = {"cpu": 2.0, "cuda": 0.02}
_SMALL = {"cpu": 4.0, "cuda": 0.04}
_FULL = {"cpu": 40.0, "cuda": gpu_seconds(2.1)}


def _rate(backbone: BackboneSettings, machine: Machine) -> float:
    rates = _NARROW if backbone.arguments.get("channels") else _SMALL if "mobile" in backbone.name else _FULL
    return machine.rate(rates) / 1e6


def estimate(settings: BestieSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    network, inference, points = settings.network, settings.inference, settings.cues.source == "points"
    flip = points if inference.flip is None else inference.flip
    once = network.passes(images) * network.augment.crop ** 2 + _forward(inference.scales, flip) * pixels
    seconds = (1 + settings.retraining.iterations) * once * _rate(network.backbone, machine)
    if not points:
        classifier, cues = settings.classifier, settings.cues
        seconds += (classifier.passes(images) * classifier.augment.crop ** 2
                    + _forward((1.0,), cues.flip) * (cues.side ** 2 or pixels)) * _rate(classifier.backbone, machine)
    if settings.maps.source == "segmenter":
        segmenter, maps = settings.maps.segmenter, settings.maps.inference
        seconds += (segmenter.passes(images) * segmenter.augment.crop ** 2
                    + _forward(maps.scales, maps.flip) * pixels) * _rate(segmenter.backbone, machine)
    return images * seconds, images * pixels * 0.2


def _forward(scales: Sequence[float], flip: bool) -> float:
    """What all views of an image take, in forward and backward passes over the image itself."""
    return sum(scale ** 2 for scale in scales) * (2 if flip else 1) / 3

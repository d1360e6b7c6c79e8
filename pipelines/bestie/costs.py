"""About how long BESTIE's stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.bestie.settings import BestieSettings
from stages.cues.settings import BackboneSettings

# Seconds per image and megapixel of network input, forward and backward, by kind of device. Measured on two cores: a
# narrow ResNet-10 under its decoders takes 0.25 s per 8 crops of 128 px, MobileNetV2 about three times that; VGG-16,
# ResNet-101 and HRNet-W48 scaled by their multiplications. Within a factor of 3.
_NARROW = {"cpu": 2.0, "cuda": 0.02}
_SMALL = {"cpu": 4.0, "cuda": 0.04}
_FULL = {"cpu": 40.0, "cuda": 0.4}


def _rate(backbone: BackboneSettings, device: str) -> float:
    rates = _NARROW if backbone.arguments.get("channels") else _SMALL if "mobile" in backbone.name else _FULL
    return rates.get(device, rates["cpu"]) / 1e6


def estimate(settings: BestieSettings, images: int, pixels: float, device: str, workers: int) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    seconds = settings.network.epochs * settings.network.augment.crop ** 2 * _rate(settings.network.backbone, device)
    seconds += len(settings.inference.scales) * pixels * _rate(settings.network.backbone, device) / 3
    if settings.cues.source == "peaks":
        classifier = settings.classifier
        views = 2 if settings.cues.flip else 1
        seconds += (classifier.epochs * classifier.augment.crop ** 2 + views * (settings.cues.side ** 2 or pixels) / 3
                    ) * _rate(classifier.backbone, device)
    if settings.maps.source == "segmenter":
        segmenter = settings.maps.segmenter
        seconds += (segmenter.epochs * segmenter.augment.crop ** 2 + pixels / 3) * _rate(segmenter.backbone, device)
    return images * seconds, images * pixels * 0.2

"""About how long IRNet's stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.irnet.settings import IRNetSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per image and megapixel of network input, forward and backward, by kind of device. Measured with a narrow
# ResNet-18 on two cores (0.23 s per 16 crops of 128 px) and scaled by the width of a ResNet-50, whose operations are
# counted (`python -m pipelines.memory`); within a factor of 3.
_NARROW = {"cpu": 0.9, "cuda": 0.01}
_FULL = {"cpu": 12.0, "cuda": gpu_seconds(0.74)}


def estimate(settings: IRNetSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    narrow = bool(settings.classifier.backbone.arguments.get("channels"))
    rate = machine.rate(_NARROW if narrow else _FULL) / 1e6
    classifier = settings.classifier.passes(images) * images * settings.classifier.augment.crop ** 2 * rate
    views = sum(scale ** 2 for scale in settings.cams.scales) * (2 if settings.cams.flip else 1)
    cams = images * pixels * views * rate / 3
    network = settings.network.passes(images) * images * settings.network.augment.crop ** 2 * rate
    # 1.6 s for two mean-field runs of 0.2 megapixels; about 0.3 s for a walk over a quarter grid of the same image.
    per_image = images * (16.0 * pixels / 1e6 * settings.relations.crf.iterations / 10
                          + 1.5 * pixels / 1e6 * (4 / settings.grid) ** 2) / machine.workers
    cells = pixels / settings.grid ** 2
    return classifier + cams + network + per_image, images * cells * 2 * 8

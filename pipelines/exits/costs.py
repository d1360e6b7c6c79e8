"""About how long EXITS' stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.exits.settings import EncoderSettings, ExitsSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per crop and megapixel of network input, forward and backward, by kind of device: a ViT-Base at 512 px takes
# 5 s per training crop on two cores; the photographs' pyramid 0.1 s at 192 px, the narrow one of the shapes 0.01 s at
# 64 px; a ViT's operations are counted (`python -m pipelines.memory`). Within a factor of 3.
_RATES = {"vit": {"cpu": 19.0, "cuda": gpu_seconds(3.1)}, "pyramid": {"cpu": 2.7, "cuda": 0.04}}
# Seconds per object for the walk over its points, and for the mean-field of a 128 x 128 px mask.
_POINTS = {"cpu": 0.1, "cuda": 0.002}
_CRF = {"cpu": 0.03, "cuda": 0.003}
# Objects per image where nobody has counted: COCO has 7, VOC 2 to 3.
OBJECTS = 5


def _seconds(encoder: EncoderSettings, side: int, machine: Machine) -> float:
    """Of one training step, per crop."""
    rate = machine.rate(_RATES[encoder.kind])
    narrow = 0.4 if encoder.kind == "pyramid" and encoder.width < 48 else 1.0
    return rate * narrow * side ** 2 / 1e6


def estimate(settings: ExitsSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    objects, side = OBJECTS * images, settings.crops.side
    extractor = settings.extractor.passes(objects) * _seconds(settings.extractor.encoder, side, machine)
    points = _seconds(settings.extractor.encoder, side, machine) / 3 + machine.rate(_POINTS, mixed=False)
    # The teacher looks too, and the mean-field takes 0.2 s for eight 128 x 128 px masks and ten steps on a core.
    mask = (side / settings.generator.mask_stride) ** 2
    refining = mask / 128 ** 2 * machine.rate(_CRF, mixed=False)
    generator = settings.generator.passes(objects) * (1.3 * _seconds(settings.generator.encoder, side, machine)
                                                      + refining)
    masks = _seconds(settings.generator.encoder, side, machine) / 3 + 3e-8 * pixels / machine.workers
    return objects * (extractor + points + generator + masks), objects * (settings.propagation.cells ** 2 + mask) / 2

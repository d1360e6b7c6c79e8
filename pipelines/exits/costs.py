"""About how long EXITS' stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.exits.settings import EncoderSettings, ExitsSettings

# Seconds per crop and megapixel of network input, forward and backward, by kind of device: a ViT-Base at 512 px takes
# 5 s per training crop on two cores; the photographs' pyramid 0.1 s at 192 px, the narrow one of the shapes 0.01 s at
# 64 px. Within a factor of 3.
_RATES = {"vit": {"cpu": 19.0, "cuda": 0.2}, "pyramid": {"cpu": 2.7, "cuda": 0.04}}
# Objects per image where nobody has counted: COCO has 7, VOC 2 to 3.
OBJECTS = 5


def _seconds(encoder: EncoderSettings, side: int, device: str) -> float:
    """Of one training step, per crop."""
    rate = _RATES[encoder.kind].get(device, _RATES[encoder.kind]["cpu"])
    narrow = 0.4 if encoder.kind == "pyramid" and encoder.width < 48 else 1.0
    return rate * narrow * side ** 2 / 1e6


def estimate(settings: ExitsSettings, images: int, pixels: float, device: str, workers: int) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    objects, side = OBJECTS * images, settings.crops.side
    extractor = settings.extractor.passes(objects) * _seconds(settings.extractor.encoder, side, device)
    points = _seconds(settings.extractor.encoder, side, device) / 3 + (0.1 if device == "cpu" else 0.002)
    # The teacher looks too, and the mean-field takes 0.2 s for eight 128 x 128 px masks and ten steps on a core.
    mask = (side / settings.generator.mask_stride) ** 2
    refining = 0.03 * mask / 128 ** 2 * (1.0 if device == "cpu" else 0.1)
    generator = settings.generator.passes(objects) * (1.3 * _seconds(settings.generator.encoder, side, device)
                                                      + refining)
    masks = _seconds(settings.generator.encoder, side, device) / 3 + 3e-8 * pixels / workers
    return objects * (extractor + points + generator + masks), objects * (settings.propagation.cells ** 2 + mask) / 2

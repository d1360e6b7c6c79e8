"""About how long WISE's stages take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.wise.settings import WiseSettings
from stages.runtime.machine import Machine, gpu_seconds

# Seconds per image and megapixel of network input, forward and backward, by kind of device: those of IRNet's backbones,
# within a factor of 3. The loss takes about as long again as a narrow backbone does on a CPU; beside
# a GPU its blobs and watersheds are still found on the CPU, in 0.15 s per 500 x 375 px, whatever the precision.
_NARROW = {"cpu": 1.8, "cuda": 0.05}
_FULL = {"cpu": 13.0, "cuda": gpu_seconds(0.52)}
_LOSS = {"cpu": 0.0, "cuda": 0.8}


def estimate(settings: WiseSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain, without the proposals, on ``images`` training images of ``pixels`` each."""
    narrow = bool(settings.network.backbone.arguments.get("channels"))
    rate = machine.rate(_NARROW if narrow else _FULL) / 1e6
    loss = machine.rate(_LOSS, mixed=False) / 1e6
    shown = min(pixels, settings.network.max_pixels)
    network = settings.network.passes(images) * images * shown * (rate * (1 if settings.network.shared else 2) + loss)
    peaks = 0.0
    if settings.cues.source == "peaks":
        peaks = (settings.peaks.passes(images) + 5) * images * settings.peaks.side ** 2 * rate
    inference = images * pixels * (rate / 3 + 2e-6)
    labels = images * 0.1 / machine.workers
    # Blobs and groups are 16-bit maps that compress to about a tenth.
    return network + peaks + inference + labels, images * pixels * 0.4

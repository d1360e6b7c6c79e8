"""About how long the masks without learning take and what they keep, for `check`."""

from __future__ import annotations

from pipelines.baseline.settings import BaselineSettings
from stages.runtime.machine import Machine

# Objects per image where nobody has counted: COCO has 7, VOC 2 to 3.
OBJECTS = 5
# Seconds per object on a core: GrabCut looks at no more than 192 x 192 px; the others draw.
_SECONDS = {"box": 0.001, "ellipse": 0.01, "grabcut": 0.3, "grabcut_points": 0.3}


def estimate(settings: BaselineSettings, images: int, pixels: float, machine: Machine) -> tuple[float, float]:
    """Seconds and bytes of the whole chain on ``images`` training images of ``pixels`` each."""
    objects = OBJECTS * images
    return objects * (_SECONDS[settings.masks] + 3e-8 * pixels) / machine.workers, objects * 500.0

"""Infer class attention maps of the training images over scales and flips (eq. 1).

Reads data/annotations/train_weak.json (tags), data/dataset/images and models/irnet/classifier; writes data/irnet/cams,
one .npz per image: `classes` (K,) category ids of its tags, `cams` (K, h, w) float16 in 0..1 on the grid.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from stages.labels.coco import read_coco
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

CAMS = layout.method_data("irnet") / "cams"


def main(params: Path) -> None:
    """Images on the device, those of one size several at a time."""
    from stages.cues.cams import cam_inference
    from stages.cues.views import image_size, walk_images
    from stages.runtime.walk import Together

    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    chosen, grid = settings.irnet.cams, settings.irnet.grid
    walk_images(__file__, params, settings.runtime, {"": read_coco(layout.WEAK["train"])["images"]},
                build=lambda device: cam_inference(CLASSIFIER, device, chosen, grid),
                inputs=[layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt"], parameters=[chosen, grid],
                output=CAMS, description="attention maps", together=Together(chosen.batch_size, image_size))


if __name__ == "__main__":
    run_stage(main, __doc__)

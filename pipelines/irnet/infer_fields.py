"""Infer the displacement field and the class boundary map of the training images (section 4.1).

Reads data/annotations/train_weak.json (images), data/dataset/images, models/irnet/classifier and models/irnet/irnet;
writes data/irnet/fields, one .npz per image: `displacement` (2, h, w) float16, (dy, dx) in cells, and `boundary` (h, w)
float16 in 0..1.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from pipelines.irnet.train_irnet import IRNET
from stages.labels.coco import read_coco
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

FIELDS = layout.method_data("irnet") / "fields"


def main(params: Path) -> None:
    """Images on the device, those of one size several at a time."""
    from pipelines.irnet.fields import field_inference
    from stages.cues.views import image_size, walk_images
    from stages.runtime.walk import Together

    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    chosen = settings.irnet
    walk_images(__file__, params, settings.runtime, {"": read_coco(layout.WEAK["train"])["images"]},
                build=lambda device: field_inference(CLASSIFIER, IRNET, device, chosen),
                inputs=[layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt", IRNET / "weights.pt"],
                parameters=[chosen.inference, chosen.network, chosen.grid], output=FIELDS,
                description="displacement and boundary", together=Together(chosen.inference.batch_size, image_size))


if __name__ == "__main__":
    run_stage(main, __doc__)

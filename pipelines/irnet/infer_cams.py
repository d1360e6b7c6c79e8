"""Infer class attention maps of the training images over scales and flips (eq. 1).

Reads data/annotations/train_weak.json (tags), data/dataset/images and models/irnet/classifier; writes data/irnet/cams,
one .npz per image: `classes` (K,) category ids of its tags, `cams` (K, h, w) float16 in 0..1 on the grid.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from stages.runtime import layout
from stages.runtime.files import read_json, write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

CAMS = layout.method_data("irnet") / "cams"


def main(params: Path) -> None:
    """One image after the other on the device."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    import numpy as np
    import torch

    from stages.cues.backbone import grid_of
    from stages.cues.classifier import class_attention_maps
    from stages.cues.train import load_classifier, to_tensor
    from stages.labels.images import read_rgb
    from stages.runtime import devices

    chosen = settings.irnet.cams
    images = read_json(layout.WEAK["train"])["images"]
    with Work(__file__, [layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt"],
              [chosen, settings.irnet.grid]) as work, torch.no_grad():
        device = devices.resolve(settings.runtime.device)
        model, category_ids = load_classifier(CLASSIFIER, device)
        folder = work.subfolder("cams")
        missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").exists()]
        for image in progress(missing, len(missing), "attention maps"):
            classes = [index for index, category in enumerate(category_ids) if category in image["tags"]]
            pixels = to_tensor(read_rgb(layout.IMAGES / image["file_name"])).to(device)
            cams, _ = class_attention_maps(model, pixels, classes, scales=chosen.scales, flip=chosen.flip,
                                           grid=grid_of(settings.irnet.grid))
            write_npz(folder / f"{layout.image_key(image)}.npz",
                      classes=np.array([category_ids[index] for index in classes], np.int64),
                      cams=cams.cpu().numpy().astype(np.float16))
        work.publish({"cams": CAMS})


if __name__ == "__main__":
    run_stage(main, __doc__)

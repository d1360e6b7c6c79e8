"""Find the confident areas of the attention maps and refine them by dense CRF (section 4.2).

Reads data/annotations/train_weak.json (images), data/irnet/cams and data/dataset/images; writes data/irnet/relations,
one .npz per image: `classes` (K,) category ids and `labels` (H, W) uint8 at the image's size: 0 background, k for
classes[k - 1], 255 for what is not confident.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.settings import IRNetSettings
from stages.labels.coco import Entry, read_coco
from stages.labels.images import read_rgb
from stages.labels.maps import upsample_cells
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.parallel import map_images
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

RELATIONS = layout.method_data("irnet") / "relations"


def relations(image: Entry, settings: IRNetSettings) -> dict[str, np.ndarray]:
    """The arrays of one image."""
    from pipelines.irnet.relations import confident_areas  # loads torch: in the worker

    stored = read_npz(CAMS / f"{layout.image_key(image)}.npz")
    cams = upsample_cells(stored["cams"], settings.grid, (image["height"], image["width"]))
    pixels = read_rgb(layout.IMAGES / image["file_name"])
    return {"classes": stored["classes"], "labels": confident_areas(pixels, cams, settings.relations)}


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    inputs = [CAMS, layout.IMAGES, layout.WEAK["train"]]
    with Work(__file__, inputs, [settings.irnet.relations, settings.irnet.grid]) as work:
        map_images(partial(relations, settings=settings.irnet), read_coco(layout.WEAK["train"])["images"],
                   work.subfolder("relations"), settings.runtime, "relations", "train")
        work.publish({"relations": RELATIONS})


if __name__ == "__main__":
    run_stage(main, __doc__)

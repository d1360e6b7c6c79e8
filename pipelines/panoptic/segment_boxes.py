"""Two masks of every box of the training images: GrabCut's, and the proposal that fits the box best (section 3.2).

Reads data/annotations/train_weak.json (boxes), data/dataset/images and data/proposals; writes data/panoptic/boxes, one
.npz per image: `grabcut` and `proposal` (N, H, ceil(W / 8)) uint8, packed along the rows, `overlap` (N,) float32 and
`width` (see `box_cues.py`). Images that are labelled in full have masks already, and empty arrays here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.panoptic.box_cues import box_cues
from pipelines.panoptic.settings import BoxCueSettings, PanopticSettings
from pipelines.panoptic.supervision import Classes, boxes_of, classes_of
from stages.labels.coco import Entry, annotations_by_image
from stages.labels.given import is_full
from stages.labels.images import read_rgb
from stages.proposals.propose import PROPOSALS
from stages.proposals.segments import read_proposals
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.parallel import map_images
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

BOXES = layout.method_data("panoptic") / "boxes"


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic.boxes
    weak = read_json(layout.WEAK["train"])
    classes, groups = classes_of(weak["categories"]), annotations_by_image(weak)
    with Work(__file__, [layout.WEAK["train"], layout.IMAGES, PROPOSALS], chosen) as work:
        images = [{**image, "given": groups[image["id"]]} for image in weak["images"]]
        map_images(partial(of_image, classes=classes, settings=chosen), images, work.subfolder("boxes"),
                   settings.runtime, "masks of boxes", "train")
        work.publish({"boxes": BOXES})


def of_image(image: Entry, classes: Classes, settings: BoxCueSettings) -> dict[str, np.ndarray]:
    """The arrays of one image, whose annotations are its ``given``."""
    boxes = boxes_of(image, image["given"], classes)
    if is_full(image):
        empty = np.zeros((0, image["height"], -(-image["width"] // 8)), np.uint8)
        return {"grabcut": empty, "proposal": empty, "overlap": np.zeros(0, np.float32),
                "width": np.array(image["width"], np.int64)}
    pixels = read_rgb(layout.IMAGES / image["file_name"]) if len(boxes) else np.zeros(
        (image["height"], image["width"], 3), np.uint8)
    return box_cues(pixels, boxes, read_proposals(PROPOSALS, image), settings)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Join the cues of boxes and of stuff to the first approximate truth of the training images (sections 3.2 and 3.3).

Reads data/annotations/train_weak.json, data/panoptic/boxes and data/panoptic/stuff; writes data/panoptic/cues: folders
of PNGs of category ids, 0 background, 255 undecided: `labels`, the first approximate truth, with its instances in
`labels/panoptic.json` and `labels/panoptic` (COCO panoptic; undecided pixels and instances are void); `agreement`,
`grabcut`, `proposal` and `box`, the things by these sources alone; and `stuff`. Images that are labelled in full have
their own labels in all of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines.panoptic.box_cues import SOURCES
from pipelines.panoptic.cues import FIRST, close_maps, cue_maps, write_labels, write_maps
from pipelines.panoptic.infer_stuff import STUFF
from pipelines.panoptic.segment_boxes import BOXES
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import Classes, boxes_of, classes_of
from stages.labels.coco import Entry, annotations_by_image
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

CUES = layout.method_data("panoptic") / "cues"


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic
    weak = read_json(layout.WEAK["train"])
    classes, groups = classes_of(weak["categories"]), annotations_by_image(weak)
    with Work(__file__, [layout.WEAK["train"], BOXES, STUFF], [chosen.stuff.threshold, chosen.rounds.fill,
                                                                      chosen.rounds.proposal_below]) as work:
        folder = work.subfolder("cues")
        tasks = [(image, groups[image["id"]]) for image in weak["images"]
                 if not (folder / FIRST / f"{layout.image_key(image)}.png").exists()]
        parallel_map(partial(_join, folder, weak["categories"], classes, chosen), tasks, settings.runtime,
                     "joining cues", "train")
        close_maps(folder / FIRST, weak["images"], weak["categories"])
        work.publish({"cues": CUES})


def _join(folder: Path, categories: list[Entry], classes: Classes, settings: PanopticSettings,
          task: tuple[Entry, list[Entry]]) -> None:
    """Write the maps of one image, the first approximate truth last: it says that the image is done."""
    image, annotations = task
    maps, instances = cue_maps(image, annotations, categories, classes, BOXES, STUFF, settings)
    for name in (*SOURCES, "stuff"):
        write_labels(folder / name, image, maps[name], classes)
    write_maps(folder / FIRST, image, maps[FIRST], instances, boxes_of(image, annotations, classes), classes)


if __name__ == "__main__":
    run_stage(main, __doc__)

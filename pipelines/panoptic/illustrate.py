"""Draw what the chain saw in a few images of train and val, for the report.

Reads data/annotations (boxes), data/dataset/images, data/panoptic/{cues,stuff,rounds,detections.json} and the finished
labels of both splits; writes data/panoptic/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.detect import DETECTIONS
from pipelines.panoptic.drawing import Painter
from pipelines.panoptic.infer_stuff import STUFF
from pipelines.panoptic.join_cues import CUES
from pipelines.panoptic.refine import ROUNDS
from pipelines.panoptic.supervision import classes_of
from stages.evaluation.settings import ReportSettings
from stages.labels.coco import Entry, annotations_by_image
from stages.labels.panels import gallery_stage
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage

FOLDERS = {"cues": CUES, "stuff": STUFF, "rounds": ROUNDS}


def main(params: Path) -> None:
    """Draw the first images."""
    report = load_settings(params, report=ReportSettings).report
    weak = read_json(layout.WEAK["train"])
    files = {split: layout.pseudo_labels("panoptic", split) for split in layout.WEAK}
    labels = {split: annotations_by_image(read_json(path)) for split, path in files.items()}
    detections: dict[int, list[Entry]] = {}
    for result in read_json(DETECTIONS):
        detections.setdefault(result["image_id"], []).append(result)
    painter = Painter(FOLDERS, classes_of(weak["categories"]), weak["categories"], annotations_by_image(weak), labels,
                      detections)
    gallery_stage(__file__, "panoptic", painter.panels, inputs=[*FOLDERS.values(), DETECTIONS, *files.values()],
                  parameters=[], images=report.gallery_images, validation_images=report.validation_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Find boxes in the validation images, which have none given (section 3.5).

Reads models/panoptic/box_detector, the list of validation images and data/dataset/images; writes
data/panoptic/detections.json, COCO results without masks, sorted by image and score.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.train_detector import DETECTOR
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

DETECTIONS = layout.method_data("panoptic") / "detections.json"


def main(params: Path) -> None:
    """Every image on its own; then one file."""
    from stages.detector.finding import detection_stage

    settings = load_settings(params, runtime=RuntimeSettings, panoptic=PanopticSettings)
    images = sorted(read_json(layout.WEAK["val"])["images"], key=lambda image: image["id"])
    detection_stage(__file__, params, DETECTOR, {"": images}, {"": DETECTIONS},
                    predict=settings.panoptic.detector.predict, inputs=[layout.WEAK["val"]], runtime=settings.runtime)


if __name__ == "__main__":
    run_stage(main, __doc__)

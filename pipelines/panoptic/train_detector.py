"""Train a detector on the given boxes alone: what stands for them where none are given (section 3.5).

Reads data/annotations/train_weak.json (boxes) and data/dataset/images; leaves models/panoptic/box_detector: model.pth,
settings.json (how it was made, and the categories) and curves. It has no mask head; the engine is `detector.engine`.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.settings import PanopticSettings, box_detector
from stages.detector.data import read_boxes
from stages.detector.learning import training_stage
from stages.detector.settings import DetectorSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

DETECTOR = layout.method_models("panoptic") / "box_detector"


def main(params: Path) -> None:
    """Read the boxes and train."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, detector=DetectorSettings,
                             panoptic=PanopticSettings)
    chosen = box_detector(settings.panoptic.detector, settings.detector)
    path = layout.WEAK["train"]
    training_stage(__file__, params, read_boxes(path, layout.IMAGES, chosen.train), chosen,
                   inputs=[path, layout.IMAGES], seed=settings.seed, runtime=settings.runtime, output=DETECTOR,
                   section="panoptic.detector")


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Rounds of refinement: train the semantic network, and let its output be the next approximate truth (section 3.4).

Reads data/annotations/train_weak.json, data/dataset/images, data/panoptic/cues (the first labels) and
data/panoptic/boxes; writes data/panoptic/rounds/<n>: label maps (PNGs of category ids, 0 background, 255 undecided) and
beside them panoptic.json and panoptic/, which box a pixel belongs to (COCO panoptic; what is undecided is void); 0 are
those of the cues, n those that n trainings gave. And models/panoptic/segmenter: the last network, with the curves of
all rounds.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.join_cues import CUES
from pipelines.panoptic.segment_boxes import BOXES
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from stages.labels.coco import annotations_by_image
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

ROUNDS = layout.method_data("panoptic") / "rounds"
SEGMENTER = layout.method_models("panoptic") / "segmenter"


def main(params: Path) -> None:
    """All rounds, from the first that is not done."""
    from pipelines.panoptic.rounds import LABELS, NETWORK, refine

    settings = load_settings(params, seed=int, runtime=RuntimeSettings, panoptic=PanopticSettings)
    weak = read_json(layout.WEAK["train"])
    refine(__file__, params, settings.panoptic, settings.runtime, settings.seed, weak, annotations_by_image(weak),
           classes_of(weak["categories"]), CUES, BOXES, {LABELS: ROUNDS, NETWORK: SEGMENTER})


if __name__ == "__main__":
    run_stage(main, __doc__)

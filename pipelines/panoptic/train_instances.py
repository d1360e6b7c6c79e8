"""Train the instance subnetwork behind the semantic network: piecewise, or both end to end (sections 3.5 and 4.2).

Reads data/annotations/train_weak.json (boxes), data/dataset/images, data/panoptic/rounds and models/panoptic/segmenter;
writes models/panoptic/instances/: weights.pt of both networks, segmentation.json, head.json (the four scalars) and
curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.refine import ROUNDS, SEGMENTER
from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from stages.labels.coco import annotations_by_image
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

INSTANCES = layout.method_models("panoptic") / "instances"


def main(params: Path) -> None:
    """Train on the labels of the last round."""
    from pipelines.panoptic.instances import instance_training
    from stages.runtime.training import train_stage

    settings = load_settings(params, seed=int, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic.instances
    weak = read_json(layout.WEAK["train"])
    groups, classes = annotations_by_image(weak), classes_of(weak["categories"])
    maps = ROUNDS / str(settings.panoptic.rounds.rounds - (chosen.labels == "used"))
    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: instance_training(SEGMENTER, maps, weak, groups, classes, chosen),
                inputs=[layout.WEAK["train"], layout.IMAGES, maps, SEGMENTER / "weights.pt"], parameters=None,
                output=INSTANCES)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Train the multi-label classifier of fixed crops, which tells where stuff is (section 3.3, appendix B.2).

Reads data/annotations (tags per crop) and data/dataset/images; writes models/panoptic/classifier/: weights.pt,
classifier.json (categories), metrics.json (mean average precision on crops) and curves/. A data set of things alone
needs none, and skipped.json says so.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.skipping import skip
from stages.runtime.stage import run_stage

CLASSIFIER = layout.method_models("panoptic") / "classifier"
NO_STUFF = "the data set has no class of stuff"


def main(params: Path) -> None:
    """Train on the crops of the training images."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic.classifier
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    classes = classes_of(weak["train"]["categories"])
    if classes.background:
        skip(__file__, CLASSIFIER, NO_STUFF)
        return
    from pipelines.panoptic.classifier import classifier_training
    from stages.runtime.training import train_stage

    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: classifier_training(weak, chosen, classes),
                inputs=[*layout.WEAK.values(), layout.IMAGES], parameters=None, output=CLASSIFIER)


if __name__ == "__main__":
    run_stage(main, __doc__)

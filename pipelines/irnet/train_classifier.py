"""Train the multi-label classifier whose attention maps are IRNet's seeds (section 3).

Reads data/annotations/{train,val}_weak.json (tags) and data/dataset/images; writes models/irnet/classifier/:
weights.pt, classifier.json (backbone and category ids), metrics.json (mean average precision on train and val) and
curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.settings import IRNetSettings
from stages.labels.coco import read_coco
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

CLASSIFIER = layout.method_models("irnet") / "classifier"


def main(params: Path) -> None:
    """Train and measure."""
    from stages.cues.classification import classifier_training
    from stages.runtime.training import train_stage

    settings = load_settings(params, seed=int, runtime=RuntimeSettings, irnet=IRNetSettings)
    chosen = settings.irnet.classifier
    weak = {split: read_coco(path) for split, path in layout.WEAK.items()}
    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: classifier_training(weak, chosen, things_only=True),
                inputs=[*layout.WEAK.values(), layout.IMAGES], parameters=None, output=CLASSIFIER)


if __name__ == "__main__":
    run_stage(main, __doc__)

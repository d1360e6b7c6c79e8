"""Train the classifier with peak attention, whose peaks are instance cues (section 3.3).

Reads data/annotations/{train,val}_weak.json (tags) and data/dataset/images; writes models/bestie/classifier/:
weights.pt, classifier.json (category ids), metrics.json (mean average precision on train and val) and curves/. Where
the cues are annotated points, nothing is trained, and skipped.json says so.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.bestie.settings import BestieSettings
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.skipping import skip
from stages.runtime.stage import run_stage

CLASSIFIER = layout.method_models("bestie") / "classifier"


def main(params: Path) -> None:
    """Train and measure."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, bestie=BestieSettings)
    if settings.bestie.cues.source == "points":
        skip(__file__, CLASSIFIER, "bestie.cues.source is points: no classifier is needed")
        return
    from pipelines.bestie.learning import peak_classifier_training
    from stages.runtime.training import train_stage

    chosen = settings.bestie.classifier
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: peak_classifier_training(weak, chosen),
                inputs=[*layout.WEAK.values(), layout.IMAGES], parameters=None, output=CLASSIFIER)


if __name__ == "__main__":
    run_stage(main, __doc__)

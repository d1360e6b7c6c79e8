"""Train Mask R-CNN on the pseudo-labels of the method that params.yaml names.

Reads data/<method>/pseudo_labels.json and data/dataset/images; leaves models/<method>/detector: model.pth (weights),
settings.json (how they were made, and the categories) and curves (DVCLive). An interrupted run goes on from its
checkpoint. Several processes (runtime.processes) train together.
"""

from __future__ import annotations

from pathlib import Path

from stages.detector.data import read_labels
from stages.detector.learning import training_stage
from stages.detector.settings import DetectorSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Read the labels and train."""
    settings = load_settings(params, method=str, seed=int, runtime=RuntimeSettings, detector=DetectorSettings)
    path = layout.pseudo_labels(settings.method)
    labels = read_labels(path, layout.IMAGES, settings.detector.train)
    training_stage(__file__, params, labels, settings.detector, inputs=[path, layout.IMAGES], seed=settings.seed,
                   runtime=settings.runtime, output=layout.method_models(settings.method) / "detector")


if __name__ == "__main__":
    run_stage(main, __doc__)

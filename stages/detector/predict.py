"""Find instances in the validation images with the trained Mask R-CNN.

Reads models/<method>/detector and the list of validation images; writes data/<method>/predictions.json, COCO results
sorted by image and score. An interrupted run goes on with the first image that is not done.
"""

from __future__ import annotations

from pathlib import Path

from stages.detector.settings import DetectorSettings
from stages.labels import coco
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Every image on its own; then one file."""
    from stages.detector.finding import detection_stage

    settings = load_settings(params, method=str, runtime=RuntimeSettings, detector=DetectorSettings)
    images = sorted(coco.read_coco(layout.WEAK["val"])["images"], key=lambda image: image["id"])
    detection_stage(__file__, params, layout.method_models(settings.method) / "detector", {"val": images},
                    {"val": layout.predictions(settings.method)}, predict=settings.detector.predict,
                    inputs=[layout.WEAK["val"]], runtime=settings.runtime)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Draw the boxes and extreme points of a few images, for the report, which shows the masks itself.

Reads data/annotations and data/dataset/images; writes data/baseline/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.baseline.drawing import panels
from stages.cues.objects import read_images
from stages.evaluation.settings import ReportSettings
from stages.labels.panels import gallery_stage
from stages.runtime import layout
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Draw the first images."""
    report = load_settings(params, report=ReportSettings).report
    objects = {(split, image.entry["id"]): image for split, path in layout.WEAK.items()
               for image in read_images(path)[0]}
    gallery_stage(__file__, "baseline",
                  lambda image, pixels: panels(objects[image["split"], image["id"]], pixels), inputs=[],
                  parameters=None, images=report.gallery_images, validation_images=report.validation_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

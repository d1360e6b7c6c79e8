"""Draw the boxes and extreme points of a few training images, for the report, which shows the masks itself.

Reads data/annotations/train_weak.json and data/dataset/images; writes data/baseline/gallery/ (JPEG pictures and
panels.json).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.baseline.drawing import panels
from stages.cues.objects import read_images
from stages.evaluation.settings import ReportSettings
from stages.labels.images import read_rgb
from stages.labels.panels import write_panels
from stages.runtime import layout
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

GALLERY = layout.method_data("baseline") / "gallery"


def main(params: Path) -> None:
    """Draw the first images."""
    count = load_settings(params, report=ReportSettings).report.gallery_images
    images = read_images(layout.WEAK["train"])[0][:count]
    with Work(__file__, [layout.WEAK["train"], layout.IMAGES], [count]) as work:
        write_panels(work.subfolder("gallery"),
                     ((image.entry, panels(image, read_rgb(image.path))) for image in images))
        work.publish({"gallery": GALLERY})


if __name__ == "__main__":
    run_stage(main, __doc__)

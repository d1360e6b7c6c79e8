"""Draw what the chain saw in a few training images, for the report.

Reads data/annotations/train_weak.json, data/dataset/images, data/exits/points and data/exits/probabilities; writes
data/exits/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.exits.drawing import panels
from pipelines.exits.infer_masks import PROBABILITIES
from pipelines.exits.propagate import POINTS
from stages.cues.objects import read_images
from stages.evaluation.settings import ReportSettings
from stages.labels.images import read_rgb
from stages.labels.panels import write_panels
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

GALLERY = layout.method_data("exits") / "gallery"


def main(params: Path) -> None:
    """Draw the first images."""
    count = load_settings(params, report=ReportSettings).report.gallery_images
    images = read_images(layout.WEAK["train"])[0][:count]
    with Work(__file__, [POINTS, PROBABILITIES, layout.IMAGES, layout.WEAK["train"]], [count]) as work:
        write_panels(work.subfolder("gallery"), (
            (image.entry, panels(read_rgb(image.path), read_npz(POINTS / "train" / f"{image.key}.npz"),
                                 read_npz(PROBABILITIES / "train" / f"{image.key}.npz"))) for image in images))
        work.publish({"gallery": GALLERY})


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Draw what the chain saw in a few training and validation images, for the report.

Reads data/annotations, data/dataset/images, data/exits/points and data/exits/probabilities; writes data/exits/gallery/
(JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.exits.drawing import panels
from pipelines.exits.infer_masks import PROBABILITIES
from pipelines.exits.propagate import POINTS
from stages.evaluation.settings import ReportSettings
from stages.labels.coco import Entry
from stages.labels.panels import Panels, gallery_stage
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage


def draw(image: Entry, pixels: np.ndarray) -> Panels:
    """Panels of one image of either split."""
    file = Path(image["split"]) / f"{layout.image_key(image)}.npz"
    return panels(pixels, read_npz(POINTS / file), read_npz(PROBABILITIES / file))


def main(params: Path) -> None:
    """Draw the first images."""
    report = load_settings(params, report=ReportSettings).report
    gallery_stage(__file__, "exits", draw, inputs=[POINTS, PROBABILITIES], parameters=None,
                  images=report.gallery_images, validation_images=report.validation_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

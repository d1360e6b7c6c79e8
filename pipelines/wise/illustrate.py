"""Draw what the chain saw in a few images of train and val, for the report.

Reads data/annotations (images), data/dataset/images, data/proposals, data/wise/points and data/wise/maps; writes
data/wise/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines.wise.drawing import panels
from pipelines.wise.find_points import POINTS
from pipelines.wise.infer_maps import MAPS
from stages.evaluation.settings import ReportSettings
from stages.labels.panels import gallery_stage
from stages.proposals.propose import PROPOSALS
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage

FOLDERS = {"proposals": PROPOSALS, "points": POINTS, "maps": MAPS}


def main(params: Path) -> None:
    """Draw the first images."""
    report = load_settings(params, report=ReportSettings).report
    gallery_stage(__file__, "wise", partial(panels, folders=FOLDERS), inputs=list(FOLDERS.values()), parameters=[],
                  images=report.gallery_images, validation_images=report.validation_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Draw what the chain saw in a few training images, for the report.

Reads data/annotations/train_weak.json (images), data/dataset/images and the intermediates of data/irnet; writes
data/irnet/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines.irnet.drawing import panels
from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.infer_fields import FIELDS
from pipelines.irnet.mine_relations import RELATIONS
from pipelines.irnet.propagate import PROPAGATED
from pipelines.irnet.settings import IRNetSettings
from stages.evaluation.settings import ReportSettings
from stages.labels.panels import gallery_stage
from stages.runtime.settings import load_settings
from stages.runtime.stage import run_stage

FOLDERS = {"cams": CAMS, "relations": RELATIONS, "fields": FIELDS, "walked": PROPAGATED}


def main(params: Path) -> None:
    """Draw the first images."""
    settings = load_settings(params, irnet=IRNetSettings, report=ReportSettings)
    gallery_stage(__file__, "irnet", partial(panels, folders=FOLDERS, stride=settings.irnet.grid),
                  inputs=list(FOLDERS.values()), parameters=settings.irnet.grid,
                  images=settings.report.gallery_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Draw what the chain saw in a few training images, for the report.

Reads data/annotations/train_weak.json (images), data/dataset/images, data/bestie/cues, data/bestie/semantic,
data/bestie/pseudo_labels.json and models/bestie/retrained; writes data/bestie/gallery/ (JPEG pictures and panels.json).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.bestie.infer_cues import CUES
from pipelines.bestie.infer_semantic import SEMANTIC
from pipelines.bestie.retrain import RETRAINED
from pipelines.bestie.settings import BestieSettings
from stages.evaluation.settings import ReportSettings
from stages.labels.panels import gallery_stage
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Draw the first images."""
    from pipelines.bestie.drawing import Painter

    settings = load_settings(params, runtime=RuntimeSettings, bestie=BestieSettings, report=ReportSettings)
    chosen = settings.bestie
    labels = layout.pseudo_labels("bestie")
    painter = Painter(CUES, SEMANTIC, RETRAINED, labels, chosen, settings.runtime.device)
    gallery_stage(__file__, "bestie", painter.panels,
                  inputs=[CUES, SEMANTIC, RETRAINED / "weights.pt", RETRAINED / "moments.json", labels],
                  parameters=[chosen.inference, chosen.network, chosen.transfer, chosen.cues.source],
                  images=settings.report.gallery_images)


if __name__ == "__main__":
    run_stage(main, __doc__)

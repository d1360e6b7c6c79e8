"""Train the instance network on pseudo labels and on labels that it refines itself (sections 3.3 to 3.5).

Reads data/annotations/train_weak.json (images, tags or points), data/dataset/images, data/bestie/semantic and
data/bestie/cues; writes models/bestie/refiner/: weights.pt, refiner.json (category ids) and curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.bestie.infer_cues import CUES
from pipelines.bestie.infer_semantic import SEMANTIC
from pipelines.bestie.settings import BestieSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

REFINER = layout.method_models("bestie") / "refiner"


def main(params: Path) -> None:
    """Train."""
    from pipelines.bestie.learning import refiner_training
    from stages.runtime.training import train_stage

    settings = load_settings(params, seed=int, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen = settings.bestie
    train_stage(__file__, params, chosen.network, settings.runtime, settings.seed,
                lambda device: refiner_training(SEMANTIC, CUES, chosen),
                inputs=[layout.WEAK["train"], layout.IMAGES, SEMANTIC, CUES],
                parameters=[chosen.transfer, chosen.cues.source], output=REFINER)


if __name__ == "__main__":
    run_stage(main, __doc__)

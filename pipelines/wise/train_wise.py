"""Train L-Net and E-Net together on points and on proposals that contain them (section 3, eq. 1 to 4).

Reads data/annotations/train_weak.json (images, categories), data/dataset/images, data/wise/points/train and
data/proposals; writes models/wise/wise/: weights.pt and curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.wise.find_points import POINTS
from pipelines.wise.settings import WiseSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

WISE = layout.method_models("wise") / "wise"
PROPOSALS = Path("data/proposals")


def main(params: Path) -> None:
    """Train on whole images."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, wise=WiseSettings)
    from pipelines.wise.training import wise_training
    from stages.runtime.training import train_stage

    chosen = settings.wise
    cues = chosen.cues
    train_stage(__file__, params, chosen.network, settings.runtime, settings.seed,
                lambda device: wise_training(POINTS / "train", PROPOSALS, chosen),
                inputs=[layout.IMAGES, layout.WEAK["train"], POINTS / "train", PROPOSALS],
                parameters=[cues.objectness, cues.background, cues.best, cues.least], output=WISE)


if __name__ == "__main__":
    run_stage(main, __doc__)

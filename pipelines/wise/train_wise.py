"""Train L-Net and E-Net together on points and on proposals that contain them (section 3, eq. 1 to 4).

Reads data/annotations/train_weak.json (images, categories), data/dataset/images, data/wise/points/train and
data/proposals; writes models/wise/wise/: weights.pt and curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.wise.find_points import POINTS
from pipelines.wise.settings import WiseSettings
from stages.proposals.propose import PROPOSALS
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

WISE = layout.method_models("wise") / "wise"


def main(params: Path) -> None:
    """Train on whole images."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, wise=WiseSettings)
    from pipelines.wise.training import train

    train(__file__, params, POINTS / "train", PROPOSALS, settings.wise, settings.runtime, settings.seed, WISE)


if __name__ == "__main__":
    run_stage(main, __doc__)

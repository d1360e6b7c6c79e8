"""Train IRNet on the relations of pixels in confident areas (sections 4.3 to 4.5).

Reads data/annotations/train_weak.json (images), data/irnet/relations, data/dataset/images and models/irnet/classifier
(frozen backbone); writes models/irnet/irnet/: weights.pt, without the backbone and with the mean displacement over the
training images (section 4.3), metrics.json (what eq. 5 is on at most 500 of them, for the trained field and for one
of zeros) and curves/.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.irnet.mine_relations import RELATIONS
from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

IRNET = layout.method_models("irnet") / "irnet"


def main(params: Path) -> None:
    """Train, measure the displacements, subtract their mean."""
    from pipelines.irnet.learning import irnet_training
    from stages.runtime.training import train_stage

    settings = load_settings(params, seed=int, runtime=RuntimeSettings, irnet=IRNetSettings)
    train_stage(__file__, params, settings.irnet.network, settings.runtime, settings.seed,
                lambda device: irnet_training(RELATIONS, CLASSIFIER, settings.irnet, device),
                inputs=[RELATIONS, layout.IMAGES, layout.WEAK["train"], CLASSIFIER / "weights.pt"],
                parameters=settings.irnet.grid, output=IRNET)


if __name__ == "__main__":
    run_stage(main, __doc__)

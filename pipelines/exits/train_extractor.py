"""Warm up the similarity extractor with the MIL projection loss on boxes (section 3.2.1, eq. 1).

Reads data/annotations/train_weak.json and data/dataset/images; writes models/exits/extractor/ (weights.pt, curves/).
Without epochs the weights are those that it starts from.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.exits.settings import ExitsSettings
from stages.cues.objects import large_objects, read_images
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

EXTRACTOR = layout.method_models("exits") / "extractor"


def main(params: Path) -> None:
    """Train on crops of all objects that are large enough."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.training import extractor_training
    from stages.runtime.training import train_stage

    crops, chosen = settings.exits.crops, settings.exits.extractor
    objects = large_objects(read_images(layout.WEAK["train"])[0], crops.random.min_area, "exits.crops.random.min_area")
    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: extractor_training(objects, crops, chosen),
                inputs=[layout.IMAGES, layout.WEAK["train"]], parameters=[crops.side, crops.random], output=EXTRACTOR)


if __name__ == "__main__":
    run_stage(main, __doc__)

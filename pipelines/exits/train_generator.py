"""Train the pseudo label generator with point, MIL and CRF losses (section 3.2.3, eq. 6 to 10).

Reads data/annotations/train_weak.json, data/dataset/images and data/exits/points; writes models/exits/generator/
(weights.pt with the student and its EMA teacher, curves/).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.exits.propagate import POINTS
from pipelines.exits.settings import ExitsSettings
from stages.cues.objects import large_objects, read_images
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

GENERATOR = layout.method_models("exits") / "generator"


def main(params: Path) -> None:
    """Train student and teacher on crops of all objects that are large enough."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.training import generator_training
    from stages.runtime.training import train_stage

    crops, chosen, inward = settings.exits.crops, settings.exits.generator, settings.exits.propagation.inward
    guided = settings.exits.guided
    objects = large_objects(read_images(layout.WEAK["train"])[0], crops.random.min_area, "exits.crops.random.min_area")
    train_stage(__file__, params, chosen, settings.runtime, settings.seed,
                lambda device: generator_training(objects, crops, chosen, guided, POINTS / "train", inward),
                inputs=[POINTS / "train", layout.IMAGES, layout.WEAK["train"]],
                parameters=[crops.side, crops.random, inward, guided.enabled, guided.training], output=GENERATOR)


if __name__ == "__main__":
    run_stage(main, __doc__)

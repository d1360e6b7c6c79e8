"""Let the trained generator, or what is compared with it, make a mask of every object of train and val (section 3.3).

Reads data/annotations, data/dataset/images, data/exits/points and models/exits/generator; writes
data/exits/probabilities/{train,val}/, one .npz per image: ``probabilities`` (K, m, m) uint8 in 1/255 and ``windows``
(K, 4), in the order of its objects.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.exits.propagate import POINTS
from pipelines.exits.settings import ExitsSettings
from pipelines.exits.train_generator import GENERATOR
from stages.cues.objects import read_images
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

PROBABILITIES = layout.method_data("exits") / "probabilities"


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.prediction import mask_inference
    from pipelines.exits.sources import read_views
    from stages.runtime.walk import walk_stage

    crops, generator, weights = settings.exits.crops, settings.exits.generator, GENERATOR / "weights.pt"
    inference = settings.exits.inference
    walk_stage(__file__, params, settings.runtime, {split: read_images(path)[0] for split, path in layout.WEAK.items()},
               key=lambda image: image.key, load=lambda image: read_views(image, crops, inference.source),
               build=lambda device: mask_inference(weights, POINTS, settings.exits, device),
               inputs=[weights, POINTS, layout.IMAGES, *layout.WEAK.values()],
               parameters=[crops.side, crops.margin, generator.encoder, generator.mask_stride, generator.points,
                           settings.exits.guided, inference],
               output=PROBABILITIES, description="masks")


if __name__ == "__main__":
    run_stage(main, __doc__)

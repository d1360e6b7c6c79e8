"""Let the trained generator look at every object of train and val (section 3.3).

Reads data/annotations, data/dataset/images, data/exits/points and models/exits/generator; writes
data/exits/probabilities/{train,val}/, one .npz per image: ``probabilities`` (K, m, m) uint8 in 1/255 and ``windows``
(K, 4), in the order of its objects.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.exits.propagate import POINTS
from pipelines.exits.settings import ExitsSettings
from pipelines.exits.train_generator import GENERATOR
from stages.cues.objects import Crops, Image, read_crops, read_images
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

if TYPE_CHECKING:
    import torch

PROBABILITIES = layout.method_data("exits") / "probabilities"


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.network import load_generator
    from pipelines.exits.prediction import image_masks
    from stages.runtime.walk import walk_stage

    crops, generator, chosen = settings.exits.crops, settings.exits.generator, settings.exits.inference

    def build(device: torch.device) -> Callable[[str, Image, Crops], dict[str, np.ndarray]]:
        network = load_generator(GENERATOR / "weights.pt", generator.encoder, crops.side, generator.mask_stride, device,
                                 chosen.network)

        def infer(split: str, image: Image, loaded: Crops) -> dict[str, np.ndarray]:
            views, boxes, windows = loaded
            # Box-only and extreme points alone are rows of the ablation: nothing of the walk gets into them.
            retrieved = generator.points == "retrieved"
            scores = read_npz(POINTS / split / f"{image.key}.npz")["scores"] if retrieved else None
            return {"probabilities": image_masks(network, views, boxes, scores, chosen, network.mask_cells, device),
                    "windows": np.array(windows, np.int32).reshape(-1, 4)}

        return infer

    walk_stage(__file__, params, settings.runtime, {split: read_images(path)[0] for split, path in layout.WEAK.items()},
               key=lambda image: image.key, load=lambda image: read_crops(image, crops.side, crops.margin),
               build=build, inputs=[GENERATOR / "weights.pt", POINTS, layout.IMAGES, *layout.WEAK.values()],
               parameters=[crops.side, crops.margin, generator.encoder, generator.mask_stride, generator.points,
                           chosen],
               output=PROBABILITIES, description="masks")


if __name__ == "__main__":
    run_stage(main, __doc__)

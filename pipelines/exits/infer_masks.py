"""Let the trained generator look at every object of train and val (section 3.3).

Reads data/annotations, data/dataset/images and models/exits/generator; writes data/exits/probabilities/{train,val}/,
one .npz per image: ``probabilities`` (K, m, m) uint8 in 1/255 and ``windows`` (K, 4), in the order of its objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.settings import ExitsSettings
from pipelines.exits.train_generator import GENERATOR
from stages.runtime import layout
from stages.runtime.files import write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PROBABILITIES = layout.method_data("exits") / "probabilities"


def predict(network: Any, crops: Any, boxes: Any, flip: bool) -> Any:
    """Probabilities (B, m, m) of crops (B, side, side, 3) uint8 with boxes (B, 4) in their pixels."""
    import torch

    device = next(network.parameters()).device
    images = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).to(device)
    places = torch.from_numpy(boxes).to(device)
    with torch.no_grad():
        masks = network(images, places)
        if flip:
            side = images.shape[-1]
            mirrored = torch.stack([side - places[:, 2], places[:, 1], side - places[:, 0], places[:, 3]], dim=1)
            masks = (masks + network(images.flip(-1), mirrored).flip(-1)) / 2
    return masks.cpu().numpy()


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    import numpy as np

    from pipelines.exits.network import load_generator
    from pipelines.exits.objects import Pictures, fixed_crops, read_images
    from stages.runtime import devices

    chosen, crops = settings.exits.inference, settings.exits.crops
    generator = settings.exits.generator
    with Work("exits-infer_masks", [GENERATOR / "weights.pt", layout.IMAGES, *layout.WEAK.values()],
              [crops, generator.encoder, generator.mask_stride, chosen]) as work:
        network = load_generator(GENERATOR / "weights.pt", generator.encoder, crops.side, generator.mask_stride,
                                 devices.resolve(settings.runtime.device), chosen.network)
        pictures = Pictures()
        for split, path in layout.WEAK.items():
            folder = work.subfolder(f"probabilities/{split}")
            images, _ = read_images(path)
            for image in progress(images, len(images), f"masks of {split}"):
                if (folder / f"{image.key}.npz").exists():
                    continue
                views, boxes, windows = fixed_crops(image, crops, pictures)
                masks = np.zeros((len(views), network.mask_cells, network.mask_cells), np.uint8)
                for start in range(0, len(views), chosen.batch_size):
                    part = slice(start, start + chosen.batch_size)
                    masks[part] = np.rint(255 * predict(network, views[part], boxes[part], chosen.flip))
                write_npz(folder / f"{image.key}.npz", probabilities=masks,
                          windows=np.array(windows, np.int32).reshape(-1, 4))
        work.publish({"probabilities": PROBABILITIES})


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Let the trained generator look at every object of train and val (section 3.3).

Reads data/annotations, data/dataset/images, data/exits/points and models/exits/generator; writes
data/exits/probabilities/{train,val}/, one .npz per image: ``probabilities`` (K, m, m) uint8 in 1/255 and ``windows``
(K, 4), in the order of its objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.exits.propagate import POINTS
from pipelines.exits.settings import CrfSettings, ExitsSettings, InferenceSettings
from pipelines.exits.train_generator import GENERATOR
from stages.runtime import layout
from stages.runtime.files import read_npz, write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PROBABILITIES = layout.method_data("exits") / "probabilities"


def predict(network: Any, crops: Any, boxes: Any, scores: Any = None, flip: bool = False) -> Any:
    """Probabilities of a batch of crops.

    Args:
        network: a generator.
        crops: (B, side, side, 3) uint8.
        boxes: (B, 4) float32 in the crops' pixels.
        scores: (B, N, N) propagation scores, for a guided network.
        flip: average with the mirrored crops.

    Returns:
        (B, m, m) tensor.
    """
    import torch

    device = next(network.parameters()).device
    images = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).to(device)
    places = torch.from_numpy(boxes).to(device)
    guide = None if scores is None else torch.from_numpy(scores).float().to(device)
    with torch.no_grad():
        masks = network(images, places, guide)
        if flip:
            side = images.shape[-1]
            mirrored = torch.stack([side - places[:, 2], places[:, 1], side - places[:, 0], places[:, 3]], dim=1)
            masks = (masks + network(images.flip(-1), mirrored, None if guide is None else guide.flip(-1)).flip(-1)) / 2
    return masks


def whole_prediction(network: Any, crops: Any, boxes: Any, scores: Any, settings: InferenceSettings) -> Any:
    """What a network and the propagation scores say together.

    Args:
        network, crops, boxes: as for ``predict``.
        scores: (B, N, N) propagation scores, or none.
        settings: the shares of the predictions with and without the scores, and of the scores themselves.

    Returns:
        (B, m, m) tensor of probabilities.
    """
    import torch

    from pipelines.exits.train_generator import with_scores

    unguided = settings.unguided if scores is not None and network.guided else 1.0
    masks: Any = 0.0
    for share, guide in ((1 - unguided, scores), (unguided, None)):
        if share > 0:
            masks = masks + share * predict(network, crops, boxes, guide, settings.flip)
    if scores is not None and settings.scores > 0:
        masks = with_scores(masks, torch.from_numpy(scores).float().to(masks.device), settings.scores)
    return masks


def refine(masks: Any, crops: Any, boxes: Any, settings: CrfSettings) -> Any:
    """Mean-field of probabilities (B, m, m) at the resolution of their crops (B, side, side, 3): (B, side, side)."""
    import numpy as np
    import torch

    from pipelines.exits.train_generator import refined
    from stages.cues.crops import cells_in_box

    side = crops.shape[1]
    images = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).to(masks.device)
    inside = torch.from_numpy(np.stack([cells_in_box(box, side, side) for box in boxes])).to(masks)
    large = torch.nn.functional.interpolate(masks[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return refined(large.clamp(0.02, 0.98), images, inside, settings)


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    import numpy as np

    from pipelines.exits.network import load_generator
    from pipelines.exits.objects import Pictures, fixed_crops, read_images
    from stages.runtime import devices

    chosen, crops = settings.exits.inference, settings.exits.crops
    generator = settings.exits.generator
    with Work(__file__, [GENERATOR / "weights.pt", POINTS, layout.IMAGES, *layout.WEAK.values()],
              [crops, generator.encoder, generator.mask_stride, generator.points, chosen]) as work:
        network = load_generator(GENERATOR / "weights.pt", generator.encoder, crops.side, generator.mask_stride,
                                 devices.resolve(settings.runtime.device), chosen.network)
        cells = crops.side if chosen.crf.iterations else network.mask_cells
        pictures = Pictures()
        for split, path in layout.WEAK.items():
            folder = work.subfolder(f"probabilities/{split}")
            images, _ = read_images(path)
            for image in progress(images, len(images), f"masks of {split}"):
                if (folder / f"{image.key}.npz").exists():
                    continue
                views, boxes, windows = fixed_crops(image, crops, pictures)
                # Box-only and extreme points alone are rows of the ablation: nothing of the walk gets into them.
                retrieved = generator.points == "retrieved"
                scores = read_npz(POINTS / split / f"{image.key}.npz")["scores"] if retrieved else None
                found = np.zeros((len(views), cells, cells), np.uint8)
                for start in range(0, len(views), chosen.batch_size):
                    part = slice(start, start + chosen.batch_size)
                    masks = whole_prediction(network, views[part], boxes[part],
                                             None if scores is None else scores[part], chosen)
                    if chosen.crf.iterations:
                        masks = refine(masks, views[part], boxes[part], chosen.crf)
                    found[part] = np.rint(255 * masks.cpu().numpy())
                write_npz(folder / f"{image.key}.npz", probabilities=found,
                          windows=np.array(windows, np.int32).reshape(-1, 4))
        work.publish({"probabilities": PROBABILITIES})


if __name__ == "__main__":
    run_stage(main, __doc__)

"""One point per object: the annotated ones, or peaks of a classifier of tags (table 1, "PRM").

Reads data/annotations, data/dataset/images and models/wise/peaks; writes data/wise/points/{train,val}/, one JSON per
image: ``points`` [x, y], ``category_ids``, ``weak_ids`` (-1 for peaks) and ``scores`` (1, or a peak's response).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.wise.settings import WiseSettings
from pipelines.wise.train_peaks import PEAKS
from stages.cues.objects import Image, read_images
from stages.labels.coco import Entry
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

if TYPE_CHECKING:
    import torch

POINTS = layout.method_data("wise") / "points"


def tagged_images(path: Path) -> list[Image]:
    """The images of weak annotations, of which only the tags count."""
    return [Image(layout.image_key(entry), entry, ()) for entry in read_json(path)["images"]]


def main(params: Path) -> None:
    """Image by image."""
    settings = load_settings(params, runtime=RuntimeSettings, wise=WiseSettings)
    from pipelines.wise.given import annotated
    from stages.cues.views import read_tensor
    from stages.runtime.walk import walk_stage

    cues, peaks = settings.wise.cues, settings.wise.peaks
    tags = cues.source == "peaks"
    images = {split: tagged_images(path) if tags else read_images(path, ("point",))[0]
              for split, path in layout.WEAK.items()}

    def build(device: torch.device) -> Callable[..., Entry]:
        if not tags:
            return lambda split, image, loaded: annotated(image.objects)
        from pipelines.wise.peaks import peak_inference

        infer = peak_inference(PEAKS / "weights.pt", read_json(layout.WEAK["train"])["categories"], peaks, cues.peak,
                               device)
        return lambda split, image, loaded: infer(split, image.entry, loaded)

    walk_stage(__file__, params, settings.runtime, images, key=lambda image: image.key,
               load=lambda image: read_tensor(image.path) if tags else None, build=build,
               inputs=[*layout.WEAK.values(), *([layout.IMAGES, PEAKS / "weights.pt"] if tags else [])],
               parameters=[cues.source, cues.peak, peaks if tags else None], output=POINTS, description="points",
               suffix=".json")


if __name__ == "__main__":
    run_stage(main, __doc__)

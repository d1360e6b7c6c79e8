"""Train a semantic segmentation network on weak semantic maps (sections 3.3 and 4.2).

Reads data/annotations/train_weak.json (images), data/dataset/images and the folder `bestie.maps.folder`, one PNG of
category ids per training image; writes models/bestie/segmenter/: weights.pt, segmentation.json and curves/. Where the
maps are used as they are, nothing is trained, and skipped.json says so.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.bestie.settings import BestieSettings
from stages.labels.coco import category_indices
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.skipping import skip
from stages.runtime.stage import run_stage

SEGMENTER = layout.method_models("bestie") / "segmenter"


def main(params: Path) -> None:
    """Train on the maps of the folder."""
    settings = load_settings(params, seed=int, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen = settings.bestie.maps
    if chosen.source == "folder":
        skip(__file__, SEGMENTER, "bestie.maps.source is folder: its maps are used as they are")
        return
    from stages.runtime.training import train_stage
    from stages.segmentation.training import segmentation_training

    weak, folder = read_json(layout.WEAK["train"]), Path(chosen.folder)
    category_ids = sorted(category_indices(weak["categories"], things_only=True))
    train_stage(__file__, params, chosen.segmenter, settings.runtime, settings.seed,
                lambda device: segmentation_training(chosen.segmenter, weak["images"], layout.IMAGES, folder,
                                                     category_ids),
                inputs=[layout.WEAK["train"], layout.IMAGES, folder], parameters=None, output=SEGMENTER)


if __name__ == "__main__":
    run_stage(main, __doc__)

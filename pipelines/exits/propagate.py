"""Propagate extreme and background points over each object's crop and retrieve pseudo points (section 3.2.2).

Reads data/annotations, data/dataset/images and models/exits/extractor; writes data/exits/points/{train,val}/ (one .npz
per image, see stages/labels/points.py) and data/exits/points/summary.json. Those of val are never trained on: they are
for a generator that is shown the scores. The paper propagates anew in every training crop; here it is done once per
object, in the crop of inference, and the points are carried into the crops of training: that costs one pass instead of
one per epoch, and lets a changed threshold be tried without the extractor.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.exits.settings import ExitsSettings
from pipelines.exits.train_extractor import EXTRACTOR
from stages.cues.objects import read_crops, read_images
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

POINTS = layout.method_data("exits") / "points"
SUMMARY = POINTS / "summary.json"


def main(params: Path) -> None:
    """Image by image; the objects of an image in batches."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    from pipelines.exits.retrieval import point_inference, summary
    from stages.runtime.walk import walk_stage

    chosen, weights = settings.exits, EXTRACTOR / "weights.pt"
    crops, network = chosen.crops, chosen.extractor

    def finish(folder: Path) -> dict[str, Path]:
        write_json(folder / SUMMARY.name, {split: summary(folder / split) for split in layout.WEAK}, indent=2)
        return {}

    walk_stage(__file__, params, settings.runtime, {split: read_images(path)[0] for split, path in layout.WEAK.items()},
               key=lambda image: image.key, load=lambda image: read_crops(image, crops.side, crops.margin),
               build=lambda device: point_inference(weights, chosen, device),
               inputs=[weights, layout.IMAGES, *layout.WEAK.values()],
               parameters=[crops.side, crops.margin, network.encoder, network.mask_stride, chosen.propagation],
               output=POINTS, description="points", finish=finish)


if __name__ == "__main__":
    run_stage(main, __doc__)

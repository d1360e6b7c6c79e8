"""Instance cues of the training images: peaks of the classifier's attention maps, or annotated points (section 3.3).

Reads data/annotations/train_weak.json (tags, or points), data/dataset/images and models/bestie/classifier; writes
data/bestie/cues, one .npz per image: `cues` (n, 3) int64 rows (category id, y, x); `scores` (n,) float32, the smoothed
map's value at a peak, 1 for points; with peaks `attention` (h, w) float16, the highest of the maps at a quarter of the
image's size, for the report.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.train_classifier import CLASSIFIER
from stages.labels.coco import annotations_by_image, category_indices
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

CUES = layout.method_data("bestie") / "cues"


def main(params: Path) -> None:
    """One image after the other."""
    from pipelines.bestie.extraction import peak_cues, point_cues
    from stages.cues.views import walk_images

    settings = load_settings(params, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen = settings.bestie
    weak = read_json(layout.WEAK["train"])
    walk = partial(walk_images, __file__, params, settings.runtime, {"": weak["images"]}, output=CUES,
                   description="instance cues")
    if chosen.cues.source == "peaks":
        walk(build=lambda device: peak_cues(CLASSIFIER, chosen, device),
             inputs=[layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt"],
             parameters=[chosen.cues, chosen.classifier])
        return
    groups = annotations_by_image(weak)
    category_ids = sorted(category_indices(weak["categories"], things_only=True))
    if not any("point" in annotation for annotation in weak["annotations"]):
        raise UserError(f"{layout.WEAK['train']}: no object has a point, and bestie.cues.source is points; annotate "
                        f"with points (annotations.kinds: [tags, points]), or set it to peaks")
    walk(load=lambda image: None, build=lambda device: lambda folder, image, loaded: point_cues(
        groups[image["id"]], (image["height"], image["width"]), category_ids),
        inputs=[layout.WEAK["train"]], parameters="points")


if __name__ == "__main__":
    run_stage(main, __doc__)

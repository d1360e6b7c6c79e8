"""Where the training images show stuff: Grad-CAM of the classifier, crop by crop (section 3.3).

Reads data/annotations/train_weak.json (tags per crop), data/dataset/images and models/panoptic/classifier; writes
data/panoptic/stuff, one .npz per image: `channels` (K,) int64, `maps` (K, ceil(H / grid), ceil(W / grid)) float16
and `stride` (see `classifier.stuff_inference`). A data set of things alone gets skipped.json.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.panoptic.settings import PanopticSettings
from pipelines.panoptic.supervision import classes_of
from pipelines.panoptic.train_classifier import CLASSIFIER, NO_STUFF
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.skipping import skip
from stages.runtime.stage import run_stage

STUFF = layout.method_data("panoptic") / "stuff"


def main(params: Path) -> None:
    """One image after the other."""
    settings = load_settings(params, runtime=RuntimeSettings, panoptic=PanopticSettings)
    chosen = settings.panoptic
    weak = read_json(layout.WEAK["train"])
    classes = classes_of(weak["categories"])
    if classes.background:
        skip(__file__, STUFF, NO_STUFF)
        return
    from pipelines.panoptic.classifier import stuff_inference
    from stages.cues.views import walk_images

    walk_images(__file__, params, settings.runtime, {"": weak["images"]},
                build=lambda device: stuff_inference(CLASSIFIER, chosen.classifier, chosen.stuff, classes, device),
                inputs=[layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt"],
                parameters=[chosen.classifier, chosen.stuff.grid], output=STUFF, description="cues of stuff")


if __name__ == "__main__":
    run_stage(main, __doc__)

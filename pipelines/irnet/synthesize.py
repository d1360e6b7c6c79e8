"""Choose the best class and instance at every pixel and write the labels (section 5.2).

Reads data/annotations/train_weak.json, data/irnet/cams, data/irnet/propagated and
models/irnet/classifier/metrics.json; writes data/irnet/pseudo_labels.json (COCO instances), data/irnet/semantic/ (the
reduced version: one PNG per image, value = category id, 0 background) and data/irnet/figures.json, the method's own
numbers: `classifier_mAP`, mean average precision of the classifier's tags on val [%]; `instances_per_image`; and
`fragments`, the share of the instances that are too small to train on [%].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.masks import image_labels
from pipelines.irnet.propagate import PROPAGATED
from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from stages.labels import rle
from stages.labels.coco import Entry, image_entries, write_instances
from stages.labels.figures import write_figures
from stages.runtime import layout
from stages.runtime.files import atomic_path, read_json, read_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

SEMANTIC = layout.method_data("irnet") / "semantic"
FIGURES = layout.method_data("irnet") / "figures.json"
CLASSIFIER_METRICS = CLASSIFIER / "metrics.json"


def labels(image: Entry, folder: Path, settings: IRNetSettings, wide: bool) -> list[Entry]:
    """Labels of one image as annotations; its semantic PNG, of 16 bits if ``wide``, is written on the way."""
    key = layout.image_key(image)
    instances, semantic = image_labels(read_npz(CAMS / f"{key}.npz")["cams"], read_npz(PROPAGATED / f"{key}.npz"),
                                       settings.grid, (image["height"], image["width"]), settings.synthesis)
    with atomic_path(folder / f"{key}.png") as temporary:
        cv2.imwrite(str(temporary), semantic.astype(np.uint16 if wide else np.uint8))
    return [{"image_id": image["id"], "category_id": category, "segmentation": rle.encode(mask), "score": score}
            for category, mask, score in instances]


def figures(annotations: Sequence[Entry], images: int) -> dict[str, float]:
    """The method's own numbers, see above; without tags on val there is no `classifier_mAP`."""
    metrics = read_json(CLASSIFIER_METRICS)["val"]
    found = {"classifier_mAP": float(metrics["map"])} if "map" in metrics else {}
    fragments = sum(annotation["score"] == 0 for annotation in annotations)
    return found | {"instances_per_image": round(len(annotations) / max(images, 1), 3),
                    "fragments": round(100 * fragments / max(len(annotations), 1), 2)}


def main(params: Path) -> None:
    """Every image on its own; then one file."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    weak = read_json(layout.WEAK["train"])
    # 255 means "undecided" in an 8-bit label picture, so more categories than 254 take 16 bits.
    wide = max(category["id"] for category in weak["categories"]) > 254
    with Work(__file__, [CAMS, PROPAGATED, layout.WEAK["train"], CLASSIFIER_METRICS],
              [settings.irnet.synthesis, settings.irnet.grid]) as work:
        folder = work.subfolder("semantic")
        groups = parallel_map(partial(labels, folder=folder, settings=settings.irnet, wide=wide), weak["images"],
                              settings.runtime, "labels")
        annotations = [annotation for group in groups for annotation in group]
        write_instances(work.path("pseudo_labels.json"), image_entries(weak["images"]), weak["categories"],
                        annotations)
        write_figures(work.path("figures.json"), figures(annotations, len(weak["images"])), measured=[folder])
        work.publish({"semantic": SEMANTIC, "figures.json": FIGURES,
                      "pseudo_labels.json": layout.pseudo_labels("irnet")})


if __name__ == "__main__":
    run_stage(main, __doc__)

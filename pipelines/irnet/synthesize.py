"""Choose the best class and instance at every pixel and write the labels (section 5.2).

Reads data/annotations/train_weak.json, data/irnet/cams, data/irnet/propagated and metrics.json of the two networks;
writes data/irnet/pseudo_labels.json (COCO instances), data/irnet/semantic/ (the reduced version: one PNG per image,
value = category id, 0 background) and data/irnet/figures.json, the method's own numbers: `classifier_mAP`, mean average
precision of the classifier's tags on val [%]; `instances_per_image`; `fragments`, the share of the instances that are
too small to train on [%]; and, in the detail, `displacement_error` and `displacement_error_of_zeros`, eq. 5 of the
fields of at most 500 training images and of fields of zeros [cells], and the first one's parts `displacement_error_dy`
and `displacement_error_dx`. Training images that are labelled in full have their given masks in labels and maps; the
figures are of what IRNet makes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipelines.irnet.infer_cams import CAMS
from pipelines.irnet.masks import image_labels
from pipelines.irnet.propagate import PROPAGATED
from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from pipelines.irnet.train_irnet import IRNET
from stages.labels import rle
from stages.labels.coco import Entry, image_entries, read_coco, write_instances
from stages.labels.figures import write_figures
from stages.labels.given import given_map, given_rows, with_given_masks
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work
from stages.segmentation.labels import id_map, write_semantic_png

SEMANTIC = layout.method_data("irnet") / "semantic"
FIGURES = layout.method_data("irnet") / "figures.json"
CLASSIFIER_METRICS = CLASSIFIER / "metrics.json"
NETWORK_METRICS = IRNET / "metrics.json"


def labels(job: tuple[Entry, list[Entry] | None], folder: Path, settings: IRNetSettings,
           categories: Sequence[Entry]) -> list[Entry]:
    """Labels of one image as annotations; its semantic PNG is written on the way.

    Args:
        job: the image and, where it is labelled in full, its given annotations: then the PNG is drawn from those.
        folder: of the PNGs.
        settings: of the method.
        categories: of the data set.
    """
    image, given = job
    key = layout.image_key(image)
    instances, semantic = image_labels(read_npz(CAMS / f"{key}.npz")["cams"], read_npz(PROPAGATED / f"{key}.npz"),
                                       settings.grid, (image["height"], image["width"]), settings.synthesis)
    if given is not None:
        semantic = given_map(image, given, categories)
    write_semantic_png(folder / f"{key}.png", id_map(semantic, [category["id"] for category in categories]))
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
    weak = read_coco(layout.WEAK["train"])
    given = given_rows(weak)
    with Work(__file__, [CAMS, PROPAGATED, layout.WEAK["train"], CLASSIFIER_METRICS, NETWORK_METRICS],
              [settings.irnet.synthesis, settings.irnet.grid]) as work:
        folder = work.subfolder("semantic")
        groups = parallel_map(partial(labels, folder=folder, settings=settings.irnet, categories=weak["categories"]),
                              [(image, given.get(image["id"])) for image in weak["images"]], settings.runtime, "labels",
                              "train")
        annotations = [annotation for group in groups for annotation in group]
        write_instances(work.path("pseudo_labels.json"), image_entries(weak["images"]), weak["categories"],
                        with_given_masks(annotations, weak))
        write_figures(work.path("figures.json"), figures(annotations, len(weak["images"])), measured=[folder],
                      details=read_json(NETWORK_METRICS))
        work.publish({"semantic": SEMANTIC, "figures.json": FIGURES,
                      "pseudo_labels.json": layout.pseudo_labels("irnet")})


if __name__ == "__main__":
    run_stage(main, __doc__)

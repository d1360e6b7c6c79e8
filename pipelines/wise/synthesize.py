"""Make labels of points, groups and proposals (section 3.3): of train, and of val as WISE alone sees it.

Reads data/annotations, data/wise/points, data/wise/maps and data/proposals; writes data/wise/pseudo_labels.json (train,
from the points of data/wise/points), data/wise/pseudo_labels_val.json (val, from L-Net's points or those, as
wise.synthesis.val_points says) and data/wise/pseudo_labels_val_points.json (val, from those in any case), whose labels
carry the ``point`` [x, y] that they started from; and data/wise/figures.json: who made the proposals, ``count_error``,
the mean absolute difference of L-Net's and the given number of objects per image of val, and of train ``replaced``, the
share of labels that are proposals [%], ``no_proposal``, the points that no proposal of enough objectness contains, and
``no_points``, the images without a point. Training
images that are labelled in full have their given masks in the end. data/wise/semantic/ holds the labels of train as
maps of their classes, smaller ones on top: one PNG of category ids per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipelines.wise.find_points import POINTS
from pipelines.wise.given import read_points
from pipelines.wise.infer_maps import MAPS
from pipelines.wise.masks import count_error, image_labels, label_details
from pipelines.wise.settings import WiseSettings
from stages.labels.coco import Entry, annotations_by_image, image_entries, write_instances
from stages.labels.figures import write_figures
from stages.labels.given import given_map, with_given_masks
from stages.proposals.propose import PROPOSALS
from stages.proposals.provider import used_proposals
from stages.runtime import layout
from stages.runtime.files import read_json, read_npz
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work
from stages.segmentation.labels import id_map, write_semantic_png

SEMANTIC = layout.method_data("wise") / "semantic"
VAL_POINTS = layout.pseudo_labels("wise", "val_points")
FIGURES = layout.method_data("wise") / "figures.json"


def lnet_count_error(images: list[Entry]) -> float:
    """L-Net against the given points of val."""
    found = [len(read_npz(MAPS / "val" / f"{layout.image_key(image)}.npz")["lnet_yx"]) for image in images]
    return count_error(found, [len(read_points(POINTS / "val", image).xy) for image in images])


def write_map(image: Entry, rows: Sequence[Entry], folder: Path, categories: Sequence[Entry]) -> None:
    """The labels of one image as a semantic PNG."""
    write_semantic_png(folder / f"{layout.image_key(image)}.png",
                       id_map(given_map(image, rows, categories), [category["id"] for category in categories]))


def main(params: Path) -> None:
    """Every image on its own; then one file for each part."""
    settings = load_settings(params, runtime=RuntimeSettings, wise=WiseSettings)
    chosen = settings.wise
    labels = {layout.pseudo_labels("wise"): ("train", "given"),
              layout.pseudo_labels("wise", "val"): ("val", chosen.synthesis.val_points), VAL_POINTS: ("val", "given")}
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    with Work(__file__, [*layout.WEAK.values(), POINTS, MAPS, PROPOSALS],
              [chosen.cues.objectness, chosen.synthesis]) as work:
        rows: dict[Path, list[Entry]] = {}
        for path, (split, source) in labels.items():
            images = weak[split]["images"]
            found = parallel_map(partial(image_labels, maps=MAPS / split, points=POINTS / split,
                                         proposals=PROPOSALS, source=source, settings=chosen),
                                 images, settings.runtime, path.stem, split)
            rows[path] = [row for part in found for row in part]
            given = with_given_masks(rows[path], weak[split]) if split == "train" else rows[path]
            write_instances(work.path(path.name), image_entries(images), weak[split]["categories"], given)
        folder = work.subfolder(SEMANTIC.name)
        groups = annotations_by_image(read_json(work.path(layout.pseudo_labels("wise").name)))
        for image in weak["train"]["images"]:
            write_map(image, groups[image["id"]], folder, weak["train"]["categories"])
        work.publish({SEMANTIC.name: SEMANTIC, **{path.name: path for path in labels}})
    val = weak["val"]["images"]
    write_figures(FIGURES, {"count_error": round(lnet_count_error(val), 3)}, measured=[*[*labels][1:], SEMANTIC],
                  details=label_details(rows[layout.pseudo_labels("wise")], weak["train"]["images"]),
                  proposals=used_proposals(PROPOSALS, val))


if __name__ == "__main__":
    run_stage(main, __doc__)

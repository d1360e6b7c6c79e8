"""Make a mask of every object of train and val from its box or extreme points alone.

Reads data/annotations and data/dataset/images; writes data/baseline/pseudo_labels.json, pseudo_labels_val.json and
figures.json. ``weak_id`` is the id of the object's weak annotation. ``box_filled`` is the share of a training
object's box that its mask fills, the mean over objects [%]. Training images that are labelled in full have their given
masks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipelines.baseline.masks import image_labels, shares_of_boxes
from pipelines.baseline.settings import BaselineSettings
from stages.cues.objects import read_images
from stages.labels.coco import image_entries, read_coco, write_instances
from stages.labels.figures import write_figures
from stages.labels.given import with_given_masks
from stages.runtime import layout
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

LABELS = {"train": layout.pseudo_labels("baseline"),
          "val": layout.pseudo_labels("baseline", "val")}
FIGURES = layout.method_data("baseline") / "figures.json"


def main(params: Path) -> None:
    """Every image on its own; then one file for each part."""
    settings = load_settings(params, runtime=RuntimeSettings, baseline=BaselineSettings)
    chosen = settings.baseline
    filled: list[float] = []
    with Work(__file__, [layout.IMAGES, *layout.WEAK.values()], chosen) as work:
        for split, path in LABELS.items():
            images, categories = read_images(layout.WEAK[split])
            found = parallel_map(partial(image_labels, settings=chosen), images, settings.runtime,
                                 f"labels of {split}", split)
            made = [row for rows in found for row in rows]
            if split == "train":
                made = with_given_masks(made, read_coco(layout.WEAK[split]))
            write_instances(work.path(path.name), image_entries(image.entry for image in images), categories, made)
            if split == "train":
                filled = [share for image, rows in zip(images, found, strict=True)
                          for share in shares_of_boxes(image, rows)]
        figures = {"box_filled": round(100 * float(np.mean(filled)), 3)} if filled else {}
        work.publish({path.name: path for path in LABELS.values()})
        write_figures(FIGURES, figures, measured=[LABELS["val"]])


if __name__ == "__main__":
    run_stage(main, __doc__)

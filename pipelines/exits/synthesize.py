"""Paste every object's mask into its image and write the labels (section 3.3).

Reads data/exits/probabilities, data/exits/points and data/annotations; writes data/exits/pseudo_labels.json and, by the
same generator, which never saw them, data/exits/pseudo_labels_val.json, and data/exits/figures.json. ``weak_id`` is the
id of the object's weak annotation. The figures, of the training images and in percent: ``pseudo_foreground`` and
``pseudo_background``, the points inside boxes that were retrieved as either, and ``certainty``, the mean score.
Training images that are labelled in full have their given masks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines.exits.infer_masks import PROBABILITIES
from pipelines.exits.masks import image_labels, label_figures
from pipelines.exits.propagate import POINTS, SUMMARY
from pipelines.exits.settings import ExitsSettings
from stages.cues.objects import read_images
from stages.labels.coco import image_entries, read_coco, write_instances
from stages.labels.figures import write_figures
from stages.labels.given import with_given_masks
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

LABELS = {"train": layout.pseudo_labels("exits"), "val": layout.pseudo_labels("exits", "val")}
FIGURES = layout.method_data("exits") / "figures.json"


def main(params: Path) -> None:
    """Every image on its own; then one file for each part."""
    settings = load_settings(params, runtime=RuntimeSettings, exits=ExitsSettings)
    chosen = settings.exits.synthesis
    with Work(__file__, [PROBABILITIES, POINTS, *layout.WEAK.values()], chosen) as work:
        scores: list[float] = []
        for split, path in LABELS.items():
            images, categories = read_images(layout.WEAK[split])
            found = parallel_map(partial(image_labels, folder=PROBABILITIES / split, settings=chosen), images,
                                 settings.runtime, f"labels of {split}", split)
            rows = [row for part in found for row in part]
            if split == "train":
                scores = [row["score"] for row in rows]
                rows = with_given_masks(rows, read_coco(layout.WEAK[split]))
            write_instances(work.path(path.name), image_entries(image.entry for image in images), categories, rows)
        work.publish({path.name: path for path in LABELS.values()})
        write_figures(FIGURES, label_figures(read_json(SUMMARY)["train"], scores), measured=[POINTS, LABELS["val"]])


if __name__ == "__main__":
    run_stage(main, __doc__)

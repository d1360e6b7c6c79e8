"""Take the true masks of the training images as labels.

Reads data/dataset/train_truth.json; writes data/masks/pseudo_labels.json, a data/masks/figures.json without figures and
an empty data/masks/gallery. Together with stages that measure, this is the only one that may read a truth file.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import category_indices, image_entries, read_coco, write_instances
from stages.labels.figures import write_figures
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.runtime.stage import run_stage
from stages.runtime.work import Work


def main(params: Path) -> None:
    """Copy the things, crowds included; every object gets score 1."""
    truth = read_coco(layout.TRUTH["train"])
    if truth.get("info", {}).get("truth") != "masks":
        reason = truth.get("info", {}).get("reason", "it has no masks")
        raise UserError(f"method: masks needs true masks, and the data set has none: {reason}")
    things = set(category_indices(truth["categories"], things_only=True))
    with Work(__file__, [layout.TRUTH["train"]], []) as work:
        annotations = [{"image_id": item["image_id"], "category_id": item["category_id"],
                        "segmentation": item["segmentation"], "score": 1.0, "iscrowd": item.get("iscrowd", 0)}
                       for item in truth["annotations"] if item["category_id"] in things]
        write_instances(work.path("pseudo_labels.json"), image_entries(truth["images"]), truth["categories"],
                        annotations)
        write_figures(work.path("figures.json"), {})
        write_json(work.subfolder("gallery") / "panels.json", [])
        folder = layout.method_data("masks")
        work.publish({name: folder / name for name in ("pseudo_labels.json", "figures.json", "gallery")})


if __name__ == "__main__":
    run_stage(main, __doc__)

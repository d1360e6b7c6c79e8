"""Truth and labels as the stages of this package read them, checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.evaluation.records import Record
from stages.labels import rle
from stages.labels.coco import is_thing, read_coco
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import read_json


@dataclass(frozen=True)
class Truth:
    """One ``*_truth.json``.

    Attributes:
        path: where it was read.
        images: COCO image records in order of id.
        categories: COCO categories with ``isthing`` in order of id.
        annotations: COCO annotations, things and stuff.
        reason: why there is nothing to measure; empty when there is truth.
    """

    path: Path
    images: list[Record]
    categories: list[Record]
    annotations: list[Record]
    reason: str

    @property
    def things(self) -> list[int]:
        """Ids of the categories that are things."""
        return [item["id"] for item in self.categories if is_thing(item)]

    @property
    def stuff(self) -> list[int]:
        """Ids of the categories that are stuff."""
        return [item["id"] for item in self.categories if not is_thing(item)]

    @property
    def federated(self) -> bool:
        """Whether images are labelled for some classes only, and say for which (LVIS)."""
        return bool(self.images) and all("neg_category_ids" in image for image in self.images)

    def names(self) -> dict[int, str]:
        """Category id to name."""
        return {item["id"]: item["name"] for item in self.categories}


def read_truth(path: Path) -> Truth:
    """Read a truth file that ``prepare`` wrote."""
    content = read_coco(path)
    info = content.get("info", {})
    reason = ""
    if info.get("truth") == "none":
        reason = info.get("reason") or "the input has no masks"
    elif not any(not item.get("iscrowd", 0) for item in content["annotations"]):
        reason = f"{path} holds no object"
    return Truth(path, sorted(content["images"], key=lambda item: item["id"]),
                 sorted(content["categories"], key=lambda item: item["id"]), content["annotations"], reason)


def check_results(path: Path, results: Sequence[Record], truth: Truth) -> None:
    """Refuse results that do not belong to the truth.

    Raises:
        UserError: unknown images or categories, masks that are no RLE or not of their image's size.
    """
    sizes = {item["id"]: [item["height"], item["width"]] for item in truth.images}
    categories = {item["id"] for item in truth.categories}
    problems = []
    for place, item in enumerate(results):
        size = sizes.get(item.get("image_id"))
        mask = item.get("segmentation")
        if size is None:
            problems.append(f"entry {place}: image_id {item.get('image_id')!r} is not in {truth.path}")
        elif item.get("category_id") not in categories:
            problems.append(f"entry {place} (image {item['image_id']}): category_id {item.get('category_id')!r} "
                            f"is not in {truth.path}")
        elif (wrong := rle.problem(mask, *size)) is not None:
            problems.append(f"entry {place} (image {item['image_id']}): {wrong}")
    if problems:
        raise UserError(summarise(problems, f"{path}: does not fit {truth.path}; run `dvc repro` to make it anew:"))


def read_labels(path: Path, truth: Truth) -> list[Record]:
    """Read the annotations of a pseudo-label file and check them against ``truth``."""
    content = read_coco(path)
    check_results(path, content["annotations"], truth)
    return content["annotations"]


def read_predictions(path: Path, truth: Truth) -> list[Record]:
    """Read a COCO results file and check it against ``truth``."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: COCO results (a list of masks) were expected, found {type(content).__name__}")
    check_results(path, content, truth)
    return content

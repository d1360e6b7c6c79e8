"""Truth and labels as the stages of this package read them, checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.evaluation.records import Record
from stages.labels import rle
from stages.labels.coco import is_id, is_thing, read_coco
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import is_finite, read_json


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
    def part(self) -> str:
        """Which split it is of: train or val."""
        return self.path.stem.partition("_")[0]

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
    """Read a truth file that ``prepare`` wrote.

    Raises:
        UserError: as of ``read_coco``, or annotations without mask or area, or lists of LVIS that are none.
    """
    content = read_coco(path)
    problems = [f"annotation {item['id']}: segmentation and area were expected" for item in content["annotations"]
                if item.get("segmentation") is None or "area" not in item]
    problems += [f"image {image['id']}: {key} must be a list of category ids" for image in content["images"]
                 for key in ("neg_category_ids", "not_exhaustive_category_ids")
                 if not isinstance(image.get(key, []), list) or not all(map(is_id, image.get(key, [])))]
    if problems:
        raise UserError(summarise(problems, f"{path}: no truth that `prepare` writes; delete it and run `dvc repro` "
                                            f"again:"))
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
        if not isinstance(item, dict):
            problems.append(f"entry {place}: an object was expected, found {item!r:.80}")
            continue
        number, category, mask = (item.get(key) for key in ("image_id", "category_id", "segmentation"))
        size = sizes.get(number) if is_id(number) else None
        if size is None:
            problems.append(f"entry {place}: image_id {number!r:.80} is not in {truth.path}")
        elif not is_id(category) or category not in categories:
            problems.append(f"entry {place} (image {number}): category_id {category!r:.80} is not in {truth.path}")
        elif not is_finite(item.get("score", 1.0)) or not is_finite(item.get("area", 0)):
            problems.append(f"entry {place} (image {number}): score and area must be numbers")
        elif (wrong := rle.problem(mask, *size)) is not None:
            problems.append(f"entry {place} (image {number}): {wrong}")
    if problems:
        raise UserError(summarise(problems, f"{path}: does not fit {truth.path}; run `dvc repro` to make it anew:"))


def read_labels(path: Path, truth: Truth) -> list[Record]:
    """Read the annotations of a pseudo-label file and check them against ``truth``."""
    content = read_coco(path)
    check_results(path, content["annotations"], truth)
    return content["annotations"]


def read_predictions(path: Path, truth: Truth) -> list[Record]:
    """Read a COCO results file and check it against ``truth``; each entry needs a score, by which AP ranks it."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: COCO results (a list of masks) were expected, found {type(content).__name__}")
    check_results(path, content, truth)
    without = [place for place, item in enumerate(content) if "score" not in item]
    if without:
        raise UserError(f"{path}: {len(without)} of {len(content)} entries have no score (first: entry {without[0]}, "
                        f"image {content[without[0]]['image_id']}); run `dvc repro` to make it anew")
    return content

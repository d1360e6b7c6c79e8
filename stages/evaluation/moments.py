"""Labels that a method kept at some moments of its training: how many of them are right (BESTIE, figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.evaluation.inputs import Truth, check_results, read_truth
from stages.evaluation.matching import match
from stages.evaluation.records import Record
from stages.labels.coco import is_id
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json

KINDS = ("pseudo", "refined")
"""Labels made before the training, and by the network itself."""
RIGHT = 0.5
"""IoU with an object of its class from which on a label is a true positive."""
Rows = list[dict[str, float]]


def count_moments(moments: Sequence[Record], truth: Sequence[Record]) -> Rows:
    """True and false positives among the labels of each moment.

    Args:
        moments: ``share`` of the training that was done (0..1) and ``annotations``: ``image_id``, ``category_id``,
            ``segmentation`` (compressed RLE), ``score`` and ``kind``, one of ``KINDS``.
        truth: COCO annotations of the images' objects.

    Returns:
        A row per moment: ``training`` in percent, and for every kind ``<kind>_true``, labels with an IoU of .5 or more
        with an object of their class, one per object, and ``<kind>_false``, the others. What lies in a crowd region
        by half of its area counts for neither.
    """
    rows: Rows = []
    for moment in moments:
        row: dict[str, float] = {"training": round(100.0 * moment["share"], 2)}
        for kind in KINDS:
            found = match(truth, [item for item in moment["annotations"] if item["kind"] == kind])
            reaches = found.best_iou >= RIGHT
            right = len(np.unique(found.best_truth[reaches]))
            counted = int((reaches | (found.crowd_cover < RIGHT)).sum())
            row |= {f"{kind}_true": right, f"{kind}_false": counted - right}
        rows.append(row)
    return rows


def measure_moments(path: Path, truth_path: Path = layout.TRUTH["train"]) -> Rows:
    """The rows of a method's moments.json; none where the method keeps no labels or there is no truth.

    Args:
        path: data/<method>/moments.json: ``images``, the ids of the images that were labelled, and ``moments``.
        truth_path: the truth of the training images.

    Raises:
        UserError: the file holds something else, or labels that do not fit the truth.
    """
    if not path.exists():
        return []
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "moments"} <= set(content):
        raise UserError(f"{path}: \"images\" and \"moments\" were expected; delete it and run `dvc repro` to make it "
                        f"anew")
    truth: Truth = read_truth(truth_path)
    if truth.reason:
        return []
    moments, shown = content["moments"], content["images"]
    if not isinstance(shown, list) or not all(map(is_id, shown)) or not isinstance(moments, list) or not all(
            isinstance(moment, dict) and isinstance(moment.get("annotations"), list) for moment in moments):
        raise UserError(f"{path}: a list of image ids and a list of moments with annotations were expected; delete it "
                        f"and run `dvc repro` to make it anew")
    for moment in moments:
        check_results(path, moment["annotations"], truth)
    return count_moments(content["moments"], [item for item in truth.annotations if item["image_id"] in set(shown)])

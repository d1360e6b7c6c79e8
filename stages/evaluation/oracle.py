"""Labels that only the truth can make: how far a method's locations, and its proposals, would reach (WISE, table 1).

"L-Net + Oracle proposal" and "L-Net + GT-Mask" put the best proposal and the true mask in the place of every object
that the method located; the same for every true object says what the proposals themselves allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from scipy.optimize import linear_sum_assignment

from stages.evaluation.inputs import Truth
from stages.evaluation.matching import by_image
from stages.evaluation.records import Record
from stages.labels.rle import decode, encode
from stages.proposals.provider import proposals_digest
from stages.proposals.segments import dice, read_proposals
from stages.runtime.errors import UserError
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings

Labels = list[dict[str, Any]]


@dataclass(frozen=True)
class Located:
    """One image: its true objects, and what was located in it.

    Attributes:
        image: COCO image.
        objects: true objects, crowds left out.
        points: (P, 2) float64 [x, y] of the locations, pixel centres on integers.
        category_ids: (P,) int64.
        scores: (P,) float64; of two locations of one object the better scored one comes first.
    """

    image: Record
    objects: list[Record]
    points: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray


def check_proposals(proposals: Record | None, method: str, images: Sequence[Record]) -> Path:
    """The folder of the proposals that the labels were made with.

    Args:
        proposals: what figures.json says of them.
        method: its name.
        images: of val.

    Raises:
        UserError: the method uses none, or they have changed since.
    """
    if proposals is None:
        raise UserError(f"score.oracle: proposal needs a method that uses proposals, {method} uses none; remove it")
    folder = Path(proposals["folder"])
    if proposals_digest(folder, [dict(image) for image in images]) != proposals["digest"]:
        raise UserError(f"{folder}: these are not the proposals that the labels of {method} were made with; run "
                        f"`dvc repro`")
    return folder


def carry_points(labels: Sequence[Record]) -> bool:
    """Whether all labels say where they were located."""
    return all("point" in item for item in labels)


def locations(truth: Truth, labels: Sequence[Record] | None) -> list[Located]:
    """What was located in every image.

    Args:
        truth: of the images.
        labels: COCO annotations with ``point`` [x, y]; None for every true object itself.
    """
    things = set(truth.things)
    objects = by_image(item for item in truth.annotations
                       if not item.get("iscrowd", 0) and item["category_id"] in things)
    found = by_image([] if labels is None else labels)
    result = []
    for image in truth.images:
        own = objects.get(image["id"], [])
        if labels is None:
            points, rows = np.array([inside(item["segmentation"]) for item in own]), own
        else:
            rows = found.get(image["id"], [])
            points = np.array([item["point"] for item in rows], np.float64)
        result.append(Located(image, own, points.reshape(-1, 2).astype(np.float64),
                              np.array([item["category_id"] for item in rows], np.int64),
                              np.array([item.get("score", 1.0) for item in rows], np.float64)))
    return result


def inside(segmentation: Record) -> tuple[int, int]:
    """x and y of some pixel of a mask."""
    row, column = np.unravel_index(int(decode(dict(segmentation)).argmax()), segmentation["size"])
    return int(column), int(row)


def assign(found: Located) -> np.ndarray:
    """(P,) the object that each location stands for, or -1.

    It is one of the location's class whose mask holds the point. Where masks overlap, as many objects as possible are
    found; of the locations of one object the better scored come first. A location that is left over has the smallest
    object that holds it: it is a duplicate.
    """
    points, objects = found.points, found.objects
    owner = np.full(len(points), -1, np.int64)
    if not len(points) or not objects:
        return owner
    height, width = found.image["height"], found.image["width"]
    x, y = (np.clip(np.floor(points[:, axis] + 0.5).astype(np.int64), 0, side - 1)
            for axis, side in ((0, width), (1, height)))
    holds = np.stack([decode(item["segmentation"])[y, x] for item in objects], 1)
    holds &= found.category_ids[:, None] == np.array([item["category_id"] for item in objects])
    # An object more counts for more than any order of scores.
    places = np.empty(len(points))
    places[np.argsort(-found.scores, kind="stable")] = np.arange(len(points))
    gain = holds * (1 + (1 - places / len(points))[:, None] / (len(points) + 1))
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = holds[rows, columns]
    owner[rows[kept]] = columns[kept]
    areas = np.array([item["area"] for item in objects], np.float64)
    for row in np.flatnonzero((owner < 0) & holds.any(1)):
        owner[row] = int(np.where(holds[row], areas, np.inf).argmin())
    return owner


def true_masks(found: Located) -> Labels:
    """"GT-Mask": every location has its object's mask, and the score 1.

    A location on no object of its class is a false alarm of one pixel with the score 0: as in the row of the proposals,
    the score is the Dice with the object. So AP is the share of the objects that were located.
    """
    return [_label(found, row, *((found.objects[owner]["segmentation"], 1.0) if owner >= 0 else
                                 (_pixel(found, row), 0.0))) for row, owner in enumerate(assign(found).tolist())]


def best_proposals(found: Located, folder: Path) -> Labels:
    """"Oracle proposal": every location has, of all the image's proposals, the one of the largest Jaccard similarity
    with its object's mask, scored by their Dice.

    A location on no object of its class, and all where there is no proposal, is one pixel with the score 0.

    Raises:
        UserError: there are no proposals of the image, or those of another size.
    """
    owners = assign(found)
    proposals = read_proposals(folder, dict(found.image))
    chosen: dict[int, tuple[dict[str, Any], float]] = {}
    wanted = sorted(set(owners[owners >= 0].tolist()))
    if wanted and len(proposals):
        masks = [proposals.rle(index) for index in range(len(proposals))]
        ious = np.asarray(rle.iou(masks, [found.objects[owner]["segmentation"] for owner in wanted], [0] * len(wanted)))
        for column, owner in enumerate(wanted):
            best = int(ious[:, column].argmax())
            chosen[owner] = masks[best], dice(float(ious[best, column]))
    return [_label(found, row, *chosen.get(owner, (_pixel(found, row), 0.0))) for row, owner in
            enumerate(owners.tolist())]


def oracle_labels(row: str, found: Sequence[Located], folder: Path | None, runtime: RuntimeSettings) -> Labels:
    """The labels of all images.

    Args:
        row: "proposal" or "mask".
        found: see :func:`locations`.
        folder: of the proposals; the masks need none.
        runtime: workers.
    """
    if row == "mask":
        function = true_masks
    else:
        assert folder is not None
        function = partial(best_proposals, folder=folder)
    parts = parallel_map(function, list(found), runtime, f"oracle: {row}", "val")
    return [{"id": number, **item} for number, item in enumerate((item for part in parts for item in part), start=1)]


def _pixel(found: Located, row: int) -> dict[str, Any]:
    mask = np.zeros((found.image["height"], found.image["width"]), bool)
    x, y = np.floor(found.points[row] + 0.5).astype(np.int64)
    mask[np.clip(y, 0, len(mask) - 1), np.clip(x, 0, mask.shape[1] - 1)] = True
    return encode(mask)


def _label(found: Located, row: int, mask: Record, score: float) -> dict[str, Any]:
    return {"image_id": found.image["id"], "category_id": int(found.category_ids[row]), "segmentation": dict(mask),
            "score": score}

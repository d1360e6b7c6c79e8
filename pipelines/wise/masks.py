"""Labels of one image from points, groups of pixels, blobs and proposals (section 3.3, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.wise.given import Located, read_points
from pipelines.wise.pseudo_masks import Candidates, disc, find_candidates
from pipelines.wise.settings import WiseSettings
from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.proposals.segments import Proposals, dice, read_proposals
from stages.runtime import layout
from stages.runtime.files import read_npz


def image_labels(image: Entry, *, maps: Path, points: Path, proposals: Path, source: str,
                 settings: WiseSettings) -> list[Entry]:
    """One label per point.

    Args:
        image: COCO image.
        maps: folder of `infer_maps`, of the image's split.
        points: folder of `find_points`, of the split.
        proposals: folder of the proposals.
        source: whose points: "given" or "lnet".
        settings: of cues and synthesis.

    Returns:
        Annotations with ``image_id``, ``category_id``, ``segmentation``, ``score``, ``point`` [x, y], ``replaced`` (1
        where the mask is a proposal's), ``candidates`` (proposals that might replace it) and, of annotated points,
        ``weak_id``.
    """
    arrays = read_npz(maps / f"{layout.image_key(image)}.npz")
    located = read_points(points, image) if source == "given" else Located(
        arrays["lnet_yx"][:, ::-1].astype(np.float64), arrays["lnet_categories"],
        np.full(len(arrays["lnet_yx"]), -1, np.int64), arrays["lnet_scores"].astype(np.float64))
    size = (image["height"], image["width"])
    yx = located.pixels(size)
    some = read_proposals(proposals, image)
    candidates = find_candidates(some, yx, settings.cues.objectness)
    rows = []
    for number in range(len(yx)):
        mask, score, replaced = one_label(number, yx, located, arrays, some, candidates, source, settings)
        row = {"image_id": image["id"], "category_id": int(located.category_ids[number]), "segmentation": mask,
               "score": float(np.clip(score, 0, 1)), "point": located.xy[number].tolist(), "replaced": int(replaced),
               "candidates": int(candidates.allowed[number].sum())}
        rows.append(row | ({"weak_id": int(located.weak_ids[number])} if located.weak_ids[number] >= 0 else {}))
    return rows


def one_label(number: int, yx: np.ndarray, located: Located, arrays: Mapping[str, np.ndarray], proposals: Proposals,
              candidates: Candidates, source: str, settings: WiseSettings) -> tuple[rle_codec.RLE, float, bool]:
    """Mask, score, and whether it is a proposal's, of point ``number``."""
    chosen = settings.synthesis
    if chosen.masks in ("embedding", "disc"):
        around = disc(yx, number, proposals.size, chosen.disc_area, chosen.disc_cap)
        if chosen.masks == "disc":
            mask, score = around, 1.0
        else:
            mask, score = arrays[f"groups_{source}"] == number, float(arrays[f"likeness_{source}"][number])
        if chosen.replace:
            factors = candidates.weights[number] ** chosen.objectness
            if chosen.disc_power:
                factors = factors * proposals.jaccards(around) ** chosen.disc_power
            return replaced(_with_point(mask, yx[number]), score, proposals,
                            candidates.preferred(number, chosen.alone), factors)
        return rle_codec.encode(_with_point(mask, yx[number])), score, False
    mask, score = blob_mask(yx[number], int(located.category_ids[number]), arrays)
    if chosen.masks == "best_proposal":
        best = candidates.best(number, alone=chosen.alone and bool(candidates.alone[number].any()))
        if len(best):
            return proposals.rle(int(best[0])), float(proposals.scores[best[0]]), True
    return rle_codec.encode(_with_point(mask, yx[number])), score, False


def _with_point(mask: np.ndarray, pixel: Sequence[int] | np.ndarray) -> np.ndarray:
    """A point's own pixel always belongs to its object."""
    mask = mask.copy()
    mask[pixel[0], pixel[1]] = True
    return mask


def replaced(mask: np.ndarray, score: float, proposals: Proposals, chosen: np.ndarray,
             factors: np.ndarray) -> tuple[rle_codec.RLE, float, bool]:
    """The proposal that fits a grouped mask best, scored by their Dice; the mask with its own score where none may
    (not in the paper; published code).

    Args:
        mask: (H, W) bool.
        score: of the mask itself.
        proposals: of the image.
        chosen: indices of those that may replace it, ascending.
        factors: (K,) by which the Jaccard similarity of every proposal is multiplied; 1 = Jaccard alone (sec. 3.3).
    """
    if not len(chosen):
        return rle_codec.encode(mask), score, False
    jaccards = proposals.jaccards(mask)[chosen]
    best = int((jaccards * factors[chosen]).argmax())
    return proposals.rle(int(chosen[best])), dice(float(jaccards[best])), True


def blob_mask(pixel: np.ndarray, category_id: int, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """L-Net's blob of the point's class that holds the point, and its highest probability; nothing, and 0, where
    there is none."""
    blob = int(arrays["blobs"][pixel[0], pixel[1]])
    if blob and arrays["lnet_categories"][blob - 1] == category_id:
        return arrays["blobs"] == blob, float(arrays["lnet_scores"][blob - 1])
    return np.zeros(arrays["blobs"].shape, bool), 0.0


def count_error(counts: Sequence[int], truth: Sequence[int]) -> float:
    """Mean absolute difference of L-Net's and the annotated number of objects per image; 0 without images."""
    return float(np.abs(np.subtract(counts, truth)).mean()) if len(counts) else 0.0


def label_details(rows: Sequence[Entry], images: Sequence[Entry]) -> dict[str, float]:
    """What is worth knowing of one file of labels.

    Args:
        rows: of ``image_labels``, over all images.
        images: COCO images.

    Returns:
        ``replaced``, the share of the labels that are proposals [%], ``no_proposal``, labels whose point no proposal
        of enough objectness contains, ``no_points``, images without a label.
    """
    pointed = {row["image_id"] for row in rows}
    return {"replaced": round(100 * sum(row["replaced"] for row in rows) / max(len(rows), 1), 2),
            "no_proposal": sum(not row["candidates"] for row in rows),
            "no_points": sum(image["id"] not in pointed for image in images)}

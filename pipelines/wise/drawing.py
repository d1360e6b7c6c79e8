"""Pictures of WISE's intermediates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from pipelines.wise.given import read_points
from stages.labels.coco import Entry
from stages.labels.drawing import category_colour, draw_point, faded, heatmap, overlay_masks
from stages.labels.panels import Panels
from stages.proposals.segments import read_proposals
from stages.runtime import layout
from stages.runtime.files import read_npz

_SHOWN = 12
"""Proposals in a picture."""


def panels(image: Entry, pixels: np.ndarray, *, folders: Mapping[str, Path]) -> Panels:
    """Titles and RGB pictures of one image: proposals, points, blobs, embedding, similarity, groups.

    Args:
        image: COCO image with its ``split``.
        pixels: (H, W, 3) uint8 RGB.
        folders: where ``proposals`` lie, and ``points`` and ``maps`` with a sub-folder for each split.
    """
    split, size = image["split"], pixels.shape[:2]
    arrays = read_npz(folders["maps"] / split / f"{layout.image_key(image)}.npz")
    proposals = read_proposals(folders["proposals"], image)
    located = read_points(folders["points"] / split, image)
    best = proposals.masks(np.arange(min(_SHOWN, len(proposals))))  # they are stored from the best on
    groups = arrays["groups_lnet" if split == "val" else "groups_given"]
    categories = arrays["lnet_categories"] if split == "val" else located.category_ids
    blobs = [arrays["blobs"] == 1 + number for number in range(len(arrays["lnet_yx"]))]
    marked = overlay_masks(faded(pixels), blobs, arrays["lnet_categories"].tolist())
    for (x, y), category in zip(located.xy, located.category_ids, strict=True):
        draw_point(marked, (float(x), float(y)), category_colour(int(category)))
    return [
        (f"the {len(best)} proposals of highest objectness",
         overlay_masks(faded(pixels), best)),
        ("L-Net's blobs, and the points", marked),
        ("embedding (three main directions)", _large(arrays["colours"], size)),
        ("similarity to the first point", heatmap(_large(arrays["similarity"], size) / 255, pixels)),
        ("pixels grouped around points",
         overlay_masks(pixels, [groups == number for number in range(len(categories))], categories.tolist())),
    ]


def _large(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))

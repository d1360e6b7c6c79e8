"""Segment proposals of one image against plain loops over masks, and what methods ask of a thousand of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import measure, row
from stages.labels import rle
from stages.proposals import candidates, ranking
from stages.proposals.hierarchy import describe, hierarchies, propose
from stages.proposals.segments import Proposals
from stages.proposals.settings import HierarchySettings

ABOUT_SECONDS = 200
SETTINGS: dict[str, Any] = {"limit": 1000, "objects": 20}
SEED = 0

SIZES = [(375, 500), (480, 640)]


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the number of pixels.

    ``image_<w>x<h>``: all of the built-in provider (the time that is asked for is 3 s at 640 x 480 on one core). The
    reference shares its regions, trees and cues, and chooses and encodes mask by mask. ``questions_<w>x<h>``: which
    proposals contain each of 20 points, and the IoU of each with 20 masks, from the stored file; against decoding.
    The error is that of the areas, and of the answers.
    """
    table = {}
    for height, width in SIZES:
        for name, ours, reference in (("image", "ours", "plain"), ("questions", "asked", "decoded")):
            table[f"{name}_{width}x{height}"] = row(
                height * width, measure(f"benchmarks.proposals:{ours}", 3, height=height, width=width),
                measure(f"benchmarks.proposals:{reference}", 1, height=height, width=width))
    return table


def inputs(height: int, width: int) -> np.ndarray:
    """A drawn photograph: clouds of all sizes in three colours, and ellipses of such clouds, (H, W, 3) uint8."""
    rng = np.random.default_rng(SEED)

    def clouds() -> np.ndarray:
        layers = [cv2.GaussianBlur(rng.standard_normal((height, width, 3)), (0, 0), scale) * scale ** 1.5
                  for scale in (1, 3, 9, 27)]
        return 128 + rng.normal(0, 40, 3) + 12 * np.sum(layers, axis=0)

    image = clouds()
    for _ in range(12):
        mask = np.zeros((height, width), np.uint8)
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(5, width // 5)), int(rng.integers(5, height // 5))
        cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
        image = np.where(mask[..., None] > 0, clouds(), image)
    return np.clip(image, 0, 255).astype(np.uint8)


def ours(height: int, width: int) -> Callable[[], np.ndarray]:
    cv2.setNumThreads(1)
    image = inputs(height, width)
    return lambda: propose(image, SETTINGS["limit"], HierarchySettings()).areas


def plain(height: int, width: int) -> Callable[[], np.ndarray]:
    """The same choice by comparing each candidate with each one kept, and encoding each mask by itself."""
    cv2.setNumThreads(1)
    image, settings, limit = inputs(height, width), HierarchySettings(), SETTINGS["limit"]

    def run() -> np.ndarray:
        found = describe(image, settings)
        members, joined = candidates.candidates(hierarchies(found), found.edges, found.area, settings.pair_cuts,
                                                settings.triplet_cuts, settings.smallest, settings.largest)
        values = {**ranking.cues(members, found), "triplet": (joined == 3).astype(np.float64)}
        score = ranking.objectness(values, settings.rank.model_dump())
        sizes = members.astype(np.float32) @ found.area.astype(np.float32)
        order = np.lexsort((sizes, -np.round(score, 6)))
        area = found.area.astype(np.float32)
        kept: list[int] = []
        taken = np.zeros(len(members), bool)
        for number, threshold in ((settings.first, settings.first_iou), (limit, settings.iou)):
            for candidate in order:
                if len(kept) == number or taken[candidate]:
                    continue
                weighted = members[candidate] * area
                both = np.array([weighted[members[other]].sum() for other in kept])
                if not len(kept) or (both / (sizes[candidate] + sizes[kept] - both)).max() <= threshold:
                    kept.append(int(candidate))
                    taken[candidate] = True
        return np.array([rle.area(rle.encode(members[index][found.labels])) for index in kept])

    return run


def _questions(height: int, width: int) -> tuple[Proposals, np.ndarray, np.ndarray]:
    """Stored proposals, 20 points (P, 2), and 20 masks (P, H, W)."""
    stored = propose(inputs(height, width), SETTINGS["limit"], HierarchySettings())
    rng = np.random.default_rng(SEED)
    points = np.stack([rng.integers(0, side, SETTINGS["objects"]) for side in (width, height)], 1)
    masks = np.zeros((len(points), height, width), np.uint8)
    for mask, (x, y) in zip(masks, points.tolist(), strict=True):
        cv2.circle(mask, (x, y), 40, 1, -1)
    return stored, points, masks > 0


def asked(height: int, width: int) -> Callable[[], np.ndarray]:
    stored, points, masks = _questions(height, width)

    def run() -> np.ndarray:
        found = Proposals(stored.size, stored.scores, stored.counts, stored.ends)  # nothing of it is known yet
        return np.stack([found.containing(points).T, [found.jaccards(mask) for mask in masks]]).astype(np.float64)

    return run


def decoded(height: int, width: int) -> Callable[[], np.ndarray]:
    stored, points, masks = _questions(height, width)
    rles = [stored.rle(index) for index in range(len(stored))]

    def run() -> np.ndarray:
        inside, overlaps = [], []
        for item in rles:
            mask = rle.decode(item)
            inside.append(mask[points[:, 1], points[:, 0]])
            overlaps.append([(mask & other).sum() / (mask | other).sum() for other in masks])
        return np.stack([np.array(inside).T, np.array(overlaps).T]).astype(np.float64)

    return run

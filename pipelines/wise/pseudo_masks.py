"""Proposals that contain the points, the background, and the pairs of pixels that E-Net learns from (section 3.2).

All randomness comes from the generator that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from stages.labels import rle as rle_codec
from stages.proposals.segments import Proposals


@dataclass(frozen=True)
class Candidates:
    """Which proposals of an image are about which of its points.

    Attributes:
        allowed: (P, K) bool; the proposal contains the point, and its objectness is above the limit.
        alone: (P, K) bool; allowed, and no other point's pixel lies in the proposal.
        weights: (P, K) float64; objectness, or what else orders the candidates of a point.
    """

    allowed: np.ndarray
    alone: np.ndarray
    weights: np.ndarray

    def preferred(self, point: int, alone: bool) -> np.ndarray:
        """Indices of the point's candidates, ascending; ``alone``: those without other points, where there are any."""
        if alone and self.alone[point].any():
            return np.flatnonzero(self.alone[point])
        return np.flatnonzero(self.allowed[point])

    def best(self, point: int, alone: bool = False, most: int = 1) -> np.ndarray:
        """Indices of the point's ``most`` candidates of highest weight, from high to low; of equals the first."""
        chosen = np.flatnonzero((self.alone if alone else self.allowed)[point])
        return chosen[np.argsort(-self.weights[point, chosen], kind="stable")[:most]]


def find_candidates(proposals: Proposals, yx: np.ndarray, objectness: float) -> Candidates:
    """The proposals above ``objectness`` that contain each point.

    Args:
        proposals: of the image.
        yx: (P, 2) pixels of the points; several may lie on one pixel.
        objectness: limit, itself excluded.
    """
    yx = np.asarray(yx, np.int64).reshape(-1, 2)
    inside = proposals.containing(yx[:, ::-1]).T
    _, first = np.unique(yx, axis=0, return_index=True)
    alone = inside[first].sum(0) == 1  # points on one pixel count once
    allowed = inside & (proposals.scores > objectness)
    scores = np.maximum(proposals.scores.astype(np.float64), 0)
    return Candidates(allowed, allowed & alone, np.tile(scores, (len(yx), 1)))


def like_discs(candidates: Candidates, proposals: Proposals, yx: np.ndarray, power: float, area: float,
               cap: float) -> Candidates:
    """The same candidates, preferred where they are like a disc around their point (not in the paper).

    Args:
        candidates: of the points.
        proposals: of the image.
        yx: (P, 2) pixels of the points.
        power: of the Jaccard similarity of proposal and disc, by which the weights are multiplied.
        area, cap: of the discs, see ``disc``.
    """
    factors = [proposals.jaccards(disc(yx, number, proposals.size, area, cap)) ** power for number in range(len(yx))]
    return replace(candidates, weights=candidates.weights * np.reshape(factors, candidates.weights.shape))


def disc(yx: np.ndarray, number: int, size: tuple[int, int], area: float, cap: float = 0.0) -> np.ndarray:
    """(H, W) bool: the pixels of a disc around one of the points (P, 2).

    Args:
        yx: rows and columns of all points.
        number: which of them.
        size: (H, W).
        area: of the whole disc [share of the image]; what lies beyond the border is lost.
        cap: largest radius [share of the way to the nearest point on another pixel]; 0 = none.
    """
    radius = np.sqrt(area * size[0] * size[1] / np.pi)
    ways = np.sqrt(((yx - yx[number]) ** 2).sum(1))
    if cap and ways.any():
        radius = min(radius, cap * ways[ways > 0].min())
    rows, columns = np.ogrid[:size[0], :size[1]]
    return np.asarray((rows - yx[number, 0]) ** 2 + (columns - yx[number, 1]) ** 2 <= radius ** 2)


def background_of(proposals: Proposals, candidates: Candidates, yx: np.ndarray, kind: Literal["paper", "best"],
                  best: int = 10, least: float = 0.02) -> np.ndarray:
    """Where the background is.

    ``paper``: outside all proposals (sec. 3.2). That leaves nothing where proposals are many, so ``best``: outside the
    ``best`` candidates of highest weight of each point that contain no other point, or, where that leaves less
    than the share ``least`` of the image, outside each point's best one of them. No point is background.

    Returns:
        (H, W) bool.
    """
    if kind == "paper":
        free = _outside(proposals, range(len(proposals)))
    else:
        free = _outside(proposals, _best(candidates, best))
        if free.mean() < least:
            free = _outside(proposals, _best(candidates, 1))
    free[yx[:, 0], yx[:, 1]] = False
    return free


def _best(candidates: Candidates, most: int) -> list[int]:
    return sorted({int(index) for point in range(len(candidates.allowed))
                   for index in candidates.best(point, alone=True, most=most)})


def _outside(proposals: Proposals, chosen: Sequence[int]) -> np.ndarray:
    if not len(chosen):
        return np.ones(proposals.size, bool)
    return ~rle_codec.decode(coco_mask.merge([proposals.rle(index) for index in chosen]))


def draw_proposal(candidates: Candidates, point: int, generator: np.random.Generator, alone: bool = False,
                  power: float = 1.0) -> int | None:
    """A candidate of a point, drawn in proportion to its weight, the objectness (sec. 3.2 and 4.2); None where there is
    none.

    Where no candidate has a positive weight, all are equally likely.

    Args:
        candidates: of the image.
        point: its number.
        generator: source of all randomness.
        alone: only those that contain no other point, where there are any (not in the paper).
        power: of the weight (not in the paper: 1).
    """
    chosen = candidates.preferred(point, alone)
    if not len(chosen):
        return None
    weights = candidates.weights[point, chosen]
    weights = (weights / max(weights.max(), 1e-12)) ** power
    total = weights.sum()
    return int(generator.choice(chosen, p=weights / total if total > 0 else None))


@dataclass(frozen=True)
class Pairs:
    """Pairs of pixels of one image (P of eq. 3).

    Attributes:
        yx: (U, 2) int64, the pixels that occur; the other arrays number them.
        first, second: (M,) int64.
        same: (M,) bool, do they belong to one object (or both to the background)?
        weight: (M,) float32, of the pair's term in the sum.
        points: (n,) int64, the objects' points.
        seeds: (B,) int64, the background's seeds.
        hard: (K,) int64, background pixels that are pushed away from a point where they are nearest to one.
    """

    yx: np.ndarray
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    weight: np.ndarray
    points: np.ndarray
    seeds: np.ndarray
    hard: np.ndarray


def draw_pairs(yx: np.ndarray, masks: Sequence[np.ndarray], background: np.ndarray, generator: np.random.Generator, *,
               scheme: Literal["paper", "published"], pixels: int, mean: bool, hard: int,
               hard_below: int) -> Pairs:
    """Draw the pixels that each point is compared with.

    ``paper`` (sec. 3.2): each point with k random pixels of every pseudo-mask and of the background. ``published``
    (not in the paper): each point with k pixels of its own mask and with the other points; as many seeds in the
    background as there are objects, each with k background pixels and with the points. A pixel of another object
    that lies in a point's own mask says nothing and is left out.

    Args:
        yx: (n, 2) pixels of the points.
        masks: n pseudo-masks (H, W) bool; each counts as holding its point.
        background: (H, W) bool; may be empty.
        generator: source of all randomness.
        scheme: see above.
        pixels: k; 0 = the number of objects.
        mean: each point's terms with its own object, and those with others, are averaged, and divided by the number of
            objects; otherwise all are summed (eq. 3).
        hard: background pixels among which those are looked for that lie nearest to a point.
        hard_below: only where there are fewer objects.
    """
    width = background.shape[1]
    count = len(yx)
    points = np.asarray(yx, np.int64).reshape(-1, 2) @ np.array([width, 1])
    inside = [mask.ravel() for mask in masks]
    free = np.flatnonzero(background)
    k = pixels or count
    own = [_some(np.flatnonzero(mask), k, generator) for mask in inside]
    rows: list[tuple[int, np.ndarray, bool]] = []  # a pixel, what it is compared with, the same object?
    rows += [(int(point), pixels_, True) for point, pixels_ in zip(points, own, strict=True)]
    seeds = _some(free, count, generator) if scheme == "published" else np.zeros(0, np.int64)
    around = _some(free, k, generator)
    for index, point in enumerate(points):
        others = np.delete(points, index) if scheme == "published" else \
            np.concatenate([around, *(own[other] for other in range(count) if other != index)])
        rows.append((int(point), others[~inside[index][others] & (others != point)], False))
    for seed in seeds:
        rows += [(int(seed), around, True), (int(seed), points, False)]
    rest = _some(free, hard, generator) if count < hard_below else np.zeros(0, np.int64)
    return _pack(rows, points, seeds, rest, width, count if mean else 0)


def _some(pixels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` of the pixels, or all where there are fewer."""
    return generator.choice(pixels, min(count, len(pixels)), replace=False)


def _pack(rows: Sequence[tuple[int, np.ndarray, bool]], points: np.ndarray, seeds: np.ndarray, hard: np.ndarray,
          width: int, objects: int) -> Pairs:
    """Number the pixels; ``objects`` = 0 gives every pair the weight 1, otherwise each row weighs 1 / objects."""
    lengths = [len(pixels) for _, pixels, _ in rows]
    empty = [np.zeros(0, np.int64)]
    first = np.repeat([pixel for pixel, _, _ in rows], lengths).astype(np.int64) if rows else empty[0]
    second = np.concatenate([pixels for _, pixels, _ in rows] or empty).astype(np.int64)
    same = np.repeat([same for _, _, same in rows], lengths).astype(bool) if rows else np.zeros(0, bool)
    weight = np.repeat([1 / (length * objects) if objects and length else 1.0 for length in lengths], lengths) \
        if rows else np.zeros(0)
    parts = [first, second, points, seeds, hard]
    found, numbers = np.unique(np.concatenate(parts), return_inverse=True)
    numbered = np.split(numbers.reshape(-1).astype(np.int64), np.cumsum([len(part) for part in parts])[:-1])
    yx = np.stack([found // width, found % width], 1).astype(np.int64)
    return Pairs(yx, numbered[0], numbered[1], same, weight.astype(np.float32), *numbered[2:])

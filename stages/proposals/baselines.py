"""Two plain ways to get proposals, to compare with: felzenszwalb's regions, and grouping as selective search does."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from stages.proposals import candidates, regions, trees
from stages.proposals.segments import Proposals, from_sets

SCALES = (100, 300, 900, 2700)
"""Felzenszwalb's scales, from many regions to few: the best of five choices on 16 training photographs."""
LEAST = 200
"""Pixels of the smallest region at those scales."""


def felzenszwalb_only(image: np.ndarray, limit: int, smallest: float = 0.001) -> Proposals:
    """The regions of four scales, the larger the better; those under ``smallest`` [share of the image] are left out."""
    maps = [regions.in_order(_parts(felzenszwalb(image, scale=scale, sigma=0.8, min_size=LEAST)))
            for scale in SCALES]
    base = _common(maps)
    members = np.concatenate([_owners(base, labels) for labels in maps]) > 0
    members = members[candidates.first_rows(members)]
    area = members.astype(np.float32) @ np.bincount(base.ravel()).astype(np.float32)
    order = np.argsort(-area, kind="stable")
    order = order[area[order] >= smallest * base.size][:limit]
    return from_sets(base, members[order], 1 - np.arange(len(order)) / limit)


def selective_search_style(image: np.ndarray, limit: int, seed: int, smallest: float = 0.001) -> Proposals:
    """Regions of two scales in Lab, grouped by likeness in two ways each.

    Ranked as Uijlings et al. (2013, section 3.3): the place in the hierarchy, from the last merge on, times a random
    number.
    """
    rng = np.random.default_rng(seed)
    lab = regions.to_lab(image)
    found, places, bases = [], [], []
    for scale in (100, 300):
        labels = regions.in_order(_parts(felzenszwalb(lab / 100, scale=scale, sigma=0.8, min_size=100)))
        described = regions.describe(labels, lab)
        for colour in (True, False):
            tree = trees.by_likeness(described, colour=colour)
            members = candidates.node_members(tree, len(described))
            found.append(members)
            bases.append(labels)
            places.append(rng.random(len(members)) * np.arange(len(members), 0, -1))
    base = _common(bases)
    together = np.concatenate([members.astype(np.float32) @ _owners(base, labels) > 0
                               for members, labels in zip(found, bases, strict=True)])
    order = np.argsort(np.concatenate(places), kind="stable")
    together = together[order]
    together = together[candidates.first_rows(together)]
    area = together.astype(np.float32) @ np.bincount(base.ravel()).astype(np.float32)
    together = together[area >= smallest * base.size][:limit]
    return from_sets(base, together, 1 - np.arange(len(together)) / limit)


def _parts(labels: np.ndarray) -> np.ndarray:
    """Cut regions that are connected by corners only into their 4-connected parts."""
    parts, count = np.zeros(labels.shape, np.int64), 0
    for value, window in enumerate(ndimage.find_objects(labels + 1)):
        if window is None:
            continue
        own, number = ndimage.label(labels[window] == value)
        parts[window] += np.where(own > 0, own + count, 0)
        count += number
    return parts


def _common(maps: list[np.ndarray]) -> np.ndarray:
    """The coarsest regions of which the regions of every map are unions."""
    code = maps[0].astype(np.int64)
    for labels in maps[1:]:
        code = regions.in_order(code * (int(labels.max()) + 1) + labels).astype(np.int64)
    return code


def _owners(base: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, B) float32, 0 or 1: which regions of ``base`` lie in each of the regions of ``labels``."""
    members = np.zeros((int(labels.max()) + 1, int(base.max()) + 1), np.float32)
    members[labels.ravel(), base.ravel()] = 1
    return members

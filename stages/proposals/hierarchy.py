"""The built-in provider: trees of regions, their nodes and neighbouring pairs and triplets, ranked; no training.

Its figures on photographs, and other ways of grouping beside it: ``python -m stages.proposals.measure``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from stages.proposals import candidates, ranking, regions, trees
from stages.proposals.regions import Regions
from stages.proposals.segments import Proposals, from_sets
from stages.proposals.settings import HierarchySettings
from stages.proposals.trees import Tree


@dataclass(frozen=True)
class Map:
    """A map of the image from elsewhere: (C, h, w) features, or the strength (h, w) of a boundary.

    Its cells are squares of a whole number of pixels, the last ones of which may reach beyond the image; where the
    numbers of cells fit no such side, they cover the image evenly.
    """

    values: np.ndarray
    kind: str

    def on(self, size: tuple[int, int], shown: tuple[int, int]) -> np.ndarray:
        """Bilinear values at the pixels of a smaller copy of the image.

        Args:
            size: (H, W) of the image.
            shown: (H', W') of the copy.

        Returns:
            (H', W') or (C, H', W') float32.
        """
        cells = self.values.shape[-2:]
        side = next((side for side in range(1, max(size) + 1)
                     if all(-(-length // side) == count for length, count in zip(size, cells, strict=True))), None)
        covered = size if side is None else (cells[0] * side, cells[1] * side)
        whole = [max(part, round(length * part / full))
                 for length, part, full in zip(covered, shown, size, strict=True)]
        planes = [cv2.resize(plane.astype(np.float32), (whole[1], whole[0]), interpolation=cv2.INTER_LINEAR)
                  for plane in self.values.reshape(-1, *cells)]
        return np.stack(planes)[:, :shown[0], :shown[1]].reshape(*self.values.shape[:-2], *shown)


def propose(image: np.ndarray, limit: int, settings: HierarchySettings, maps: Sequence[Map] = ()) -> Proposals:
    """Segment proposals of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        limit: proposals that are wanted at most.
        settings: of the provider.
        maps: what further trees are built on.

    Returns:
        At least one proposal: an image in which nothing stands out is one as a whole. A score says the place only, as
        the candidates' cues have no scale of their own: it falls evenly from 1 for the best of ``limit``.
    """
    height, width = image.shape[:2]
    found = describe(image, settings)
    members, joined = candidates.candidates(
        hierarchies(found, maps, (height, width)), found.edges, found.area, settings.pair_cuts, settings.triplet_cuts,
        settings.smallest, settings.largest)
    if not len(members):
        members, joined = np.ones((1, len(found)), bool), np.ones(1, np.int64)
    members = members[ranked(members, joined, found, limit, settings)]
    labels = cv2.resize(found.labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return from_sets(labels, members, 1 - np.arange(len(members)) / limit)


def describe(image: np.ndarray, settings: HierarchySettings) -> Regions:
    """The regions of an RGB image, of a smaller copy where it is larger than ``max_pixels``."""
    height, width = image.shape[:2]
    factor = np.sqrt(settings.max_pixels / (height * width))
    if factor < 1:
        image = cv2.resize(image, (max(1, int(width * factor)), max(1, int(height * factor))),
                           interpolation=cv2.INTER_AREA)
    lab = regions.to_lab(image)
    return regions.describe(regions.oversegment(regions.smoothed(lab), settings.regions), lab)


def hierarchies(found: Regions, maps: Sequence[Map] = (), size: tuple[int, int] | None = None) -> list[Tree]:
    """Ten trees that err in different ways, and one for each map of an image of ``size``.

    No tree alone covers objects well (an average best overlap of about 51 each on photographs); what counts is that
    they differ in what they look at, and in how soon they let go of small regions.
    """
    position = found.moments[:, :2] / found.area[:, None]
    colours = np.sqrt(found.colour_histogram)
    textures = np.sqrt(found.texture_histogram)
    made = [
        trees.ward(found, colours),
        trees.ward(found, np.hstack([found.colour, 60 * position])),
        trees.ward(found, np.hstack([found.colour, 2 * found.texture, found.spread])),
        trees.ward(found, np.hstack([colours, 2 * position])),
        trees.by_contrast(found, np.hstack([colours, 0.5 * textures])),
        trees.by_contrast(found, np.hstack([colours, 0.7 * position])),
        trees.by_contrast(found, found.colour),
        trees.by_contrast(found, power=0.25),
        trees.by_contrast(found, power=1.0),
        trees.by_likeness(found),
    ]
    shown = (found.labels.shape[0], found.labels.shape[1])
    return made + [_tree_on_map(found, item.on(size or shown, shown)) for item in maps]


def _tree_on_map(found: Regions, values: np.ndarray) -> Tree:
    """A tree on a boundary (H, W) or on features (C, H, W)."""
    if values.ndim == 2:
        contrast = regions.boundary_means(found.labels, values) if len(found) > 1 else found.contrast
        return trees.by_contrast(replace(found, contrast=contrast))
    means = regions.means(found.labels, np.moveaxis(values, 0, -1))
    # Lengths of features say little: what counts is which of them answer.
    return trees.ward(found, means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9))


def ranked(members: np.ndarray, joined: np.ndarray, found: Regions, limit: int, settings: HierarchySettings) -> \
        np.ndarray:
    """Indices of the candidates that are kept, from the best on.

    The first ``settings.first`` must differ more from each other than the others: otherwise they are variations of the
    few things that stand out most.
    """
    values = {**ranking.cues(members, found), "triplet": (joined == 3).astype(np.float64)}
    score = ranking.objectness(values, settings.rank.model_dump())
    # Equal to within rounding is equal: then the smaller comes first, so that the order hangs on nothing else.
    order = np.lexsort((candidates.weigh(members, found.area), -np.round(score, 6)))
    steps = [(min(settings.first, limit), settings.first_iou), (limit, settings.iou)]
    return ranking.suppress(members, found.area, order, steps)

"""Region hierarchies: binary trees that merge neighbouring regions until one is left."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import higra as hg
import numpy as np

from stages.proposals.regions import Regions

Tree = np.ndarray
"""(N - 1, 2) int64: row i merges two nodes into node N + i; the regions are the nodes 0 .. N - 1."""


def ward(regions: Regions, features: np.ndarray) -> Tree:
    """Merge, each time, the neighbours by which the features' variance grows least (Ward's rule).

    Args:
        regions: N regions, all connected.
        features: (N, D) mean feature of each region, weighted by its area.
    """
    if len(regions) == 1:
        return np.zeros((0, 2), np.int64)
    tree, _ = hg.binary_partition_tree_ward_linkage(_graph(regions), np.ascontiguousarray(features, np.float64),
                                                    regions.area)
    return merges_of(tree)


def merges_of(tree: hg.Tree) -> Tree:
    """The merges of one of higra's binary trees."""
    leaves = tree.num_leaves()
    parents = tree.parents()[:-1]
    order = np.argsort(parents, kind="stable")
    return order.reshape(-1, 2).astype(np.int64) if leaves > 1 else np.zeros((0, 2), np.int64)


def _graph(regions: Regions) -> hg.UndirectedGraph:
    graph = hg.UndirectedGraph(len(regions))
    graph.add_edges(regions.edges[:, 0], regions.edges[:, 1])
    return graph


def by_contrast(regions: Regions, features: np.ndarray | None = None, power: float = 0.5) -> Tree:
    """Merge, each time, the neighbours with the least contrast along their boundary, the smaller the sooner.

    The distance is (mean contrast) x (smaller area ^ power); with features it is Ward's increase of their variance
    times the mean contrast, and ``power`` is not used.

    Args:
        regions: N regions.
        features: (N, D) mean feature of each region.
        power: of the smaller area.
    """
    count = len(regions)
    area = np.concatenate([regions.area, np.zeros(count)])
    means = None if features is None else np.concatenate([features, np.zeros_like(features)])
    boundary = {pair: (length, length * contrast) for pair, length, contrast in
                zip(map(tuple, regions.edges.tolist()), regions.length, regions.contrast, strict=True)}

    def merge(a: int, b: int, new: int, others: Sequence[int]) -> None:
        area[new] = area[a] + area[b]
        if means is not None:
            means[new] = (area[a] * means[a] + area[b] * means[b]) / area[new]
        for other in others:
            parts = [boundary.pop(_pair(old, other)) for old in (a, b) if _pair(old, other) in boundary]
            boundary[_pair(new, other)] = (sum(part[0] for part in parts), sum(part[1] for part in parts))

    def distance(new: int, others: Sequence[int]) -> list[float]:
        rest = np.asarray(others)
        sums = np.array([boundary[_pair(new, other)] for other in others])
        contrast = sums[:, 1] / sums[:, 0]
        if means is None:
            return (contrast * np.minimum(area[new], area[rest]) ** power).tolist()
        increase = area[new] * area[rest] / (area[new] + area[rest]) * ((means[new] - means[rest]) ** 2).sum(1)
        return (contrast * increase).tolist()

    return agglomerate(count, regions.edges, merge, distance)


def by_likeness(regions: Regions, colour: bool = True, texture: bool = True, size: bool = True,
                fill: bool = True) -> Tree:
    """Merge, each time, the most alike neighbours, as selective search does (Uijlings et al. 2013, section 3.2).

    The likeness is the sum of the chosen terms: intersection of the colour histograms, of the texture histograms,
    1 - (size of both) / (size of the image), and 1 - (gaps in the box around both) / (size of the image).
    """
    count, total = len(regions), regions.area.sum()
    area = np.concatenate([regions.area, np.zeros(count)])
    histograms = [histogram for used, histogram in ((colour, regions.colour_histogram),
                                                    (texture, regions.texture_histogram)) if used]
    looks = np.concatenate([np.concatenate(histograms, 1), np.zeros((count, sum(h.shape[1] for h in histograms)))]) \
        if histograms else np.zeros((2 * count, 0))
    boxes = np.concatenate([_boxes(regions.labels, count), np.zeros((count, 4))])

    def merge(a: int, b: int, new: int, others: Sequence[int]) -> None:
        area[new] = area[a] + area[b]
        looks[new] = (area[a] * looks[a] + area[b] * looks[b]) / area[new]
        boxes[new, :2] = np.minimum(boxes[a, :2], boxes[b, :2])
        boxes[new, 2:] = np.maximum(boxes[a, 2:], boxes[b, 2:])

    def distance(new: int, others: Sequence[int]) -> list[float]:
        rest = np.asarray(others)
        likeness = np.minimum(looks[new], looks[rest]).sum(1)
        both = area[new] + area[rest]
        if size:
            likeness = likeness - both / total
        if fill:
            around = np.maximum(boxes[new, 2:], boxes[rest, 2:]) - np.minimum(boxes[new, :2], boxes[rest, :2])
            likeness = likeness - (around.prod(1) - both) / total
        return (-likeness).tolist()

    return agglomerate(count, regions.edges, merge, distance)


def agglomerate(count: int, edges: np.ndarray, merge: Callable[[int, int, int, Sequence[int]], None],
                distance: Callable[[int, Sequence[int]], Sequence[float]]) -> Tree:
    """Merge the two nearest neighbours until one region is left.

    Args:
        count: number of regions N.
        edges: (E, 2) neighbours; together they connect all regions.
        merge: called with both nodes, the new one and the new one's neighbours, before distances to it are asked for.
        distance: from a node to some of its neighbours.
    """
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for a, b in edges.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    heap: list[tuple[float, int, int]] = []
    for node in range(count):
        others = sorted(other for other in neighbours[node] if other > node)
        heap += [(value, node, other) for value, other in zip(distance(node, others), others, strict=True)] \
            if others else []
    heapq.heapify(heap)
    alive = [True] * count
    merges: list[tuple[int, int]] = []
    while len(merges) < count - 1:
        _, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        new = count + len(merges)
        others = sorted((neighbours[a] | neighbours[b]) - {a, b})
        merges.append((a, b))
        alive[a] = alive[b] = False
        alive.append(True)
        neighbours.append(set(others))
        for other in others:
            neighbours[other] -= {a, b}
            neighbours[other].add(new)
        merge(a, b, new, others)
        if others:
            for value, other in zip(distance(new, others), others, strict=True):
                heapq.heappush(heap, (value, other, new))
    return np.array(merges, np.int64).reshape(-1, 2)


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _boxes(labels: np.ndarray, count: int) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1 of the regions, the last two exclusive."""
    y, x = (axis.ravel() for axis in np.indices(labels.shape))
    flat = labels.ravel()
    boxes = np.empty((count, 4))
    boxes[:, 0], boxes[:, 1] = np.inf, np.inf
    boxes[:, 2], boxes[:, 3] = 0, 0
    np.minimum.at(boxes[:, 0], flat, x)
    np.minimum.at(boxes[:, 1], flat, y)
    np.maximum.at(boxes[:, 2], flat, x + 1)
    np.maximum.at(boxes[:, 3], flat, y + 1)
    return boxes

"""Candidates: the nodes of the trees, and pairs and triplets of neighbours at coarse cuts, as sets of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.proposals.trees import Tree


def node_members(tree: Tree, count: int) -> np.ndarray:
    """(2N - 1, N) bool: the regions of every node of a tree, leaves first."""
    members = np.zeros((count + len(tree), count), bool)
    members[np.arange(count), np.arange(count)] = True
    for row, (a, b) in enumerate(tree):
        np.logical_or(members[a], members[b], out=members[count + row])
    return members


def cut(tree: Tree, count: int, regions: int) -> np.ndarray:
    """The nodes of a tree that are whole when ``regions`` of them are left, ascending."""
    kept = max(0, count - max(regions, 1))
    nodes = np.ones(count + kept, bool)
    nodes[tree[:kept].ravel()] = False
    return np.flatnonzero(nodes)


def neighbouring(members: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(C, C) bool, symmetric: which of C disjoint sets of regions that cover the image touch; no set touches itself."""
    owner = members.argmax(0)
    a, b = owner[edges[:, 0]], owner[edges[:, 1]]
    touch = np.zeros((len(members), len(members)), bool)
    touch[a, b] = touch[b, a] = True
    np.fill_diagonal(touch, False)
    return touch


def pairs(touch: np.ndarray) -> np.ndarray:
    """(P, 2) neighbours, the smaller first."""
    return np.argwhere(np.triu(touch))


def triplets(touch: np.ndarray) -> np.ndarray:
    """(T, 3) connected triplets, ascending, each once."""
    first, second = np.nonzero(np.triu(touch))
    found = []
    for a, b in zip(first, second, strict=True):
        third = np.flatnonzero(touch[a] | touch[b])
        third = third[(third != a) & (third != b)]
        found.append(np.sort(np.stack([np.full_like(third, a), np.full_like(third, b), third], 1), 1))
    together = np.concatenate(found) if found else np.zeros((0, 3), np.int64)
    return np.unique(together, axis=0)


def candidates(trees: Sequence[Tree], edges: np.ndarray, area: np.ndarray, pair_cuts: Sequence[int],
               triplet_cuts: Sequence[int], smallest: float, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Sets of regions that may be objects, without duplicates.

    Args:
        trees: of the same N regions.
        edges: (E, 2) neighbours.
        area: (N,) pixels.
        pair_cuts, triplet_cuts: numbers of regions at which neighbours are joined.
        smallest, largest: limits of a candidate's area [share of the image].

    Returns:
        (C, N) bool and (C,), how many nodes of a tree each is joined of: 1, 2 or 3.
    """
    count = len(area)
    found: dict[int, list[np.ndarray]] = {1: [], 2: [], 3: []}
    for tree in trees:
        members = node_members(tree, count)
        found[1].append(members)
        for regions in sorted({*pair_cuts, *triplet_cuts}):
            if regions >= count:
                continue
            parts = members[cut(tree, count, regions)]
            touch = neighbouring(parts, edges)
            if regions in pair_cuts:
                a, b = pairs(touch).T
                found[2].append(parts[a] | parts[b])
            if regions in triplet_cuts:
                a, b, c = triplets(touch).T
                found[3].append(parts[a] | parts[b] | parts[c])
    together = np.concatenate([rows for groups in found.values() for rows in groups])
    joined = np.repeat(list(found), [sum(len(rows) for rows in groups) for groups in found.values()])
    size = weigh(together, area / area.sum())
    fit = np.flatnonzero((size >= smallest) & (size <= largest))
    kept = fit[first_rows(together[fit])]
    return together[kept], joined[kept]


def weigh(members: np.ndarray, values: np.ndarray, rows: int = 4096) -> np.ndarray:
    """(C, N) bool and (N,) -> (C,) float32: the sum of the values over each set, in bounded memory."""
    parts = [members[start:start + rows].astype(np.float32) @ values.astype(np.float32)
             for start in range(0, len(members), rows)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def first_rows(members: np.ndarray) -> np.ndarray:
    """Indices of the first of each of the rows (bool) that differ, ascending."""
    first: dict[bytes, int] = {}
    for row, packed in enumerate(np.packbits(members, axis=1)):
        first.setdefault(packed.tobytes(), row)
    return np.array(list(first.values()), np.int64)

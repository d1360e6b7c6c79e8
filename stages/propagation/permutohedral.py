"""Gaussian filtering of pixels in a space of features on the permutohedral lattice (Adams, Baek and Davis 2010).

With d features per pixel, the feature vectors are embedded in the plane of R^(d+1) whose coordinates sum to zero,
scaled so that the lattice's own filter has a standard deviation of 1 in the features. The lattice points are those
whose coordinates are integers of one remainder modulo d + 1; they cut the plane into simplices. A filter is three
sparse products:

* splat: each pixel gives its value to the d + 1 corners of its simplex, by its barycentric coordinates;
* blur: along each of the d + 1 axes, each lattice point gathers 1/2, 1, 1/2 from its neighbours and itself;
* slice: each pixel reads the corners of its simplex, by the same coordinates.

Only lattice points that a pixel touches exist; blurring loses what would go through others, as it does in pydensecrf.

Splat and slice are weighted sums over lists of rows, sorted beforehand: ``embedding_bag`` adds each of them in one
order, so the same input gives the same bytes, on a GPU too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

LARGEST_KEY = 2**62
LARGEST_SHORT_KEY = 2**31 - 1  # up to here they are int32, which are sorted in half the time
LARGEST_ROUNDING = 0.01  # of a position between lattice points, which are d + 1 apart along a coordinate
TOO_SMALL = "the widths are too small for a lattice over this image; take wider ones or give a radius"
POINT_VALUES = 2**21  # of lattice points times columns that are filtered at once; blurring needs three times as many
LEAST_COLUMNS = 8  # filtered at once all the same: fewer are hardly faster


class Lattice(NamedTuple):
    """The sparse products for a batch of images; each image has lattice points of its own, in one common array.

    P is the number of pixels B * N, M that of lattice points. Indices are int32 to save memory.
    """

    corners: torch.Tensor  # (P, d + 1), the lattice points around a pixel
    coordinates: torch.Tensor  # (P, d + 1), barycentric, sum 1: the weights of a slice
    pixels: torch.Tensor  # (P (d + 1),), the pixel of each corner, in the order of the lattice points
    shares: torch.Tensor  # (P (d + 1),), its coordinate: the weights of a splat
    starts: torch.Tensor  # (M + 1,), where each lattice point's share of that order starts, and where the last one ends
    neighbours: list[tuple[torch.Tensor, torch.Tensor]]  # per axis (M,) twice; M where there is none


@torch.no_grad()
def build_lattice(features: torch.Tensor) -> Lattice:
    """The lattice of a batch of feature vectors; no gradient.

    Args:
        features: (B, d, N) floating, each divided by the standard deviation that the filter is to have along it; B and
            N are at least 1.

    Raises:
        ValueError: the features span so many standard deviations that their type cannot tell positions between lattice
            points, or 62 bits cannot number these; or there are more corners than int32 can count.
    """
    batch, count = features.shape[:2]
    elevated = _elevate(features.transpose(0, 1).reshape(count, -1))  # (d + 1, P)
    if elevated.numel() >= 2**31:
        raise ValueError(f"{elevated.shape[1]} pixels are too many for one lattice")
    if float(elevated.abs().max()) * torch.finfo(elevated.dtype).eps > LARGEST_ROUNDING:
        raise ValueError(TOO_SMALL)
    side = count + 1
    origin = (elevated / side).round_()  # in multiples of d + 1; those nearest need not sum to zero
    excess = origin.sum(0).to(torch.int64)
    origin = origin.to(torch.int64)
    rank = _ranks(elevated - side * origin) + excess
    shift = (rank < 0).to(torch.int64) - (rank > count).to(torch.int64)
    rank += side * shift
    origin += shift
    coordinates, turns = _barycentric((elevated - side * origin) / side, rank)

    key, numbering = _number(origin, batch)
    steps = torch.tensor(numbering.steps, dtype=key.dtype, device=key.device)
    keys = key.new_empty(side, len(key))
    keys[0] = key
    for corner in range(1, side):
        torch.add(keys[corner - 1], steps.index_select(0, turns[corner - 1]), out=keys[corner])
    ordered, order = torch.sort(keys.reshape(-1), stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    starts = first.nonzero()[:, 0]
    points = ordered.index_select(0, starts)
    corners = torch.empty_like(order, dtype=torch.int32)
    corners.scatter_(0, order, first.cumsum(0, dtype=torch.int32).sub_(1))
    return Lattice(
        corners.reshape(side, -1).t().contiguous(), coordinates.t().contiguous(),
        order.to(torch.int32).remainder_(len(key)), coordinates.reshape(-1).index_select(0, order),
        torch.cat([starts, starts.new_full((1,), len(order))]).to(torch.int32),
        _neighbours(points, numbering))


def transposed(lattice: Lattice) -> Lattice:
    """The lattice of the transposed filter, which a gradient needs, from one that is not scaled.

    The blur along one axis is symmetric, but those of two axes do not commute, as points are missing: the transposed
    filter blurs in the reversed order.
    """
    return lattice._replace(neighbours=lattice.neighbours[::-1])


def scaled(lattice: Lattice, before: torch.Tensor | None, after: torch.Tensor | None) -> Lattice:
    """The lattice of diag(after) K diag(before), where K is that of ``lattice``; None stands for ones, else (P,)."""
    return lattice._replace(
        shares=lattice.shares if before is None else lattice.shares * before.index_select(0, lattice.pixels),
        coordinates=lattice.coordinates if after is None else lattice.coordinates * after[:, None])


@torch.no_grad()
def filter_values(lattice: Lattice, values: torch.Tensor) -> torch.Tensor:
    """Splat, blur and slice each column of values; no gradient.

    Args:
        values: (P, L) of the lattice's type, on its device; the images of the batch one behind the other. Columns are
            filtered some at a time, so that memory is bounded.

    Returns:
        (P, L), in memory L maps of P; it has the filter's own scale, the same for all pixels.
    """
    labels, size = values.shape[1], len(lattice.starts) - 1
    most = max(LEAST_COLUMNS, POINT_VALUES // (size + 1))
    step = max(1, -(-labels // max(1, -(-labels // most))))  # parts of equal width
    filtered = values.new_empty(labels, len(values))
    for first in range(0, labels, step):
        part = values[:, first : first + step].contiguous()
        # The last bag is empty: its sum, 0, stands for all lattice points that do not exist.
        points = functional.embedding_bag(
            lattice.pixels, part, lattice.starts, mode="sum", per_sample_weights=lattice.shares)
        rows = points.squeeze(1)  # single numbers are gathered faster than rows of one
        around, other = torch.empty_like(rows[:-1]), torch.empty_like(rows[:-1])
        for below, above in lattice.neighbours:
            torch.index_select(rows, 0, below, out=around)
            around += torch.index_select(rows, 0, above, out=other)
            rows[:-1].add_(around, alpha=0.5)
        part = functional.embedding_bag(lattice.corners, points, mode="sum", per_sample_weights=lattice.coordinates)
        filtered[first : first + step] = part.t()
    return filtered.t()


def _elevate(features: torch.Tensor) -> torch.Tensor:
    """(d, P) -> (d + 1, P) with columns that sum to zero; scaled to the lattice's filter.

    Row i of the result is minus i times feature i - 1 plus all later features, each divided by sqrt(i (i + 1)): the
    columns of this triangular map are orthonormal. The lattice's filter has the standard deviation
    (d + 1) sqrt(2 / 3) there.
    """
    count = len(features)
    index = torch.arange(1, count + 1, device=features.device, dtype=features.dtype)[:, None]
    scaled = features * (math.sqrt(2 / 3) * (count + 1) / (index * (index + 1)).sqrt())
    elevated = torch.zeros_like(torch.cat([features, features[:1]]))
    elevated[1:] -= index * scaled
    elevated[:-1] += scaled.flip(0).cumsum(0).flip(0)
    return elevated


def _ranks(differences: torch.Tensor) -> torch.Tensor:
    """Position of each row's entry in its column, sorted from large to small; of equal ones the first comes first."""
    ranks = torch.zeros_like(differences, dtype=torch.int8)  # with few features that is faster than sorting
    for i in range(len(differences)):
        for j in range(i + 1, len(differences)):
            less = (differences[i] < differences[j]).to(torch.int8)
            ranks[i] += less
            ranks[j] += 1 - less
    return ranks.to(torch.int64)


def _barycentric(differences: torch.Tensor, rank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Barycentric coordinates (d + 1, P) of the corners 0 ... d, and which coordinate turns after each corner.

    Sorted from large to small, y_0 >= ... >= y_d with y_0 - y_d <= 1: corner k has y_(d-k) - y_(d-k+1), corner 0 what
    is left of 1.
    """
    rows = torch.arange(len(rank), device=rank.device)[:, None].expand_as(rank)
    order = torch.empty_like(rank).scatter_(0, rank, rows).flip(0)  # from small to large
    ascending = differences.gather(0, order)
    coordinates = torch.empty_like(differences)
    coordinates[1:] = ascending[1:] - ascending[:-1]
    coordinates[0] = 1 - (ascending[-1] - ascending[0])
    return coordinates, order


class _Numbering(NamedTuple):
    """How lattice points are numbered: the point (d + 1) m + r, m integers and r the remainder, has r size + strides m.

    Along axis i the remainder grows by 1 and m_i falls by 1; from remainder d it goes back to 0, and all of m grow.
    """

    size: int  # as many m as there may be
    steps: list[int]  # along each of the d + 1 axes, from remainders below d
    turn: int  # what comes on top from remainder d


def _number(origin: torch.Tensor, batch: int) -> tuple[torch.Tensor, _Numbering]:
    """The number of each pixel's corner of remainder 0, those of one image behind those of another.

    The last of m follows from the others. Ranges have room for the corners and their neighbours.

    Args:
        origin: (d + 1, B * N), the corner's m.
        batch: B.
    """
    side = len(origin)
    lowest = origin[:-1].amin(1) - 2
    strides = [1]
    for extent in (origin[:-1].amax(1) + 2 - lowest + 1).tolist():
        strides.append(strides[-1] * extent)
    size = strides.pop()
    if size * side * batch >= LARGEST_KEY:
        raise ValueError(TOO_SMALL)
    keys = torch.arange(batch, device=origin.device).repeat_interleave(origin.shape[1] // batch) * (size * side)
    for row, low, stride in zip(origin[:-1], lowest, strides, strict=True):
        keys += (row - low) * stride
    if size * side * batch <= LARGEST_SHORT_KEY:
        keys = keys.to(torch.int32)
    return keys, _Numbering(size, [size - stride for stride in (*strides, 0)], sum(strides) - side * size)


def _neighbours(points: torch.Tensor, numbering: _Numbering) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per axis the indices of the points before and after each of the sorted points (M,), M where there is none."""
    count = len(points)
    side = len(numbering.steps)
    turn = ((points // numbering.size) % side == side - 1) * numbering.turn
    found = []
    for step in numbering.steps:
        wanted = points + (turn + step)
        place = _places(points, wanted).clamp_(max=count - 1)
        after = torch.where(points.index_select(0, place) == wanted, place, count)
        before = torch.full((count + 1,), count, dtype=torch.int32, device=points.device)
        before.scatter_(0, after.to(torch.int64), torch.arange(count, dtype=torch.int32, device=points.device))
        found.append((before[:-1], after))  # those that have none wrote into the last place
    return found


def _places(ordered: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Where the wanted keys stand, or would, among the ordered ones: (M,) int32."""
    if ordered.device.type == "cpu":  # NumPy starts where the last search ended: twice as fast for keys in order
        return torch.from_numpy(np.searchsorted(ordered.numpy(), wanted.numpy())).to(torch.int32)
    return torch.searchsorted(ordered, wanted, out_int32=True)

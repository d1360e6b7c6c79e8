"""Gaussian filtering of pixels in a space of features on the permutohedral lattice (Adams, Baek and Davis 2010).

With d features per pixel, the feature vectors are embedded in the plane of R^(d+1) whose coordinates sum to zero,
scaled so that the lattice's own filter has a standard deviation of 1 in the features. The lattice points are those
whose coordinates are integers of one remainder modulo d + 1; they cut the plane into simplices. A filter is three
sparse products:

* splat: each pixel gives its value to the d + 1 corners of its simplex, by its barycentric coordinates;
* blur: along each of the d + 1 axes, each lattice point gathers 1/2, 1, 1/2 from its neighbours and itself;
* slice: each pixel reads the corners of its simplex, by the same coordinates.

Only lattice points that a pixel touches exist; blurring loses what would go through others, as it does in pydensecrf.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

LARGEST_KEY = 2**62


class Lattice(NamedTuple):
    """The sparse products for a batch of images; each image has lattice points of its own, in one common array."""

    corners: torch.Tensor  # (d + 1, B * N) int64, indices of lattice points
    coordinates: torch.Tensor  # (d + 1, B * N), barycentric, >= 0, sum 1
    neighbours: list[tuple[torch.Tensor, torch.Tensor]]  # per axis (M,) int64 twice; M where there is none
    size: int  # M, the number of lattice points
    order: torch.Tensor | None  # ((d + 1) B * N,) int64, corners sorted by lattice point; not needed on a CPU
    lengths: torch.Tensor | None  # (M,) int64, how many corners each lattice point has


def build_lattice(features: torch.Tensor) -> Lattice:
    """The lattice of a batch of feature vectors.

    Args:
        features: (B, d, N) floating, each divided by the standard deviation that the filter is to have along it.

    Raises:
        ValueError: the features span so many standard deviations that lattice points cannot be numbered in 62 bits.
    """
    batch, count = features.shape[:2]
    elevated = _elevate(features.transpose(0, 1).reshape(count, -1))  # (d + 1, B * N)
    side = count + 1
    origin = (elevated / side).round_()
    excess = origin.sum(0).to(torch.int64)  # the nearest multiples of d + 1 need not sum to zero
    origin = origin.to(torch.int64) * side
    rank = _ranks(elevated - origin) + excess
    shift = side * ((rank < 0).to(torch.int64) - (rank > count).to(torch.int64))
    rank += shift
    origin += shift
    coordinates, turns = _barycentric((elevated - origin) / side, rank)

    keys, strides = _number(origin, batch)
    corners = keys.new_empty(side, keys.numel())
    corners[0] = keys
    steps = strides.new_tensor([*strides.tolist(), 0])
    for corner in range(1, side):  # the coordinates grow by 1 but for the one whose turn it is, which falls by d
        corners[corner] = corners[corner - 1] + strides.sum() - side * steps[turns[corner - 1]]
    points, corners = torch.unique(corners, return_inverse=True)
    neighbours = [_neighbours(points, int(side * step - strides.sum())) for step in steps]
    order = lengths = None
    if features.device.type != "cpu":
        order = torch.argsort(corners.reshape(-1), stable=True)
        lengths = torch.bincount(corners.reshape(-1), minlength=len(points))
    return Lattice(corners, coordinates, neighbours, len(points), order, lengths)


def filter_values(lattice: Lattice, values: torch.Tensor) -> torch.Tensor:
    """Splat, blur and slice (B * N,) values; the result has the filter's own scale, the same for all pixels."""
    points = values.new_zeros(lattice.size + 1)  # the last one stands for all that do not exist
    given = (lattice.coordinates * values).reshape(-1)
    if lattice.order is None:
        points.index_add_(0, lattice.corners.reshape(-1), given)
    else:  # elsewhere index_add_ adds in any order: sums would differ from run to run
        points[:-1] = torch.segment_reduce(given[lattice.order], "sum", lengths=lattice.lengths, unsafe=True)
    for below, above in lattice.neighbours:
        around = points.index_select(0, below).add_(points.index_select(0, above))
        points[:-1].add_(around, alpha=0.5)
    read = points.index_select(0, lattice.corners.reshape(-1)).reshape(lattice.corners.shape)
    return read.mul_(lattice.coordinates).sum(0)


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


def _number(origin: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One integer per pixel for its origin (d + 1, B * N) and image, and how much a step of each coordinate adds.

    The last coordinate follows from the others. Ranges have room for the corners and their neighbours.
    """
    side = len(origin)
    lowest = origin[:-1].amin(1) - 2 * side
    ranges = (origin[:-1].amax(1) + 2 * side - lowest + 1).tolist()
    strides = [1]
    for extent in ranges:
        strides.append(strides[-1] * extent)
    if strides[-1] * batch >= LARGEST_KEY:
        raise ValueError("the widths are too small for a lattice over this image; give a radius")
    image = torch.arange(batch, device=origin.device).repeat_interleave(origin.shape[1] // batch)
    keys = image * strides[-1]
    for row, low, stride in zip(origin[:-1], lowest, strides[:-1], strict=True):
        keys += (row - low) * stride
    return keys, origin.new_tensor(strides[:-1])


def _neighbours(points: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the points at key - step and key + step in the sorted keys (M,), M where there is none."""
    size = len(points)
    wanted = points + step
    found = torch.searchsorted(points, wanted).clamp_(max=size - 1)
    exists = points[found] == wanted
    above = torch.where(exists, found, size)
    below = torch.full_like(above, size)
    below[found[exists]] = exists.nonzero()[:, 0]
    return below, above

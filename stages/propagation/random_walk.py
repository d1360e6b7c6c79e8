"""Spreading class scores by a random walk over pixel affinities (IRNet eq. 7, 12, 13), without a matrix.

Three things make it fast:

* Only the walked scores are wanted, so the t-th power of the transition matrix T is never formed; T is applied to the
  score maps.
* The affinities are symmetric and depend on an offset, so T is applied as a stencil: one plane of weights for each
  offset of half the plane, multiplied with shifted score maps. There are no index arrays.
* T is similar to the symmetric S^(1/2) T S^(-1/2), whose eigenvalues lie in [-1, 1]. There x^t equals
  sum_k p_k C_k(x), where C_k are Chebyshev polynomials and p_k is the probability that a fair +-1 walk of t steps ends
  at distance k. These p_k fall off like exp(-k^2 / 2t): 90 products stand for 256 steps.

The CPU path is NumPy with one thread on purpose: on a busy machine the barriers of a threaded product cost more than
the product, and the same bytes come out whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Generic

import numpy as np

from stages.propagation.pairs import Array, anchor_slices, line_maximum, neighbour_offsets

TOLERANCE = 1e-8  # of the truncated expansion; see chebyshev_weights
# Weights below this count as 0. A row of T changes by less than 1e-12 at radius 10, which 256 steps cannot bring to
# 1e-9; without it, saturated boundaries give denormal numbers, with which some processors are many times slower.
LEAST_WEIGHT = 1e-15


def random_walk(scores: np.ndarray, boundary: np.ndarray, *, radius: float = 5.0, beta: float = 10.0,
                steps: int = 256) -> np.ndarray:
    """Walk ``steps`` steps from every score map: T^steps vec(scores * (1 - boundary)) (IRNet eq. 13).

    The affinity of two pixels closer than ``radius`` is 1 - max of the boundary on the line between them (eq. 7; the
    line includes both pixels), that of a pixel to itself is 1, all others are 0. T is the affinities to the power
    ``beta``, divided by their row sums (eq. 12). ``tensor_walk.random_walk`` does the same for tensors.

    Args:
        scores: (C, H, W), real; C may be 0.
        boundary: (H, W) in [0, 1].
        radius: pairs have a distance strictly below it, in pixels; > 0. Paper: 5.
        beta: Hadamard power of the affinities; > 0. Paper: 10.
        steps: t >= 0. Paper: 256.

    Returns:
        (C, H, W): float64 if ``scores`` are, float32 otherwise. With S_ii the row sums and the norm
        |x|_S = sqrt(sum_i S_ii x_i^2), the exact walk is met within 2 * TOLERANCE * |scores * (1 - boundary)|_S plus
        rounding; that of float32 is about 3e-7 of the result for CAM-like maps, up to 1e-5 for single pixels.

    Raises:
        ValueError: shapes that do not fit, a boundary outside [0, 1], or a setting outside its range.
    """
    check(scores, boundary, beta, steps)
    return np.ascontiguousarray(walk(np, scores, boundary.astype(np.float64), radius, beta, steps))


def chebyshev_weights(steps: int, tolerance: float = TOLERANCE) -> np.ndarray:
    """Weights p_0 ... p_K with x^steps ~ sum_k p_k C_k(x) on [-1, 1], C_k the Chebyshev polynomials.

    From x C_k = (C_(k-1) + C_(k+1)) / 2 follows that p_k is the probability that a fair +-1 walk of ``steps`` steps
    ends at distance k from its start. |C_k| <= 1 on [-1, 1], so what is cut off weighs at most the tail
    P(distance > K); K is the smallest degree whose tail is at most ``tolerance``. By Hoeffding's inequality K is at
    most sqrt(2 steps ln(2 / tolerance)) + 1. The weights are then scaled to the sum 1, so that constant maps stay
    constant: the whole error on [-1, 1] is at most 2 * tolerance. For a symmetric matrix with these eigenvalues it is
    the error in the spectral norm.

    Returns:
        float64 (K + 1,), non-negative; every second one is 0.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    # Far enough out that what is never computed weighs 1e-4 of the tolerance.
    reach = min(steps, int(np.sqrt(2 * steps * np.log(2e4 / tolerance))) + 2)
    distances = np.arange(steps % 2, reach + 1, 2)
    # p_(k+2) / p_k = (steps - k) / (steps + k + 2); distances other than 0 are met on two sides.
    ratios = (steps - distances[:-1]) / (steps + distances[:-1] + 2.0)
    probabilities = np.concatenate([[1.0], np.cumprod(ratios)]) * np.where(distances > 0, 2.0, 1.0)
    probabilities /= probabilities.sum()
    tails = np.cumsum(probabilities[::-1])[::-1] - probabilities  # what lies beyond each distance
    last = int(np.argmax(tails <= tolerance))
    weights = np.zeros(distances[last] + 1)
    weights[distances[: last + 1]] = probabilities[: last + 1]
    return weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Stencil(Generic[Array]):
    """The affinities of an image whose rows are padded and laid end to end.

    Each row is followed by enough zero columns that a shift of the flat array never reaches into the next row.
    """

    shape: tuple[int, int, int]  # height, width, padded width
    shifts: list[int]  # (P,), the offset of each pair in the flat array, > 0
    weights: Array  # (P, L), a_ij^beta at the anchor of each pair; 0 where the pair leaves the image
    inverse_sums: Array  # (L,), 1 / S_ii, at most 1


def build_stencil(boundary: Array, radius: float, beta: float, dtype: object, xp: ModuleType) -> Stencil[Array]:
    """The stencil for a boundary (H, W); ``xp`` is the library of boundary and dtype, ``numpy`` or ``torch``.

    Computed in the boundary's precision and rounded once, at the end. That should be float64 even where the products
    run in float32: row sums added up in float32 err to one side, and 256 steps make much of that.
    """
    height, width = boundary.shape
    offsets = [(dy, dx) for dy, dx in neighbour_offsets(radius).tolist() if dy < height and abs(dx) < width]
    padded = width + max((abs(dx) for _, dx in offsets), default=0)
    length = height * padded
    weights = _zeros(boundary, (len(offsets), height, padded))
    for index, offset in enumerate(offsets):
        rows, columns = anchor_slices(offset, height, width)
        weights[index, rows, columns] = (1 - line_maximum(boundary, offset, xp.maximum)) ** beta
    weights[weights < LEAST_WEIGHT] = 0
    weights = weights.reshape(len(offsets), length)
    shifts = [dy * padded + dx for dy, dx in offsets]
    sums = _zeros(boundary, (length,)) + 1  # a pixel's affinity to itself
    for shift, plane in zip(shifts, weights, strict=True):
        sums[: length - shift] += plane[: length - shift]
        sums[shift:] += plane[: length - shift]
    return Stencil((height, width, padded), shifts, xp.asarray(weights, dtype=dtype), xp.asarray(1 / sums, dtype=dtype))


def walk(xp: ModuleType, scores: Array, boundary: Array, radius: float, beta: float, steps: int) -> Array:
    """The walk of :func:`random_walk` by the library ``xp``, ``numpy`` or ``torch``, on the arrays' device.

    Args:
        xp: the library of both arrays.
        scores: (C, H, W), of any number format that the library computes in.
        boundary: (H, W), float64 where the device has it: see :func:`build_stencil`.
        radius, beta, steps: as for :func:`random_walk`; nothing is checked.

    Returns:
        (C, H, W), a view of a padded array: float64 if ``scores`` are, float32 otherwise.
    """
    dtype = xp.float64 if scores.dtype == xp.float64 else xp.float32
    scores = xp.asarray(scores, dtype=dtype)
    if 0 in scores.shape:
        return _zeros(scores, tuple(scores.shape))
    stencil = build_stencil(boundary, radius, beta, dtype, xp)
    height, width, padded = stencil.shape
    start = _zeros(scores, (len(scores), height, padded))
    start[..., :width] = scores * xp.asarray(1 - boundary, dtype=dtype)
    weights = chebyshev_weights(steps).tolist()
    total = _zeros(scores, (len(scores), height * padded))
    for weight, polynomial in zip(weights, _chebyshev(xp, stencil, start.reshape(len(scores), -1)), strict=False):
        if weight:
            total += weight * polynomial
    return total.reshape(len(scores), height, padded)[..., :width]


def _chebyshev(xp: ModuleType, stencil: Stencil[Array], start: Array) -> Iterator[Array]:
    """C_0(T) start, C_1(T) start, ... without end; each is overwritten two steps later, ``start`` too.

    C_1 = T C_0 and C_(k+1) = 2 T C_k - C_(k-1), where T y = y + flow(y): see :func:`_add_flow`.
    """
    current, previous = start, start
    flow, scratch = xp.empty_like(start), xp.empty_like(start)
    yield current
    flow[:] = 0
    _add_flow(xp, stencil, current, flow, scratch)
    current = current + flow
    yield current
    while True:
        flow[:] = 0
        _add_flow(xp, stencil, current, flow, scratch)
        flow += current
        flow *= 2
        xp.subtract(flow, previous, out=previous)
        current, previous = previous, current
        yield current


def _add_flow(xp: ModuleType, stencil: Stencil[Array], values: Array, flow: Array, scratch: Array) -> None:
    """flow += T values - values, both (C, L): what each pixel gains from its neighbours in one step.

    Every pair carries weight * difference from one end to the other, so a constant map has no flow at all and rounding
    errors are those of the differences. ``flow`` starts at 0; ``scratch`` is overwritten.
    """
    for shift, plane in zip(stencil.shifts, stencil.weights, strict=True):
        size = plane.shape[0] - shift
        near, far, carried = flow[:, :size], flow[:, shift:], scratch[:, :size]
        xp.subtract(values[:, shift:], values[:, :size], out=carried)
        xp.multiply(carried, plane[:size], out=carried)
        xp.add(near, carried, out=near)
        xp.subtract(far, carried, out=far)
    flow *= stencil.inverse_sums


def _zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Zeros with the dtype, and for torch the device, of ``like``."""
    return np.zeros(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def check(scores: Array, boundary: Array, beta: float, steps: int) -> None:
    """Refuse what :func:`random_walk` cannot take, with a ValueError."""
    if len(scores.shape) != 3 or tuple(scores.shape[1:]) != tuple(boundary.shape):
        raise ValueError(
            f"scores must be (C, H, W) and the boundary (H, W), got {tuple(scores.shape)} and {tuple(boundary.shape)}"
        )
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if steps < 0 or steps != int(steps):
        raise ValueError(f"steps must be a whole number of at least 0, got {steps}")
    if 0 not in boundary.shape and not (float(boundary.min()) >= 0 and float(boundary.max()) <= 1):
        raise ValueError("the boundary must lie in [0, 1] and contain no NaN")

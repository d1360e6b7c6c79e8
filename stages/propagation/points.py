"""Propagation of a few labelled points over all points of a crop (EXITS, sections 3.2.1 and 3.2.2, appendix C).

All functions take batches, run on the tensors' device and keep their number format; P is the number of points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.runtime.devices import exact_products


@exact_products()
def sinkhorn(similarity: Tensor, iterations: int = 20) -> Tensor:
    """Sinkhorn-Knopp: scale rows and columns in turn until all sums are 1 (the paper does not say how often).

    Args:
        similarity: (B, P, P), positive.
        iterations: pairs of a row and a column normalisation.

    Returns:
        (B, P, P): column sums are 1, row sums nearly.
    """
    # Vectors of factors, diag(r) S diag(c): two products with a vector per iteration, and one pass over S at the end.
    # The vectors are rows because a batch of row times matrix is five times as fast on a CPU as of matrix times column.
    transposed = similarity.transpose(1, 2)
    rows = torch.ones_like(similarity[:, :1, :])
    columns = torch.ones_like(rows)
    for _ in range(iterations):
        rows = 1 / (columns @ transposed)
        columns = 1 / (rows @ similarity)
    return rows.transpose(1, 2) * similarity * columns


def transition_matrix(similarity: Tensor, iterations: int = 20) -> Tensor:
    """T of eq. 2: the doubly stochastic form of the similarity, averaged with its transpose. (B, P, P)."""
    balanced = sinkhorn(similarity, iterations)
    return (balanced + balanced.transpose(1, 2)) / 2


def seed_rows(members: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, P) bool, the points of a set, to (B, P) weights that are equal and sum to 1; an empty set stays 0."""
    weights = members.to(dtype)
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


@exact_products()
def propagation_scores(transition: Tensor, sources: Tensor, hops: int) -> Tensor:
    """Mean probability of getting from each set of points to every point in ``hops`` steps (eq. 3 and 4).

    The power of T is never formed: the sets' weights, as rows, are multiplied by T once per hop.

    Args:
        transition: (B, P, P), T(j, i) from j to i.
        sources: (B, K, P) weights of the points of K sets, each row summing to 1 (``seed_rows``).
        hops: alpha.

    Returns:
        (B, K, P).
    """
    scores = sources
    for _ in range(hops):
        scores = scores @ transition
    return scores


@exact_products()
def converged_scores(transition: Tensor, sources: Tensor, beta: float) -> Tensor:
    """The walk without an end, (1 - beta) (I - beta T)^-1 (eq. a2), by a linear solve for the few rows wanted.

    Args, returns: as ``propagation_scores``; ``beta`` in 0..1 is the share that walks on.
    """
    identity = torch.eye(transition.shape[-1], dtype=transition.dtype, device=transition.device)
    # x (I - beta T) = (1 - beta) s, transposed, because solvers want columns.
    system = identity - beta * transition.transpose(1, 2)
    return torch.linalg.solve(system, (1 - beta) * sources.transpose(1, 2)).transpose(1, 2)


def score_difference(foreground_score: Tensor, background_score: Tensor) -> Tensor:
    """What eq. 5 compares with its thresholds, in units of 1 / P, the score of a point when all are equal: scores
    shrink as points get more, so that the paper's 1e-3 and -1e-4, for 32 x 32 points, are 1.024 and -0.1024. (B, P)."""
    return (foreground_score - background_score) * foreground_score.shape[-1]


def retrieve(difference: Tensor, candidates: Tensor, foreground: float, background: float) -> tuple[Tensor, Tensor]:
    """Pseudo foreground and background points (eq. 5).

    Args:
        difference: (B, P) of ``score_difference``.
        candidates: (B, P) bool, the unlabelled points inside the box.
        foreground, background: thresholds in the same units.

    Returns:
        Two (B, P) bool.
    """
    return candidates & (difference >= foreground), candidates & (difference <= background)


@exact_products()
def feature_exponent(features: Tensor, temperature: float) -> Tensor:
    """Logarithm of the similarity of points by their features, for encoders without attention: (cosine - 1) / T.

    Args:
        features: (B, D, P).
        temperature: T, the difference of cosines at which similarity falls to 1 / e.

    Returns:
        (B, P, P), symmetric, at most 0, which it is on the diagonal. Similarities of several kinds are multiplied by
        adding their exponents: one exponential per pair of points costs as much as all the rest.
    """
    directions = torch.nn.functional.normalize(features.float(), dim=1) * temperature ** -0.5
    return directions.transpose(1, 2) @ directions - 1 / temperature


@exact_products()
def colour_exponent(images: Tensor, cells: int, deviation: float) -> Tensor:
    """Logarithm of the similarity of cells by their mean colours: -(difference / deviation)^2 in CIELAB.

    Args:
        images: (B, 3, H, W) RGB, uint8 or float in 0..1.
        cells: along each side.
        deviation: difference at which similarity falls to 1 / e, as a share of the range of lightness (100).

    Returns:
        (B, cells^2, cells^2), symmetric, 0 on the diagonal.
    """
    values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    lab = cielab(torch.nn.functional.adaptive_avg_pool2d(values, cells)).flatten(2) / (100 * deviation)
    squares = lab.square().sum(1)
    return (2 * lab.transpose(1, 2) @ lab - squares[:, :, None] - squares[:, None, :]).clamp(max=0)


def distance_exponent(cells: int, reach: float) -> Tensor:
    """Logarithm of the similarity of cells by their distance: -(d / reach)^2, d and reach as shares of the crop's side.
    (cells^2, cells^2)."""
    at = (torch.arange(cells) + 0.5) / (cells * reach)
    squares = (at[:, None] - at[None, :]).square()
    return -(squares[:, None, :, None] + squares[None, :, None, :]).reshape(cells ** 2, cells ** 2)


def cielab(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in 0..1 to CIELAB under D65: L in 0..100, a and b about -100..100."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1; the rows are divided by the white point.
    white = torch.tensor([[0.950456], [1.0], [1.088754]])
    to_xyz = (torch.tensor([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169],
                            [0.019334, 0.119193, 0.950227]]) / white).to(rgb)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz, linear)
    curve = torch.where(xyz > 216 / 24389, xyz.clamp(min=1e-9) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    x, y, z = curve.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)

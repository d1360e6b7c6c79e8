"""E-Net's loss: similarity of pixel embeddings (eq. 2) and its cross-entropy over pairs of pixels (eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-6
"""Embeddings are taken to be at least this different where they should differ: 1 - S stays above 1e-6 (not in the
paper; published code)."""


def exponents(first: Tensor, second: Tensor) -> Tensor:
    """-log S of eq. 2, |E_i - E_j|^2 / (2 d), for vectors (d, ...)."""
    return (first - second).square().sum(0) / (2 * len(first))


def pair_terms(exponent: Tensor, same: Tensor) -> Tensor:
    """The terms of eq. 3.

    Where the pixels should be alike, logarithm and exponential cancel (the paper's footnote 1). Otherwise
    log(1 - exp(-x)) is taken as log(-expm1(-x)), which keeps its digits for pixels that are almost alike.

    Args:
        exponent: (M,) not negative.
        same: (M,) bool.
    """
    return torch.where(same, exponent, -torch.log(-torch.expm1(-exponent.clamp(min=_LEAST))))


def embedding_loss(values: Tensor, first: Tensor, second: Tensor, same: Tensor, weight: Tensor, points: Tensor,
                   seeds: Tensor, hard: Tensor) -> Tensor:
    """L_E of one image; the arguments after ``values`` are those of ``pseudo_masks.Pairs``.

    Args:
        values: (d, U) embeddings of the pixels that occur.
        first, second: (M,) numbers of pixels.
        same: (M,) bool.
        weight: (M,).
        points: (n,) numbers of the objects' points.
        seeds: (B,) numbers of the background's seeds.
        hard: (K,) numbers of background pixels: those more like a point than like any seed are pushed away from it;
            their mean is divided by n (not in the paper; published code).

    Returns:
        Scalar; 0 where there is nothing to compare.
    """
    values = values.float()
    loss = (weight * pair_terms(exponents(values[:, first], values[:, second]), same)).sum()
    if len(hard) and len(points):
        with torch.no_grad():
            anchors = values[:, torch.cat([points, seeds])]
            nearest = exponents(anchors[:, :, None], values[:, None, hard]).argmin(0)  # (K,)
            wrong = nearest < len(points)
        if wrong.any():
            exponent = exponents(values[:, points[nearest[wrong]]], values[:, hard[wrong]])
            loss = loss + pair_terms(exponent, torch.zeros_like(wrong[wrong])).mean() / len(points)
    return loss

"""Semantic affinities from a class boundary map, differentiable (IRNet eq. 7), for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stages.propagation.pairs import Offset, line_maximum, line_views


class _LineMaximum(torch.autograd.Function):
    """Maximum over the pixels of a line that keeps only its input and its output for the backward pass.

    A chain of ``torch.maximum`` keeps every step, about eight copies for every one of 152 offsets. Where several
    pixels of a line share the maximum, the gradient is divided evenly among them.
    """

    @staticmethod
    def forward(ctx: Any, boundary: Tensor, offset: Offset) -> Tensor:
        highest = line_maximum(boundary, offset, torch.maximum)
        ctx.offset = offset
        ctx.save_for_backward(boundary, highest)
        return highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        boundary, highest = ctx.saved_tensors
        hits = [view == highest for view in line_views(boundary, ctx.offset)]
        share = gradients[0] / sum(hit.to(boundary.dtype) for hit in hits)
        total = torch.zeros_like(boundary)
        for view, hit in zip(line_views(total, ctx.offset), hits, strict=True):
            view += share * hit
        return total, None


def pair_affinity(boundary: Tensor, offset: Offset) -> Tensor:
    """Affinity of all pairs with one offset: 1 - max of the boundary on the line between them (IRNet eq. 7).

    Args:
        boundary: (..., H, W) in [0, 1].
        offset: (dy, dx) with dy >= 0, a row of ``neighbour_offsets``.

    Returns:
        (..., H - dy, W - |dx|), in [0, 1]: pairs that leave the image are left out; laid out like both results of
        ``pairs.pair_views``, which gives the same pairs' labels and displacements. A loss that loops over the
        offsets needs a few copies of the image for each of them, and no stack of all.
    """
    return 1 - line_highest(boundary, offset)


def line_highest(values: Tensor, offset: Offset) -> Tensor:
    """The largest value on the line of each pair, laid out as in :func:`pair_affinity`; logits will do as well.

    Args:
        values: (..., H, W).
        offset: (dy, dx) with dy >= 0.
    """
    return _LineMaximum.apply(values, (int(offset[0]), int(offset[1])))

"""The losses of EXITS (sections 3.2.1 and 3.2.3). Masks are probabilities (B, m, m); all losses are means over B."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stages.labels.points import PSEUDO_FOREGROUND, UNLABELLED


def dice(prediction: Tensor, target: Tensor, smooth: float = 1e-5) -> Tensor:
    """Dice loss per row: 1 - 2 sum(p t) / (sum(p^2) + sum(t^2)). (B, ...) and (B, ...) to (B,).

    The squares are those of the projection loss that eq. 1 builds on; the paper names its dice loss by citation only.
    """
    prediction, target = prediction.flatten(1), target.flatten(1)
    both = (prediction * target).sum(1)
    return 1 - (2 * both + smooth) / (prediction.square().sum(1) + target.square().sum(1) + smooth)


def projection_loss(masks: Tensor, boxes: Tensor) -> Tensor:
    """MIL loss of eq. 1, per crop: dice of the maxima over rows and over columns. ``boxes`` (B, m, m), 0 or 1. (B,)."""
    return dice(masks.amax(1), boxes.amax(1)) + dice(masks.amax(2), boxes.amax(2))


def point_loss(masks: Tensor, labels: Tensor) -> Tensor:
    """Dice between the mask at the labelled points and their labels (first term of eq. 8, with eq. 6 and 7), per crop.

    Args:
        masks: (B, m, m).
        labels: (B, N, N) with the values of ``stages.labels.points``.

    Returns:
        (B,); 0 where no point is labelled as foreground, which leaves nothing to compare.
    """
    cells = (labels.shape[-2], labels.shape[-1])
    reduced = functional.adaptive_avg_pool2d(masks[:, None], cells)[:, 0]
    known, foreground = labels != UNLABELLED, labels > UNLABELLED
    loss = dice(reduced * known, foreground.to(reduced))
    return loss * foreground.flatten(1).any(1)


def overall_loss(masks: Tensor, labels: Tensor, boxes: Tensor, mil_weight: float) -> tuple[Tensor, Tensor]:
    """Both terms of the point loss (eq. 8): the points' and, where none was retrieved, the MIL loss.

    Args:
        masks: (B, m, m).
        labels: (B, N, N), after point dropout: where it takes all retrieved points away, none is.
        boxes: (B, m, m), 0 or 1.
        mil_weight: lambda_mil.

    Returns:
        Means over the batch.
    """
    retrieved = (labels.abs() == PSEUDO_FOREGROUND).flatten(1).any(1)
    mil = projection_loss(masks, boxes) * ~retrieved
    return point_loss(masks, labels).mean(), mil_weight * mil.mean()


def drop_points(labels: Tensor, rate: float, draws: Tensor) -> Tensor:
    """Point dropout (section 3.2.2): forget a share of the retrieved points; the given ones stay.

    Args:
        labels: (N, N) or (B, N, N).
        rate: share that is forgotten.
        draws: uniform in 0..1, of the same shape.
    """
    pseudo = labels.abs() == PSEUDO_FOREGROUND
    return torch.where(pseudo & (draws < rate), torch.full_like(labels, UNLABELLED), labels)

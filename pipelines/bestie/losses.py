"""The objective of the instance network (eq. 3 to 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.bestie.settings import NetworkSettings
from pipelines.bestie.targets import Targets
from stages.segmentation.labels import IGNORE


def objective(logits: Tensor, heat: Tensor, offset: Tensor, semantic: Tensor, pseudo: Targets, refined: Targets | None,
              settings: NetworkSettings) -> dict[str, Tensor]:
    """Eq. 6 in its parts, weights included; their sum is minimised.

    Args:
        logits: (B, C + 1, H, W) of background and classes.
        heat: (B, C, H, W).
        offset: (B, 2, H, W) as (dy, dx) [px].
        semantic: (B, H, W) integers: 0 background, 1.. classes, IGNORE.
        pseudo, refined: guidance; without the latter its terms are left out.
        settings: weights.
    """
    terms = {"semantic": settings.semantic_weight * semantic_loss(logits, semantic, settings.hardest)}
    labels = {"pseudo": pseudo} if refined is None else {"pseudo": pseudo, "refined": refined}
    share = 1 / len(labels) if settings.average else 1.0
    for name, targets in labels.items():
        terms[f"{name}_centre"] = share * settings.centre_weight * centre_loss(heat, targets)
        terms[f"{name}_offset"] = share * settings.offset_weight * offset_loss(offset, targets)
    return terms


def centre_loss(heat: Tensor, targets: Targets) -> Tensor:
    """One sum of eq. 3: squared errors (B, C, H, W), summed over the classes, over the guided pixels."""
    heat = _single(heat)
    return _guided_mean((heat - targets.centre).square().sum(1), targets.centre_weight)


def offset_loss(offset: Tensor, targets: Targets) -> Tensor:
    """One sum of eq. 4: absolute errors (B, 2, H, W), summed over both axes, over the guided pixels [px]."""
    offset = _single(offset)
    return _guided_mean((offset - targets.offset).abs().sum(1), targets.offset_weight)


def semantic_loss(logits: Tensor, semantic: Tensor, hardest: float = 1.0) -> Tensor:
    """Eq. 5: mean cross-entropy over the pixels that are not ignored, 0 where there are none.

    Args:
        logits: (B, C + 1, H, W).
        semantic: (B, H, W) integers: class indices or IGNORE.
        hardest: share of those pixels, the ones of the highest loss, that are averaged (published code: 0.2).
    """
    losses = functional.cross_entropy(_single(logits), semantic.long(), ignore_index=IGNORE, reduction="none")
    known = semantic != IGNORE
    if hardest == 1:
        return losses.sum() / known.sum().clamp(min=1)
    count = math.ceil(hardest * int(known.sum()))
    return losses[known].topk(count).values.sum() / max(count, 1)


def _guided_mean(errors: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of (B, H, W) errors over the number of pixels with a weight; 0 where there are none."""
    return (errors * weight).sum() / (weight > 0).sum().clamp(min=1)


def _single(values: Tensor) -> Tensor:
    """Half precision loses too much in long sums."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

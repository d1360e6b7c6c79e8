"""The loss of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.segmentation.labels import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not ignored; 0, with a gradient of 0, where all are.

    In full precision whatever the logits are in. The sum over pixels is not left to torch's own reduction, which adds
    in no fixed order on a GPU.

    Args:
        logits: (N, 1 + classes, H, W).
        labels: (N, H, W) integers: class indices or IGNORE.
    """
    with torch.autocast(logits.device.type, enabled=False):
        each = functional.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="none")
        return each.sum() / (labels != IGNORE).sum().clamp(min=1)


def semantic_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a batch of ``LabelledImages``."""
    return {"semantic": cross_entropy(model(batch["image"]), batch["labels"])}

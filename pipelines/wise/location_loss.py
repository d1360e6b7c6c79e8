"""L-Net's loss (eq. 1): the four terms of LC-FCN (Laradji et al., ECCV 2018), for several classes at once.

S is the softmax over the background (channel 0) and the classes. Only components and watersheds are computed on the
CPU; what they give are weights of -log S_0, so that the differentiable part is one pass over the image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.wise.blobs import Points, false_positive_weights, find_blobs, split_weights

TERMS = ("image", "point", "split", "false_positive")


def location_losses(logits: Tensor, points: Points) -> dict[str, Tensor]:
    """The four terms of one image.

    Args:
        logits: (C + 1, H, W), channel 0 background.
        points: annotated ones; may be none, then point and split terms are 0.

    Returns:
        Scalars by the names in ``TERMS``; eq. 1 is their sum.
    """
    logits = logits.float()
    log_total = logits.logsumexp(0)  # (H, W)
    with torch.no_grad():
        blobs = find_blobs(logits.argmax(0).to(torch.int32).cpu().numpy())

        def probability(index: int | None) -> np.ndarray:
            chosen = logits[1:].amax(0) if index is None else logits[index]
            return (chosen - log_total).exp().cpu().numpy()

        weights = np.stack([split_weights(blobs, points, probability), false_positive_weights(blobs, points)])
        split, false_positive = torch.from_numpy(weights).to(logits.device)
    background = log_total - logits[0]  # -log S_0
    return {"image": image_term(logits, log_total, points), "point": point_term(logits, points),
            "split": (split * background).sum(), "false_positive": (false_positive * background).sum()}


def image_term(logits: Tensor, log_total: Tensor, points: Points) -> Tensor:
    """Is a class anywhere in the image? Binary cross-entropy of its largest probability, summed over the classes.

    The background is always there.

    Args:
        logits: (C + 1, H, W).
        log_total: (H, W), the logarithm of the sum of their exponentials.
        points: whose classes are there.
    """
    channels = len(logits)
    with torch.no_grad():
        peaks = (logits - log_total).flatten(1).argmax(1)  # (C + 1,) the pixel where each class is most probable
    at = logits.flatten(1)[:, peaks].T  # (classes, channels) at the peak of each class
    log_all = at.logsumexp(1)
    own = torch.eye(channels, dtype=torch.bool, device=logits.device)
    # 1 - S_c is the share of the other channels: as a sum of theirs it keeps its digits where S_c is close to 1.
    log_others = at.masked_fill(own, -torch.inf).logsumexp(1)
    present = torch.zeros(channels, dtype=torch.bool)
    present[[0, *points.classes.tolist()]] = True
    return torch.where(present.to(logits.device), log_all - at.diagonal(), log_all - log_others).sum()


def point_term(logits: Tensor, points: Points) -> Tensor:
    """-log S of its class at every point, summed."""
    if not len(points.classes):
        return logits.new_zeros(())
    yx, classes = (torch.from_numpy(array).to(logits.device) for array in (points.yx, points.classes))
    return functional.cross_entropy(logits[:, yx[:, 0], yx[:, 1]].T, classes, reduction="sum")

"""The loss of the instance subnetwork: true segments are matched to labels, as those of a class are equivalent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from stages.segmentation.labels import IGNORE

TIE = 1e-9  # of IoU: what the label of a segment's own box is worth more than another


class Truth(NamedTuple):
    """The (approximate) truth of one image: T segments, things by the instance and stuff by the class.

    Attributes:
        segments: (H, W) int64: 0 ... T - 1, or IGNORE.
        classes: (T,) int64, channels of the semantic segmentation.
        own: (T,) int64: which label was made from the segment's own box, or is its stuff class's; -1 if none.
    """

    segments: Tensor
    classes: Tensor
    own: Tensor


def match_segments(predicted: np.ndarray, label_classes: np.ndarray, segments: np.ndarray, classes: np.ndarray,
                   own: np.ndarray) -> np.ndarray:
    """Pair true segments with labels of their class so that the sum of their IoUs is the largest (section 3.5).

    IoUs are those of the pixels that are not ignored. Pairs of IoU 0 are none, but for a segment and the label of its
    own box: so a segment that no label of its class has found yet is still learned. Own labels win ties, too. The paper
    only names the matching; these rules are ours.

    Args:
        predicted: (H, W) integers, the label of each pixel.
        label_classes: (L,) the labels' classes.
        segments, classes, own: as in :class:`Truth`.

    Returns:
        (T,) int64: the label of each segment, or IGNORE.

    Raises:
        ValueError: a segment or label outside its range.
    """
    labels, count = len(label_classes), len(classes)
    known = segments != IGNORE
    found, true = predicted[known].astype(np.int64), segments[known].astype(np.int64)
    for name, values, limit in (("segments", true, count), ("labels", found, labels)):
        if values.size and not (values.min() >= 0 and values.max() < limit):
            raise ValueError(f"{name} must lie in [0, {limit}), got {values.min()} to {values.max()}")
    both = np.bincount(true * labels + found, minlength=count * labels).reshape(count, labels)
    areas = both.sum(1, keepdims=True)
    union = areas + both.sum(0) - both
    worth = both / np.maximum(union, 1) + TIE * ((own[:, None] == np.arange(labels)) & (areas > 0))
    worth *= classes[:, None] == label_classes
    partner = np.full(count, IGNORE, np.int64)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    kept = worth[rows, columns] > 0
    partner[rows[kept]] = columns[kept]
    return partner


def matching_loss(log_marginals: Tensor, label_classes: Tensor, truth: Truth) -> Tensor:
    """Cross-entropy of the marginals and the truth after matching, its mean over the pixels that are not ignored.

    Pixels of a segment without a partner (more segments of a class than labels, or no overlap) are ignored like those
    that have no segment.

    Args:
        log_marginals: (L, H, W), as ``InstanceHead`` gives them.
        label_classes: (L,) int64, the classes of its detections.
        truth: of the image, on any device.

    Returns:
        A scalar; 0, with a gradient of zeros, where all pixels are ignored.

    Raises:
        ValueError: sizes that do not fit each other, or what :func:`match_segments` refuses.
    """
    if log_marginals.shape[1:] != truth.segments.shape or len(log_marginals) != len(label_classes):
        raise ValueError(f"marginals {tuple(log_marginals.shape)} do not fit {len(label_classes)} labels and segments "
                         f"{tuple(truth.segments.shape)}")
    if log_marginals.numel() == 0:
        return log_marginals.sum()
    partner = match_segments(*(tensor.cpu().numpy() for tensor in (
        log_marginals.detach().argmax(0), label_classes, truth.segments, truth.classes, truth.own)))
    table = torch.from_numpy(np.append(partner, IGNORE)).to(log_marginals.device)
    segments = truth.segments.to(log_marginals.device)
    target = table[torch.where(segments == IGNORE, len(partner), segments)]
    known = (target != IGNORE).sum()
    losses = functional.nll_loss(log_marginals[None], target[None], ignore_index=IGNORE, reduction="none")
    return losses.sum() / known.clamp(min=1)

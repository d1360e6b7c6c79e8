"""The instance subnetwork: a semantic segmentation is parted among detections by a dense CRF (section 3.5, eq. 2 to 4).

The labels of the CRF are detections: boxes with a class and a score, and for each stuff class, background included, a
dummy of the whole image. In use::

    head = InstanceHead()
    labels = join(detections, stuff_detections(stuff_classes, log_q))
    log_marginals = head(network(image)[0].log_softmax(0), image_chw, labels)   # one image: (D, H, W)
    loss = matching_loss(log_marginals, labels.classes, truth)                  # training
    labels_hw = log_marginals.argmax(0)                                         # the panoptic output

In training the detections are the given boxes with score 1 and the stuff classes those that the image has; at test time
they are a detector's and all stuff classes. A piecewise training hands over ``log_q.detach()``. The four scalars learn
at ten times the network's rate [published results] and want no weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.propagation.kernels import Normalisation
from stages.propagation.label_mean_field import image_kernels, label_mean_field

IMPOSSIBLE = -20.0
"""Logarithm of a probability that nothing comes back from; finite, as the CRF wants it."""


class Detections(NamedTuple):
    """What a pixel may belong to: the labels of the instance CRF of one image.

    Attributes:
        boxes: (D, 4) floating, xyxy on pixel edges [px]: a single pixel at column 3 has the box 3 to 4.
        classes: (D,) int64, channels of the semantic segmentation.
        scores: (D,) floating in [0, 1].
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor


def stuff_detections(classes: Sequence[int], like: Tensor) -> Detections:
    """Dummies of score 1 and of the whole image, one for each of the stuff classes (section 3.5).

    Args:
        classes: channels of the semantic segmentation, the background's too.
        like: (..., H, W): size, type and device.
    """
    height, width = like.shape[-2:]
    boxes = like.new_tensor([0.0, 0.0, width, height]).repeat(len(classes), 1)
    return Detections(boxes, torch.tensor(list(classes), dtype=torch.int64, device=like.device),
                      like.new_ones(len(classes)))


def join(*parts: Detections) -> Detections:
    """All detections of the parts, in their order."""
    return Detections(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def inside_boxes(boxes: Tensor, like: Tensor) -> Tensor:
    """(D, H, W) bool: which pixels of ``like`` (..., H, W) lie, with their centres, in which of the boxes (D, 4)."""
    across, down = (torch.arange(size, device=boxes.device) + 0.5 for size in (like.shape[-1], like.shape[-2]))
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # (D, 1) each
    return ((down >= top) & (down < bottom))[:, :, None] & ((across >= left) & (across < right))[:, None]


def keep_in_boxes(log_q: Tensor, detections: Detections, things: Sequence[int]) -> Tensor:
    """Where no box of a thing's class is, the thing has no probability: for boxes that are all that there are.

    Section 3.4 asks this of labels; eq. 2 to 4 only prefer the inside of a box, because detections may be wrong.

    Args:
        log_q: (C, H, W) floating, finite.
        detections: of the image; those of stuff do not count.
        things: channels of ``log_q``.

    Returns:
        (C, H, W): :data:`IMPOSSIBLE` for things outside all boxes of their class, the rest as it was.
    """
    chosen = torch.tensor(list(things), device=log_q.device)
    of_things = torch.isin(detections.classes, chosen)
    kept = torch.ones_like(log_q, dtype=torch.bool)
    kept[chosen] = False
    for channel, inside in zip(detections.classes[of_things].tolist(),
                               inside_boxes(detections.boxes[of_things], log_q), strict=True):
        kept[channel] |= inside
    return log_q.masked_fill(~kept, IMPOSSIBLE)


def instance_unaries(log_q: Tensor, detections: Detections, box_weight: Tensor | float,
                     global_weight: Tensor | float) -> Tensor:
    """The unary terms of eq. 2 to 4, in log space.

    With psi_Box = s_k Q_i(l_k) [i in B_k] and psi_Global = Q_i(l_k), eq. 2's logarithm is a sum,

        log(w1 psi_Box + w2 psi_Global) = log Q_i(l_k) + log(w2 + w1 s_k [i in B_k]),

    which needs no epsilon. Only w1 / w2 matters: a common factor is one for all labels.

    Args:
        log_q: (C, H, W) floating, finite: log Q of the semantic segmentation.
        detections: D of them. A pixel lies in a box where its centre does: a box outside the image has none.
        box_weight: w1 >= 0.
        global_weight: w2 > 0.

    Returns:
        (D, H, W) of ``log_q``'s type; the gradient is for ``log_q`` and both weights.

    Raises:
        ValueError: shapes that do not fit each other, or a class that ``log_q`` lacks.
    """
    if log_q.ndim != 3 or not log_q.is_floating_point():
        raise ValueError(f"log_q must be floating (C, H, W), got {log_q.dtype} {tuple(log_q.shape)}")
    boxes, count = detections.boxes, len(detections.boxes)
    if boxes.shape != (count, 4) or detections.classes.shape != (count,) or detections.scores.shape != (count,):
        raise ValueError("detections must be boxes (D, 4), classes (D,) and scores (D,), got "
                         f"{[tuple(field.shape) for field in detections]}")
    classes = detections.classes.tolist()
    if count == 0:
        return log_q[:0]
    if min(classes) < 0 or max(classes) >= len(log_q):
        raise ValueError(f"classes must lie in [0, {len(log_q)}), got {classes}")
    inside = inside_boxes(boxes, log_q)
    outer = torch.as_tensor(global_weight, dtype=log_q.dtype, device=log_q.device)
    inner = outer + box_weight * detections.scores.to(log_q)
    weight = torch.where(inside, inner.log()[:, None, None], outer.log())
    maps = log_q.unbind(0)  # their gradients are added in one order, which an index's need not be
    return torch.stack([maps[index] for index in classes]) + weight


class InstanceHead(nn.Module):
    """Eq. 2 by mean-field as a recurrent network: Potts terms of a Gaussian and a bilateral kernel, four scalars learn.

    w1 and w2 of eq. 2 are kept as logarithms, so that no step of an optimiser makes them negative.

    Args:
        box_weight, global_weight: w1 and w2 of eq. 2 at the start, > 0 (1 and 1, published results).
        gaussian_weight, bilateral_weight: of the pairwise terms at the start (3 and 4, published results).
        gaussian_xy, bilateral_xy, bilateral_rgb: widths [px, px, 8-bit levels] (3, 49 and 5, published results); scale
            the first two with the image.
        steps: of mean-field, >= 0 (3, published results).
        normalisation: of the kernels, ``symmetric`` or ``rows``, see :class:`stages.propagation.kernels.Kernel`.

    Raises:
        ValueError: w1 or w2 not above 0.
    """

    def __init__(self, *, box_weight: float = 1.0, global_weight: float = 1.0, gaussian_weight: float = 3.0,
                 bilateral_weight: float = 4.0, gaussian_xy: float = 3.0, bilateral_xy: float = 49.0,
                 bilateral_rgb: float = 5.0, steps: int = 3, normalisation: Normalisation = "symmetric") -> None:
        super().__init__()
        if not min(box_weight, global_weight) > 0:
            raise ValueError(f"the unary weights must be positive, got {box_weight} and {global_weight}")
        self.log_unary_weights = nn.Parameter(torch.tensor([float(box_weight), float(global_weight)]).log())
        self.pairwise_weights = nn.Parameter(torch.tensor([float(gaussian_weight), float(bilateral_weight)]))
        self.gaussian_xy, self.bilateral_xy, self.bilateral_rgb = gaussian_xy, bilateral_xy, bilateral_rgb
        self.steps = steps
        self.normalisation: Normalisation = normalisation

    def forward(self, log_q: Tensor, image: Tensor, detections: Detections) -> Tensor:
        """Logarithm of the marginals of one image's pixels over its detections.

        Args:
            log_q: (C, H, W) floating, finite: log Q of the semantic segmentation; float64 is kept, all else becomes
                float32. Mixed precision does not reach the CRF.
            image: (3, H, W) RGB in [0, 255], floating or uint8, as large as ``log_q``.
            detections: D of them, stuff included.

        Returns:
            (D, H, W); ``exp`` of it sums to one over D. Empty without any detection.

        Raises:
            ValueError: what :func:`instance_unaries`, ``image_kernels`` and ``label_mean_field`` refuse.
        """
        log_q = log_q if log_q.dtype == torch.float64 else log_q.float()
        kernels = image_kernels(image.to(log_q.dtype), gaussian_xy=self.gaussian_xy, bilateral_xy=self.bilateral_xy,
                                bilateral_rgb=self.bilateral_rgb, normalisation=self.normalisation)
        unaries = instance_unaries(log_q, detections, *self.log_unary_weights.exp())
        return label_mean_field(unaries, kernels, self.pairwise_weights, self.steps)

    def scalars(self) -> dict[str, float]:
        """The four learned numbers, to be logged."""
        names = ("box_weight", "global_weight", "gaussian_weight", "bilateral_weight")
        return dict(zip(names, (*self.log_unary_weights.exp().tolist(), *self.pairwise_weights.tolist()), strict=True))

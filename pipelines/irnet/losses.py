"""IRNet's losses on pairs of pixels (eq. 5, 6 and 8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.irnet.settings import IGNORE
from stages.propagation.affinity import line_highest
from stages.propagation.pairs import neighbour_offsets, pair_views


def relation_losses(displacement: Tensor, boundary: Tensor, labels: Tensor, radius: float,
                    axes: Literal["sum", "mean"] = "sum") -> dict[str, Tensor]:
    """The three losses of eq. 9 over all pairs closer than ``radius``.

    Args:
        displacement: (N, 2, h, w), (dy, dx) in cells.
        boundary: (N, h, w) logits. The affinity of eq. 7 is a = 1 - max of sigmoid(b) on the line, so with m the
            largest logit there log a = -softplus(m) and log(1 - a) = -softplus(-m): exact however sure the network
            is, with a gradient of almost 1 where it is sure and wrong.
        labels: (N, h, w) pseudo class map: 0 background, 1.. classes, 255 outside the confident areas.
        radius: gamma of eq. 2 [cells].
        axes: what the L1 norm of a displacement is of its two axes: their sum, or their mean, half of that.

    Returns:
        ``displacement_foreground`` (eq. 5, in cells), ``displacement_background`` (eq. 6), ``boundary`` (eq. 8).
        The sums are divided by the numbers of pairs image by image, and averaged over the images, so that the
        gradient does not depend on how a batch is shared by processes. A set of pairs that is empty contributes 0.
    """
    # Mixed precision may give either in half precision, where long sums lose what comes last.
    displacement = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
    boundary = boundary.to(torch.promote_types(boundary.dtype, torch.float32))
    zero = (displacement.sum(dim=(1, 2, 3)) + boundary.sum(dim=(1, 2))) * 0  # (N,), with a gradient
    sums = {name: zero for name in ("fg", "bg", "log_fg", "log_bg", "log_other")}
    counts = {name: labels.new_zeros(len(labels), dtype=torch.float32) for name in ("fg", "bg", "other")}
    for offset, step, foreground, background, other in _pairs(labels, radius, like=displacement):
        for name, chosen in (("fg", foreground), ("bg", background), ("other", other)):
            counts[name] = counts[name] + chosen.sum(dim=(1, 2))

        d_i, d_j = pair_views(displacement, offset)
        delta = d_i - d_j
        sums["fg"] = sums["fg"] + ((delta - step).abs().sum(1) * foreground).sum(dim=(1, 2))
        sums["bg"] = sums["bg"] + (delta.abs().sum(1) * background).sum(dim=(1, 2))

        highest = line_highest(boundary, offset)
        log_same, log_other = functional.logsigmoid(-highest), functional.logsigmoid(highest)
        sums["log_fg"] = sums["log_fg"] + (log_same * foreground).sum(dim=(1, 2))
        sums["log_bg"] = sums["log_bg"] + (log_same * background).sum(dim=(1, 2))
        sums["log_other"] = sums["log_other"] + (log_other * other).sum(dim=(1, 2))
    n_fg, n_bg, n_other = (counts[name].clamp(min=1) for name in ("fg", "bg", "other"))
    share = 1.0 if axes == "sum" else 0.5
    return {
        "displacement_foreground": share * (sums["fg"] / n_fg).mean(),
        "displacement_background": share * (sums["bg"] / n_bg).mean(),
        "boundary": -(sums["log_fg"] / (2 * n_fg) + sums["log_bg"] / (2 * n_bg) + sums["log_other"] / n_other).mean(),
    }


@torch.no_grad()
def displacement_errors(displacement: Tensor, labels: Tensor, radius: float) -> np.ndarray:
    """Eq. 5 of one image axis by axis, of its field and of a field of zeros: an axis that is no better has learnt
    nothing, and the sum over both, the equation's L1 norm, hides it behind the other.

    Args:
        displacement: (2, h, w), (dy, dx) in cells.
        labels: (h, w) pseudo class map, as above.
        radius: gamma of eq. 2 [cells].

    Returns:
        (2, 2) float64 [cells]: dy and dx of the field, then of zeros; 0 without confident foreground.
    """
    fields = torch.stack([displacement, torch.zeros_like(displacement)]).float()
    sums, counts = [fields.new_zeros(2, 2)], [labels.new_zeros((), dtype=torch.int64)]
    for offset, step, foreground, _, _ in _pairs(labels[None], radius, like=fields):
        d_i, d_j = pair_views(fields, offset)
        sums.append(((d_i - d_j - step).abs() * foreground[:, None]).sum(dim=(2, 3)))
        counts.append(foreground.sum())
    return (torch.stack(sums).cpu().double().sum(0) / torch.stack(counts).sum().cpu().clamp(min=1)).numpy()


def _pairs(labels: Tensor, radius: float, *, like: Tensor
           ) -> Iterator[tuple[tuple[int, int], Tensor, Tensor, Tensor, Tensor]]:
    """Eq. 2, offset by offset: (dy, dx), the same as (1, 2, 1, 1) like ``like``, and which pairs (N, h', w') of the
    confident areas are of one class, of the background, and of different classes.
    """
    confident = labels != IGNORE
    offsets = neighbour_offsets(radius)
    # All at once: a copy of its own for each offset would make the host wait for a GPU 152 times a step.
    steps = torch.from_numpy(offsets).to(like).view(-1, 1, 2, 1, 1)
    for (dy, dx), step in zip(offsets.tolist(), steps, strict=True):
        label_i, label_j = pair_views(labels, (dy, dx))
        if label_i.numel() == 0:
            continue
        sure_i, sure_j = pair_views(confident, (dy, dx))
        sure = sure_i & sure_j
        same = sure & (label_i == label_j)
        yield (dy, dx), step, same & (label_i > 0), same & (label_i == 0), sure & (label_i != label_j)

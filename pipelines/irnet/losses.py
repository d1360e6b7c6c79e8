"""IRNet's losses on pairs of pixels (eq. 5, 6 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.propagation.affinity import pair_affinity
from stages.propagation.pairs import neighbour_offsets, pair_views

IGNORE = 255
# Affinities are kept this far from 0 and 1: their logarithm is taken.
_MARGIN = 1e-5


def relation_losses(displacement: Tensor, boundary: Tensor, labels: Tensor, radius: float) -> dict[str, Tensor]:
    """The three losses of eq. 9 over all pairs closer than ``radius``.

    Args:
        displacement: (N, 2, h, w), (dy, dx) in cells.
        boundary: (N, h, w) in 0..1.
        labels: (N, h, w) pseudo class map: 0 background, 1.. classes, 255 outside the confident areas.
        radius: gamma of eq. 2 [cells].

    Returns:
        ``displacement_foreground`` (eq. 5, in cells), ``displacement_background`` (eq. 6), ``boundary`` (eq. 8).
        A set of pairs that is empty contributes 0. Pairs are counted over the whole batch.
    """
    # Mixed precision may give either in half precision, where 1 - _MARGIN is 1 and long sums lose what comes last.
    displacement = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
    boundary = boundary.to(torch.promote_types(boundary.dtype, torch.float32))
    confident = labels != IGNORE
    zero = displacement.sum() * 0 + boundary.sum() * 0
    sums = {name: zero for name in ("fg", "bg", "log_fg", "log_bg", "log_other")}
    counts = {name: labels.new_zeros((), dtype=torch.float32) for name in ("fg", "bg", "other")}
    for offset in neighbour_offsets(radius):
        dy, dx = int(offset[0]), int(offset[1])
        label_i, label_j = pair_views(labels, (dy, dx))
        if label_i.numel() == 0:
            continue
        sure_i, sure_j = pair_views(confident, (dy, dx))
        sure = sure_i & sure_j
        same = sure & (label_i == label_j)
        foreground, background = same & (label_i > 0), same & (label_i == 0)
        other = sure & (label_i != label_j)
        for name, chosen in (("fg", foreground), ("bg", background), ("other", other)):
            counts[name] = counts[name] + chosen.sum()

        d_i, d_j = pair_views(displacement, (dy, dx))
        delta = d_i - d_j
        wanted = delta.new_tensor([dy, dx]).view(1, 2, 1, 1)  # x_j - x_i
        sums["fg"] = sums["fg"] + ((delta - wanted).abs().sum(1) * foreground).sum()
        sums["bg"] = sums["bg"] + (delta.abs().sum(1) * background).sum()

        affinity = pair_affinity(boundary, (dy, dx)).clamp(_MARGIN, 1 - _MARGIN)
        log_same, log_other = affinity.log(), (1 - affinity).log()
        sums["log_fg"] = sums["log_fg"] + (log_same * foreground).sum()
        sums["log_bg"] = sums["log_bg"] + (log_same * background).sum()
        sums["log_other"] = sums["log_other"] + (log_other * other).sum()
    n_fg, n_bg, n_other = (counts[name].clamp(min=1) for name in ("fg", "bg", "other"))
    return {
        "displacement_foreground": sums["fg"] / n_fg,
        "displacement_background": sums["bg"] / n_bg,
        "boundary": -sums["log_fg"] / (2 * n_fg) - sums["log_bg"] / (2 * n_bg) - sums["log_other"] / n_other,
    }

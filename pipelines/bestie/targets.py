"""What guides centres and offsets: Gaussians, offsets, weights of pixels; for a batch, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Guidance of a batch of crops (sections 3.3 to 3.5).

    Attributes:
        centre: (B, C, H, W) class-wise heat.
        offset: (B, 2, H, W) as (dy, dx) [px].
        centre_weight: (B, H, W) weight of a pixel in eq. 3, 0 where it is not guided.
        offset_weight: (B, H, W) the same in eq. 4.
    """

    centre: Tensor
    offset: Tensor
    centre_weight: Tensor
    offset_weight: Tensor

    def unguided(self, inside: Tensor) -> Targets:
        """The same without instance-aware guidance: every pixel of the pictures (B, H, W) counts, with weight 1."""
        weight = inside.to(self.centre)
        return Targets(self.centre, self.offset, weight, weight)


def gaussian_maps(image: Tensor, category: Tensor, y: Tensor, x: Tensor, shape: tuple[int, int, int, int],
                  sigma: float) -> Tensor:
    """Class-wise Gaussians with peak 1 at the centres, the higher one where they overlap (section 3.3).

    Args:
        image, category, y, x: (n,) int64 of the centres; a negative category is no centre.
        shape: (B, C, H, W).
        sigma: standard deviation [px]; each is cut off beyond 3 sigma + 1 along either axis (published code).

    Returns:
        ``shape``, float32.
    """
    radius = int(3 * sigma + 1)
    steps = torch.arange(-radius, radius + 1, device=y.device)
    kernel = (-(steps[:, None] ** 2 + steps ** 2) / (2 * sigma ** 2)).exp().float()
    rows, columns = y[:, None, None] + steps[:, None], x[:, None, None] + steps  # (n, k, 1), (n, 1, k)
    inside = (rows >= 0) & (rows < shape[2]) & (columns >= 0) & (columns < shape[3])
    inside = inside & (category >= 0)[:, None, None]
    plane = (image * shape[1] + category.clamp(min=0))[:, None, None]
    at = (plane * shape[2] + rows.clamp(0, shape[2] - 1)) * shape[3] + columns.clamp(0, shape[3] - 1)
    maps = torch.zeros(shape, device=y.device)
    maps.view(-1).scatter_reduce_(0, at.flatten(), (kernel * inside).flatten(), "amax")
    return maps


def pseudo_targets(instances: Tensor, centres: Tensor, classes: int, sigma: float, foreground: Tensor | None = None
                   ) -> Targets:
    """Guidance by pseudo labels.

    Args:
        instances: (B, H, W) int, 0 or the row of ``centres`` from 1.
        centres: (B, n, 3) int64 rows (class index, y, x); rows of -1 fill up.
        classes: how many.
        sigma: of the Gaussians [px].
        foreground: (B, H, W) bool: with annotated points, where all centres are known, the heat is guided on all of
            the foreground; left out, it is guided where offsets are, on the pseudo instances (section 3.4).
    """
    count, height, width = instances.shape
    image = torch.arange(count, device=instances.device)
    flat = centres.flatten(0, 1)
    heat = gaussian_maps(image.repeat_interleave(centres.shape[1]), flat[:, 0], flat[:, 1], flat[:, 2],
                         (count, classes, height, width), sigma)
    table = torch.cat([centres.new_zeros(count, 1, 3), centres], dim=1)[..., 1:]
    aims = table[image.view(-1, 1, 1), instances.long()]  # (B, H, W, 2)
    rows = torch.arange(height, device=instances.device)[:, None]
    columns = torch.arange(width, device=instances.device)
    guided = instances > 0
    offset = torch.stack([aims[..., 0] - rows, aims[..., 1] - columns], dim=1) * guided[:, None]
    weight = guided.float()
    return Targets(heat, offset.float(), weight if foreground is None else foreground.float(), weight)

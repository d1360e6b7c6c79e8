"""Kernels between all pixels of an image, as linear filters of maps with a gradient: what dense CRFs sum with.

A kernel is a matrix with a row and a column per pixel, made from the image once and applied in each mean-field step.
The gradient goes through the filtered values; an image gets none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.propagation.pairs import Offset, pair_views
from stages.propagation.permutohedral import build_lattice, filter_values

Normalisation = Literal["symmetric", "rows"]
Filter = Callable[[Tensor], Tensor]  # (B, L, H, W) -> (B, L, H, W), each map alone; makes a new tensor

WEIGHT_BYTES = 2**28  # what a window's stored weights may take; a crop that needs more computes them in every step
REACH = 8.5  # standard deviations; beyond them a Gaussian is less than what float64 rounds off
BAND = 64  # rows of a Gaussian's matrix that are multiplied at once


class Kernel(NamedTuple):
    """A normalised kernel diag(after) K diag(before); calling it filters maps (B, L, H, W).

    ``symmetric``: k_ij / sqrt(sum_l k_il sum_l k_jl), pydensecrf's default. ``rows``: k_ij / sum_l k_il, its
    NORMALIZE_AFTER, which makes each message a mean. The sums include the pixel itself.
    """

    filtered: Filter  # K
    transposed: Filter  # K transposed
    before: Tensor | None  # (B, 1, H, W), None for ones
    after: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Filter (B, L, H, W); the gradient for the values is that of the transposed matrix."""
        return _Filtered.apply(values, self)


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, kernel: Kernel) -> Tensor:
        ctx.kernel = kernel
        return kernel.filtered(values if kernel.before is None else values * kernel.before).mul_(kernel.after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        kernel: Kernel = ctx.kernel
        back = kernel.transposed(gradient * kernel.after)
        return back if kernel.before is None else back.mul_(kernel.before), None


def _normalised(filtered: Filter, transposed: Filter, like: Tensor, normalisation: Normalisation) -> Kernel:
    """The kernel of a filter and its transpose for maps like (B, H, W)."""
    if normalisation not in ("symmetric", "rows"):
        raise ValueError(f"a kernel's normalisation is symmetric or rows, got {normalisation!r}")
    sums = filtered(torch.ones_like(like)[:, None])
    if normalisation == "rows":
        return Kernel(filtered, transposed, None, sums.reciprocal_())
    scale = sums.rsqrt_()
    return Kernel(filtered, transposed, scale, scale)


def gaussian_kernel(like: Tensor, width_xy: float, normalisation: Normalisation = "symmetric") -> Kernel:
    """exp(-d^2 / 2 width_xy^2), d the distance of two pixels; exact, as it is separable: two small matrices.

    Args:
        like: (B, H, W): size, type and device of the maps.
        width_xy: standard deviation [pixels].
        normalisation: see :class:`Kernel`.
    """
    down, across = (_gaussian_matrix(size, width_xy, like) for size in like.shape[-2:])
    reach = math.ceil(REACH * width_xy)

    def filtered(values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):  # it would multiply in 16 bits
            rows = torch.cat([part @ values[..., near, :] for part, near in _bands(down, reach)], dim=-2)
            return torch.cat([rows[..., near] @ part.t() for part, near in _bands(across, reach)], dim=-1)

    return _normalised(filtered, filtered, like, normalisation)


def _gaussian_matrix(size: int, width: float, like: Tensor) -> Tensor:
    """(size, size), symmetric: exp(-(i - j)^2 / 2 width^2)."""
    position = torch.arange(size, dtype=torch.float64, device="cpu") / width  # some devices have no float64
    return torch.exp(-((position[:, None] - position[None]) ** 2) / 2).to(like)


def _bands(matrix: Tensor, reach: int) -> Iterator[tuple[Tensor, slice]]:
    """Rows of a matrix, some at a time, and which columns count in them."""
    size = len(matrix)
    step = BAND if size > BAND + 2 * reach else size
    for first in range(0, size, step):
        near = slice(max(0, first - reach), first + step + reach)
        yield matrix[first : first + step, near], near


def bilateral_kernel(colour: Tensor, width_xy: float, normalisation: Normalisation = "symmetric") -> Kernel:
    """exp(-d^2 / 2 width_xy^2 - |c|^2 / 2) on the permutohedral lattice, c the difference of two pixels' colours.

    Args:
        colour: (B, 3, H, W), divided by the colour width.
        width_xy: spatial standard deviation [pixels].
        normalisation: see :class:`Kernel`.

    Raises:
        ValueError: widths that are too small for a lattice over the image.
    """
    batch, _, height, width = colour.shape
    down, across = (torch.arange(size, device=colour.device, dtype=colour.dtype) for size in (height, width))
    place = torch.stack([across.expand(height, width), down[:, None].expand(height, width)]) / width_xy
    features = torch.cat([place.expand(batch, 2, height, width), colour], dim=1)
    lattice = build_lattice(features.reshape(batch, 5, -1))

    def filtered(values: Tensor, transposed: bool = False) -> Tensor:
        rows = values.permute(0, 2, 3, 1).reshape(batch * height * width, -1)
        rows = filter_values(lattice, rows, transposed=transposed)
        return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()

    return _normalised(filtered, lambda values: filtered(values, True), colour[:, 0], normalisation)


def window_offsets(height: int, width: int, radius: int, dilation: int = 1) -> list[Offset]:
    """Offsets (dy, dx), multiples of ``dilation`` up to ``radius``, that join two pixels of an image.

    One of each offset and its opposite: dy > 0, or dy == 0 and dx > 0.
    """
    down, across = (min(radius, size - 1) // dilation * dilation for size in (height, width))
    return [
        (dy, dx)
        for dy in range(0, down + 1, dilation)
        for dx in range(-across, across + 1, dilation)
        if (dy, dx) > (0, 0)
    ]


def window_kernel(
    colour: Tensor,
    width_xy: float,
    offsets: list[Offset],
    dilation: int = 1,
    normalisation: Normalisation = "symmetric",
) -> Kernel:
    """The kernel of :func:`bilateral_kernel`, exact, but cut to a window of offsets.

    Args:
        colour: (B, 3, H, W), divided by the colour width.
        width_xy: spatial standard deviation [pixels].
        offsets: as :func:`window_offsets` gives them: each pair is met once, and its weight serves both its ends.
        dilation: each pair stands for dilation^2 pairs, the pixel itself for one.
        normalisation: see :class:`Kernel`.
    """

    def weights() -> Iterator[Tensor]:
        for dy, dx in offsets:
            here, there = pair_views(colour, (dy, dx))
            exponent = (there - here).square_().sum(1, keepdim=True)
            exponent += (dy * dy + dx * dx) / width_xy**2
            yield exponent.mul_(-0.5).exp_().mul_(dilation**2)

    size = len(offsets) * colour[:, 0].numel() * colour.element_size()
    stored = list(weights()) if size <= WEIGHT_BYTES else None

    def filtered(values: Tensor) -> Tensor:
        total = values.clone()  # a pixel's kernel with itself is 1
        for offset, weight in zip(offsets, stored or weights(), strict=True):
            here, there = pair_views(values, offset)
            total_here, total_there = pair_views(total, offset)
            total_here.addcmul_(weight, there)
            total_there.addcmul_(weight, here)
        return total

    return _normalised(filtered, filtered, colour[:, 0], normalisation)

"""Kernels between all pixels of an image, as linear filters of maps: what the mean-field of dense CRFs sums with.

A kernel is a matrix with a row and a column per pixel, made from the image once and applied in each mean-field step;
its transpose takes a gradient back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stages.propagation.pairs import Offset, pair_views
from stages.propagation.permutohedral import Lattice, build_lattice, filter_values, scaled, transposed
from stages.runtime.devices import exact_products

Normalisation = Literal["symmetric", "rows"]
Filter = Callable[[Tensor], Tensor]

WEIGHT_BYTES = 2**28  # what a window's stored weights may take; a crop that needs more computes them in every step
BAND = 64  # rows of a Gaussian's matrix that are multiplied at once


class Kernel(NamedTuple):
    """A normalised kernel. Both filters take maps (B, L, H, W), filter each alone, and make new ones; no gradient.

    ``symmetric``: k_ij / sqrt(sum_l k_il sum_l k_jl), pydensecrf's default. ``rows``: k_ij / sum_l k_il, its
    NORMALIZE_AFTER, which makes each message a mean. The sums include the pixel itself.
    """

    filtered: Filter
    transposed: Filter
    size: tuple[int, int]  # H, W
    dtype: torch.dtype


def _scales(sums: Tensor, normalisation: Normalisation) -> tuple[Tensor | None, Tensor]:
    """What the columns and the rows of a kernel with these row sums are to be multiplied by; None for ones."""
    if normalisation == "rows":
        return None, sums.reciprocal()
    if normalisation == "symmetric":
        scale = sums.rsqrt()
        return scale, scale
    raise ValueError(f"a kernel's normalisation is symmetric or rows, got {normalisation!r}")


def gaussian_kernel(like: Tensor, width_xy: float, normalisation: Normalisation = "symmetric") -> Kernel:
    """exp(-d^2 / 2 width_xy^2), d the distance of two pixels; exact, as it is separable: two small matrices.

    Args:
        like: (B, H, W): size, type and device of the maps.
        width_xy: standard deviation [pixels].
        normalisation: see :class:`Kernel`.
    """
    height, width = like.shape[-2:]
    down, across = (_gaussian_matrix(size, width_xy, like, normalisation) for size in (height, width))
    # Beyond it the matrices are less than what their type rounds off.
    reach = math.ceil(width_xy * math.sqrt(-2 * math.log(torch.finfo(like.dtype).eps / 16)))
    return Kernel(lambda values: _separable(values, down, across, reach),
                  lambda values: _separable(values, down.t(), across.t(), reach), (height, width), like.dtype)


@torch.no_grad()
@exact_products()
def _separable(values: Tensor, down: Tensor, across: Tensor, reach: int) -> Tensor:
    """``down @ values @ across.T``; products into given tensors are what mixed precision leaves alone."""
    maps = values.reshape(-1, *values.shape[-2:]).contiguous()
    rows = torch.empty_like(maps)
    for band, near in _bands(len(down), reach):
        torch.bmm(down[band, near].expand(len(maps), -1, -1), maps[:, near], out=rows[:, band])
    filtered = torch.empty_like(rows)
    for band, near in _bands(len(across), reach):
        torch.mm(rows.flatten(0, 1)[:, near], across[band, near].t(), out=filtered.view(-1, len(across))[:, band])
    return filtered.reshape(values.shape)


def _bands(size: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """Rows of a matrix, some at a time, and which columns count in them."""
    step = BAND if size > BAND + 2 * reach else size
    for first in range(0, size, step):
        yield slice(first, first + step), slice(max(0, first - reach), first + step + reach)


def _gaussian_matrix(size: int, width: float, like: Tensor, normalisation: Normalisation) -> Tensor:
    """(size, size): exp(-(i - j)^2 / 2 width^2), normalised along this axis, so that both together are normalised."""
    position = torch.arange(size, dtype=torch.float64, device="cpu") / width  # some devices have no float64
    kernel = torch.exp(-((position[:, None] - position[None]) ** 2) / 2)
    before, after = _scales(kernel.sum(1), normalisation)
    return (kernel * after[:, None] * (1 if before is None else before)).to(like)


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
    before, after = _scales(filter_values(lattice, torch.ones_like(colour[:, 0]).reshape(-1, 1))[:, 0], normalisation)
    there = scaled(lattice, before, after)
    back = scaled(transposed(lattice), after, before) if normalisation == "rows" else transposed(there)

    def through(lattice: Lattice, values: Tensor) -> Tensor:
        rows = filter_values(lattice, values.permute(0, 2, 3, 1).reshape(batch * height * width, -1))
        return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()

    return Kernel(lambda values: through(there, values), lambda values: through(back, values), (height, width),
                  colour.dtype)


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

    @torch.no_grad()
    def summed(values: Tensor) -> Tensor:
        total = values.clone()  # a pixel's kernel with itself is 1
        for offset, weight in zip(offsets, stored or weights(), strict=True):
            here, there = pair_views(values, offset)
            total_here, total_there = pair_views(total, offset)
            total_here.addcmul_(weight, there)
            total_there.addcmul_(weight, here)
        return total

    def through(values: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        total = summed(values if before is None else values * before)
        return total if after is None else total.mul_(after)

    before, after = _scales(summed(torch.ones_like(colour[:, :1])), normalisation)
    height, width = colour.shape[-2:]
    return Kernel(lambda values: through(values, before, after), lambda values: through(values, after, before),
                  (height, width), colour.dtype)

"""Class probabilities of whole images: scales, mirror images, and tiles where an image is too large for one look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.cues.backbone import Grid, resample_output
from stages.segmentation.labels import IGNORE

# Tiles start at multiples of this, so that their cells are those of the whole image [px].
_ALIGN = 32
_OVERLAP = 4  # neighbouring tiles share at least this part of their side


class DenseModel(Protocol):
    """What is asked of a network: logits (N, classes, h, w) of images (N, 3, H, W), and where their cells lie."""

    grid: Grid

    def cells(self, images: Tensor) -> Tensor: ...


Span = tuple[int, int]


def infer_semantic(model: DenseModel, image: Tensor, *, scales: Sequence[float] = (1.0,), flip: bool = False,
                   max_pixels: int = 1024 * 512, classes: Sequence[int] | None = None) -> Tensor:
    """Probabilities of the classes at every pixel, averaged over scales, mirror images and overlapping tiles.

    Memory beyond the network's on one tile is one map per class at image size: each tile's logits go from their cells
    straight to the pixels of the image.

    Args:
        model: in evaluation mode, on the image's device.
        image: (3, H, W) uint8 RGB.
        scales: factors on the image's size.
        flip: also look at the mirrored image.
        max_pixels: most pixels of a view that is looked at at once; a larger view is cut into tiles.
        classes: channels of the model to choose from, e.g. background and an image's tags; all if none are given. The
            others have probability 0.

    Returns:
        (len(classes), H, W) float32, which sum to 1 at every pixel.
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    for scale in scales:
        view = _scaled(image, scale)
        sides = (view.shape[-2], view.shape[-1])
        tile = tile_sides(*sides, max_pixels)
        rows, columns = spans(sides[0], tile[0]), spans(sides[1], tile[1])
        row_shares, column_shares = shares(rows, sides[0], height), shares(columns, sides[1], width)
        for span_y, share_y in zip(rows, row_shares, strict=True):
            for span_x, share_x in zip(columns, column_shares, strict=True):
                top, bottom = _covered(share_y)
                left, right = _covered(share_x)
                found = _tile_probabilities(model, view, (span_y, span_x), (top, bottom), (left, right),
                                            (sides[0] / height, sides[1] / width), flip, classes)
                if total is None:
                    total = found.new_zeros(len(found), height, width)
                share = share_y[top:bottom, None] * share_x[left:right]
                total[:, top:bottom, left:right] += found * share.to(found)
    assert total is not None, "at least one scale"
    return total.div_(len(scales))  # in place: a map per class is what takes the memory


def infer_cells(model: DenseModel, image: Tensor, *, max_pixels: int = 1024 * 512, flip: bool = False,
                scale: float = 1.0) -> Tensor:
    """Logits on the cells of the network's grid, averaged over overlapping tiles and perhaps the mirrored image.

    What an image of any size is kept as between two steps of work: a cell of stride 8 stands for 64 pixels. At the
    pixels, ``cells_to_pixels`` gives what the network itself would.

    Args:
        model: in evaluation mode, on the image's device.
        image: (3, H, W) uint8 RGB.
        max_pixels: most pixels that are looked at at once; a larger image is cut into tiles.
        flip: also look at the mirrored image.
        scale: factor on the image's size at which it is looked at; H and W below are those of that view.

    Returns:
        (classes, ceil(H / stride), ceil(W / stride)) float32.
    """
    view = _scaled(image, scale)
    sides = (view.shape[-2], view.shape[-1])
    grid = model.grid
    cells = (-(-sides[0] // round(grid.stride)), -(-sides[1] // round(grid.stride)))
    tile = tile_sides(*sides, max_pixels)
    rows, columns = spans(sides[0], tile[0]), spans(sides[1], tile[1])
    row_shares, column_shares = (shares_at(found, side, grid.origin + grid.stride * torch.arange(
        count, dtype=torch.float64) + 0.5) for found, side, count in ((rows, sides[0], cells[0]),
                                                                       (columns, sides[1], cells[1])))
    total: Tensor | None = None
    for (top, bottom), share_y in zip(rows, row_shares, strict=True):
        for (left, right), share_x in zip(columns, column_shares, strict=True):
            y, x = _covered(share_y), _covered(share_x)
            pixels = view[None, :, top:bottom, left:right]
            logits = model.cells(torch.cat([pixels, pixels.flip(-1)]) if flip else pixels)
            down, across = (Grid(grid.stride, grid.origin + grid.stride * first - start)
                            for first, start in ((y[0], top), (x[0], left)))
            size = (y[1] - y[0], x[1] - x[0])
            found = resample_output(logits[:1], grid, down, size, (grid, across))[0]
            if flip:  # pixel p of the tile is pixel width - 1 - p of its mirror image
                back = Grid(-grid.stride, right - left - 1 - across.origin)
                found = (found + resample_output(logits[1:], grid, down, size, (grid, back))[0]) / 2
            if total is None:
                total = found.new_zeros(len(found), *cells)
            share = share_y[y[0]:y[1], None] * share_x[x[0]:x[1]]
            total[:, y[0]:y[1], x[0]:x[1]] += found * share.to(found)
    assert total is not None, "an image has a pixel"
    return total


def cells_to_pixels(logits: Tensor, grid: Grid, size: tuple[int, int], scale: float = 1.0) -> Tensor:
    """Logits (C, h, w) on the cells of a grid to those of an image's pixels, (C, *size), bilinearly.

    Args:
        logits: of ``infer_cells``.
        grid: of the network.
        size: (H, W) of the image.
        scale: what ``infer_cells`` was given.
    """
    down, across = (_pixels_of(view, side) for view, side in zip(_view_sides(size, scale), size, strict=True))
    return resample_output(logits[None], grid, down, size, (grid, across))[0]


def most_likely(probabilities: Tensor, classes: Sequence[int] | None = None, confidence: float = 0.0) -> np.ndarray:
    """The class of highest probability at every pixel; of equal ones the first.

    Args:
        probabilities: (K, H, W) of ``infer_semantic``.
        classes: (K,) what they are the probabilities of; 0, 1, 2, ... if not given.
        confidence: pixels whose highest probability is below are undecided.

    Returns:
        (H, W) int16: class index or IGNORE.
    """
    best, index = probabilities.max(0)
    names = torch.as_tensor(list(range(len(probabilities)) if classes is None else classes), device=index.device)
    found = names[index].to(torch.int16)
    found[best < confidence] = IGNORE
    return found.cpu().numpy()


def tile_sides(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """(rows, columns) of the tiles of a view: the view itself if it is small enough, else about square."""
    if height * width <= max_pixels:
        return height, width
    rows = min(height, math.isqrt(max_pixels))
    columns = min(width, max_pixels // rows)
    rows = min(height, max_pixels // columns)
    # A tile as long as the view is whole; any other is a multiple of the step between starts.
    return tuple(side if side == length else max(side // _ALIGN, 1) * _ALIGN  # type: ignore[return-value]
                 for side, length in ((rows, height), (columns, width)))


def spans(length: int, tile: int) -> list[Span]:
    """(start, end) of the tiles along an axis: they cover it, overlap, and all are ``tile`` long."""
    if tile >= length:
        return [(0, length)]
    step = max((tile - tile // _OVERLAP) // _ALIGN * _ALIGN, 1)
    starts = list(range(0, length - tile, step)) + [length - tile]
    return [(start, start + tile) for start in starts]


def shares(found: Sequence[Span], length: int, pixels: int) -> Tensor:
    """How much each tile has to say at each pixel of the image along an axis.

    A tile's share falls linearly towards where it was cut and is 0 close to there, where the network saw padding
    instead of the image.

    Args:
        found: tiles of ``spans``.
        length: of the view [px].
        pixels: of the image.

    Returns:
        (tiles, pixels) float32, the sum over the tiles 1.
    """
    return shares_at(found, length, (torch.arange(pixels, dtype=torch.float64) + 0.5) * (length / pixels))


def shares_at(found: Sequence[Span], length: int, at: Tensor) -> Tensor:
    """As ``shares``, at positions (n,) of the view, which count from its edge: (tiles, n) float32."""
    rows = []
    for start, end in found:
        overlap = (end - start) // _OVERLAP
        inside = torch.full_like(at, math.inf)
        if start > 0:
            inside = torch.minimum(inside, at - start)
        if end < length:
            inside = torch.minimum(inside, end - at)
        rows.append(((inside - overlap / 4) / max(overlap / 2, 1)).clamp(0, 1))
    weights = torch.stack(rows)
    return (weights / weights.sum(0)).float()


def _covered(share: Tensor) -> Span:
    """First pixel, and the one after the last, where a tile has anything to say."""
    places = share.nonzero()
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _tile_probabilities(model: DenseModel, view: Tensor, tile: tuple[Span, Span], rows: Span, columns: Span,
                        ratios: tuple[float, float], flip: bool, classes: Sequence[int] | None) -> Tensor:
    """(K, rows, columns) of a span of the image's pixels from one tile of a view ``ratios`` times the image's size."""
    (top, bottom), (left, right) = tile
    pixels = view[:, top:bottom, left:right]
    logits = model.cells(torch.stack([pixels, pixels.flip(-1)]) if flip else pixels[None])
    if classes is not None:
        logits = logits[:, list(classes)]
    # As in _pixels_of, from the first row and column on.
    down = Grid(ratios[0], (rows[0] + 0.5) * ratios[0] - 0.5 - top)
    across = Grid(ratios[1], (columns[0] + 0.5) * ratios[1] - 0.5 - left)
    size = (rows[1] - rows[0], columns[1] - columns[0])
    straight = resample_output(logits[:1], model.grid, down, size, (model.grid, across))[0].softmax(0)
    if not flip:
        return straight
    # Pixel p of the tile is pixel width - 1 - p of its mirror image.
    back = Grid(-across.stride, right - left - 1 - across.origin)
    return (straight + resample_output(logits[1:], model.grid, down, size, (model.grid, back))[0].softmax(0)) / 2


def _scaled(image: Tensor, scale: float) -> Tensor:
    """A (3, H, W) image times ``scale`` in size, as float in 0..1."""
    pixels = image.float()[None] / 255
    sides = (image.shape[-2], image.shape[-1])
    size = _view_sides(sides, scale)
    if size == sides:
        return pixels[0]
    return functional.interpolate(pixels, size=size, mode="bilinear", antialias=scale < 1)[0]


def _view_sides(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(rows, columns) of an image of a size, scaled."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _pixels_of(view: int, side: int) -> Grid:
    """Where the pixels of an image lie in a view of it, along an axis of so many pixels in each of the two.

    Pixel p of the image is pixel (p + .5) * ratio - .5 of the view.
    """
    ratio = view / side
    return Grid(ratio, 0.5 * ratio - 0.5)

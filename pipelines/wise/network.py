"""WISE's network: L-Net and E-Net on one backbone, each with a path like FCN8's (sections 3.1, 3.2, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.wise.settings import NetworkSettings
from stages.cues.backbone import Backbone, Grid, grid_of, resample
from stages.runtime.errors import UserError


@dataclass(frozen=True)
class _Level:
    """One level of the backbone that a head uses."""

    index: int
    channels: int
    grid: Grid


def _levels(backbone: Backbone, strides: Sequence[int]) -> list[_Level]:
    """The last level of each stride, from coarse to fine."""
    found = {int(grid.stride): _Level(index, channels, grid)
             for index, (channels, grid) in enumerate(zip(backbone.channels, backbone.grids, strict=True))}
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise UserError(f"wise.network.strides: backbone {backbone.settings.name!r} has no level of stride "
                        f"{missing[0]} (it has {', '.join(map(str, sorted(found)))}, and the coarsest is set by "
                        f"backbone.stride)")
    return [found[stride] for stride in sorted(set(strides), reverse=True)]


class Head(nn.Module):
    """A 1x1 convolution on every level, summed from coarse to fine (not in the paper; published code).

    Args:
        levels: from coarse to fine.
        outputs: channels.
        coordinates: append the cell's place to the features of every level.
        width: 0, or channels that the levels are summed in; after each sum they are mixed by a 3x3 convolution, and a
            last 1x1 convolution gives the outputs.
    """

    def __init__(self, levels: Sequence[_Level], outputs: int, coordinates: bool, width: int = 0) -> None:
        super().__init__()
        self.levels, self.coordinates = list(levels), coordinates
        extra = 2 if coordinates else 0
        self.score = nn.ModuleList(nn.Conv2d(level.channels + extra, width or outputs, 1) for level in levels)
        self.mix = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
                                               nn.BatchNorm2d(width), nn.ReLU()) for _ in levels if width)
        self.last = nn.Conv2d(width, outputs, 1) if width else None

    def outermost(self) -> list[nn.Conv2d]:
        """The convolutions whose sum is the output, from coarse to fine."""
        return [self.last] if self.last is not None else [layer for layer in self.score if isinstance(layer, nn.Conv2d)]

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """All levels (N, C, h, w) of images of ``size`` (H, W) to (N, outputs, h, w) on the finest level's grid."""
        total: Tensor | None = None
        before: Grid | None = None
        for number, (level, score) in enumerate(zip(self.levels, self.score, strict=True)):
            own = features[level.index]
            if self.coordinates:
                own = torch.cat([own, places(level.grid, own, size)], 1)
            own = score(own)
            if total is not None and before is not None:
                own = own + resample(total, before, level.grid, (own.shape[-2], own.shape[-1]))
            total, before = self.mix[number](own) if len(self.mix) else own, level.grid
        assert total is not None
        return total if self.last is None else self.last(total)


def places(grid: Grid, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 2, h, w): y and x of every cell of ``maps`` from the image's middle, in halves of its longer side."""
    axes = [(grid.origin + grid.stride * torch.arange(cells, device=maps.device) - (side - 1) / 2) / (max(size) / 2)
            for cells, side in zip(maps.shape[-2:], size, strict=True)]
    both = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="ij")).to(maps.dtype)
    return both.expand(len(maps), -1, -1, -1)


class WiseNet(nn.Module):
    """L-Net's logits and E-Net's embeddings on ``grid``, the finest level's.

    Args:
        settings: backbone, strides, embedding.
        classes: number of thing classes.
    """

    step: Tensor

    def __init__(self, settings: NetworkSettings, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone)
        self.embedding_backbone = None if settings.shared else Backbone(settings.backbone)
        levels = _levels(self.backbone, settings.strides)
        self.grid = levels[-1].grid
        self.location = Head(levels, classes + 1, coordinates=False, width=settings.width)
        self.embedding = Head(levels, settings.dimensions, settings.coordinates, settings.width)
        for head, scale in ((self.location, settings.location_scale), (self.embedding, settings.embedding_scale)):
            for layer in head.outermost():
                layer.weight.data.mul_(scale)
                nn.init.zeros_(cast(Tensor, layer.bias))
        nn.init.constant_(cast(Tensor, self.location.outermost()[-1].bias)[:1], settings.background_bias)
        # Steps of the training so far; in the checkpoint, so that a resumed warm-up goes on where it was.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """RGB images (N, 3, H, W) to logits (N, C + 1, h, w), channel 0 background, and embeddings (N, d, h, w).

        Both lie on ``grid``: ``enlarge`` brings them to the image's pixels, ``at_pixels`` to some of them.
        """
        size = (images.shape[-2], images.shape[-1])
        images = self._padded(images)
        features = self.backbone.levels(images)
        location = self.location(features, size)
        if self.embedding_backbone is not None:
            features = self.embedding_backbone.levels(images)
        return location, self.embedding(features, size)

    def _padded(self, images: Tensor) -> Tensor:
        """Whole cells, which some backbones ask for: the mean colour below and to the right, as batches have it."""
        step = int(max(grid.stride for grid in self.backbone.grids))
        height, width = (-(-side // step) * step for side in images.shape[-2:])
        return pad_images([image for image in images], (height, width), self.backbone.mean) \
            if (height, width) != tuple(images.shape[-2:]) else images


def pad_images(images: Sequence[Tensor], size: tuple[int, int], mean: Tensor) -> Tensor:
    """Images (3, h, w) of any sizes into one batch (N, 3, *size), uint8 or float in 0..1 as they are.

    Args:
        images: none larger than ``size``.
        size: (H, W).
        mean: (1, 3, 1, 1) in 0..1, the colour of what is added below and to the right.
    """
    colour = mean[0].to(images[0].device)
    if images[0].dtype == torch.uint8:
        colour = (255 * colour).round()
    batch = colour.to(images[0].dtype).expand(len(images), 3, *size).clone()
    for place, image in zip(batch, images, strict=True):
        place[:, :image.shape[-2], :image.shape[-1]] = image
    return batch


def enlarge(maps: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) on ``grid`` to the pixels of the image: (N, C, H, W)."""
    return resample(maps, grid, grid_of(1), size)


def at_pixels(maps: Tensor, grid: Grid, yx: Tensor) -> Tensor:
    """What ``enlarge`` gives at some pixels, without the rest: a loss looks at a few hundred of a whole image.

    Args:
        maps: (C, h, w) on ``grid``.
        grid: where its cells lie.
        yx: (M, 2) int64.

    Returns:
        (C, M), differentiable.
    """
    below, above, shares = [], [], []
    for axis, cells in enumerate(maps.shape[-2:]):
        at = ((yx[:, axis].double() - grid.origin) / grid.stride).clamp(0, cells - 1)
        low = at.floor().long().clamp(max=max(cells - 2, 0))
        below.append(low)
        above.append((low + 1).clamp(max=cells - 1))
        shares.append((at - low).to(maps.dtype))
    rows, columns = shares
    top = maps[:, below[0], below[1]] * (1 - columns) + maps[:, below[0], above[1]] * columns
    bottom = maps[:, above[0], below[1]] * (1 - columns) + maps[:, above[0], above[1]] * columns
    return top * (1 - rows) + bottom * rows

"""The instance network: semantic map, class-wise centre heat maps and offsets (sections 3.2 and 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.bestie.settings import NetworkSettings
from stages.cues.backbone import Backbone, Grid, grid_of, resample, resample_output
from stages.cues.settings import BackboneSettings


class Outputs(NamedTuple):
    """What the network says of N crops, at their resolution, in single precision.

    Attributes:
        logits: (N, C + 1, H, W) of background and classes.
        heat: (N, C, H, W) class-wise centres, linear.
        offset: (N, 2, H, W) as (dy, dx) from a pixel to its instance's centre [px].
    """

    logits: Tensor
    heat: Tensor
    offset: Tensor


class BestieNetwork(nn.Module):
    """A backbone from timm, by name, under three heads.

    An HRNet's finest branch feeds them as it is; any other network gets two decoders after Panoptic-DeepLab, one for
    the semantic map and one for centres and offsets. Their outputs are enlarged to the crop, from where they lie.

    Args:
        settings: see ``NetworkSettings``.
        classes: things, without the background.
    """

    def __init__(self, settings: NetworkSettings, classes: int) -> None:
        super().__init__()
        self.classes, self.offset_unit = classes, settings.offset_unit
        self.backbone = make_backbone(settings.backbone)
        channels, grids = self.backbone.channels, self.backbone.grids
        if isinstance(self.backbone, HighResolution):
            self.grid = grids[0]
            self.decoders = nn.ModuleList([Finest(), Finest()])
            widths = [channels[0], channels[0]]
            self.semantic = _head(channels[0], settings.semantic_width, classes + 1, near_zero=False)
            self.centre = _head(channels[0], settings.semantic_width, classes)
            self.offset = _head(channels[0], settings.semantic_width, 2)
        else:
            used = [index for index, grid in enumerate(grids) if grid.stride >= min(settings.finest, grids[-1].stride)]
            self.grid = grids[used[0]]
            widths = [settings.semantic_width, settings.instance_width]
            self.decoders = nn.ModuleList(Decoder(channels, grids, used, width, settings.semantic_width,
                                                  settings.atrous_rates) for width in widths)
            self.semantic = _separable_head(widths[0], settings.semantic_width, classes + 1, near_zero=False)
            self.centre = _separable_head(widths[1], settings.instance_width, classes)
            self.offset = _separable_head(widths[1], settings.offset_width, 2)

    def forward(self, images: Tensor) -> Outputs:
        """RGB crops (N, 3, H, W), uint8 or float in 0..1."""
        size = (images.shape[-2], images.shape[-1])
        levels = self.backbone.levels(images)
        semantic, instance = (decoder(levels) for decoder in self.decoders)
        maps = self.semantic(semantic), self.centre(instance), self.offset_unit * self.offset(instance)
        return Outputs(*(resample_output(one, self.grid, grid_of(1), size) for one in maps))


def make_backbone(settings: BackboneSettings) -> Backbone:
    """A backbone by its timm name; an HRNet gives its branches as levels."""
    return HighResolution(settings) if settings.name.startswith("hrnet") else Backbone(settings)


class HighResolution(Backbone):
    """An HRNet's finest branch of the fourth stage, of stride 4, as its only level.

    timm's own levels have classification layers on top, 128 to 1024 channels wide. What only those or the coarser
    branches' outputs need is removed: parameters without a gradient would stop a distributed training.
    """

    def __init__(self, settings: BackboneSettings) -> None:
        super().__init__(settings)
        for name in ("incre_modules", "downsamp_modules", "final_layer"):
            setattr(self.body, name, None)
        last = self.body.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]
        self.channels, self.grids = self.channels[:1], self.grids[:1]
        self.width, self.grid = self.channels[0], self.grids[0]

    def levels(self, images: Tensor) -> list[Tensor]:
        """RGB images (N, 3, H, W) to the branches, fine to coarse: four while the network is built, then one.

        Branches meet only where the sides are multiples of 32: there the mean colour fills up.
        """
        body = self.body
        rows, columns = (-side % 32 for side in images.shape[-2:])
        padded = functional.pad(self._normalise(images), (0, columns, 0, rows))
        features = body.act1(body.bn1(body.conv1(padded)))
        return body.stages(body.act2(body.bn2(body.conv2(features))))

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to the coarsest branch that there is."""
        return self.levels(images)[-1]


class Finest(nn.Module):
    """No decoder: the finest level."""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return levels[0]


class Decoder(nn.Module):
    """Atrous spatial pyramid of the last level, merged with one finer level after the other (Panoptic-DeepLab).

    The levels that are merged are reduced to a half, a quarter ... of the decoder's channels, from coarse to fine:
    128, 64 and 32 of 256.

    Args:
        channels, grids: of all levels, fine to coarse.
        used: the levels that count, ascending; the last one goes through the pyramid.
        width: channels of the decoder.
        pyramid: channels of the pyramid.
        rates: its dilations [cells].
    """

    def __init__(self, channels: Sequence[int], grids: Sequence[Grid], used: Sequence[int], width: int, pyramid: int,
                 rates: Sequence[int]) -> None:
        super().__init__()
        self.used, self.grids = list(used), list(grids)
        self.pyramid = Pyramid(channels[used[-1]], pyramid, rates)
        self.project, self.merge = nn.ModuleList(), nn.ModuleList()
        inputs = pyramid
        for step, index in enumerate(reversed(self.used[:-1])):
            skip = max(4, width >> (step + 1))
            self.project.append(_normalised(nn.Conv2d(channels[index], skip, 1, bias=False)))
            self.merge.append(_separable(inputs + skip, width))
            inputs = width
        if not self.merge:  # one level alone: nothing to merge, but the width is the decoder's
            self.merge.append(_separable(pyramid, width))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """All levels to (N, width, h, w) on the grid of the finest that is used."""
        features = self.pyramid(levels[self.used[-1]])
        if len(self.used) == 1:
            return self.merge[0](features)
        grid = self.grids[self.used[-1]]
        for index, project, merge in zip(reversed(self.used[:-1]), self.project, self.merge, strict=True):
            own = levels[index]
            if self.grids[index] != grid:
                features = resample(features, grid, self.grids[index], (own.shape[-2], own.shape[-1]))
                grid = self.grids[index]
            features = merge(torch.cat([features, project(own)], dim=1))
        return features


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3 and the mean over the crop, side by side."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_normalised(nn.Conv2d(inputs, outputs, 1, bias=False))])
        self.branches.extend(_normalised(nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False))
                             for rate in rates)
        self.mean = nn.Conv2d(inputs, outputs, 1)  # a batch of one has no statistics of means
        self.merge = _normalised(nn.Conv2d(outputs * (len(rates) + 2), outputs, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        maps = [branch(features) for branch in self.branches]
        mean = functional.relu(self.mean(features.mean(dim=(2, 3), keepdim=True)))
        return self.merge(torch.cat([*maps, mean.expand_as(maps[0])], dim=1))


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """5x5 by channel, then 1x1; each normalised."""
    return nn.Sequential(*_normalised(nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs, bias=False)),
                         *_normalised(nn.Conv2d(inputs, outputs, 1, bias=False)))


def _separable_head(inputs: int, width: int, outputs: int, near_zero: bool = True) -> nn.Sequential:
    return nn.Sequential(_separable(inputs, width), _last(width, outputs, near_zero))


def _head(inputs: int, width: int, outputs: int, near_zero: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True),
                         _last(width, outputs, near_zero))


def _last(inputs: int, outputs: int, near_zero: bool) -> nn.Conv2d:
    """1x1 convolution; it starts near zero for heat without false centres (not in the paper).

    Of classes it does not: from so small weights a network that starts from nothing gets next to no gradient, and says
    background for hundreds of steps.
    """
    convolution = nn.Conv2d(inputs, outputs, 1)
    if not near_zero:
        return convolution
    nn.init.normal_(convolution.weight, std=0.001)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution

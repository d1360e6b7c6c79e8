"""IRNet: a frozen classifier backbone with a displacement branch and a class boundary branch (section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.irnet.settings import IRNetSettings, NetworkSettings
from stages.cues.backbone import Backbone, Grid, grid_of, resample
from stages.cues.classification import classifier_backbone
from stages.runtime.weights import load_weights


def _layer(inputs: int, outputs: int, settings: NetworkSettings) -> nn.Sequential:
    """1x1 convolution, group normalisation, ReLU."""
    groups = math.gcd(min(settings.groups, max(1, outputs // settings.group_channels)), outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs),
                         nn.ReLU(inplace=True))


class DisplacementBranch(nn.Module):
    """The top-down path and what decodes it to displacements (section 4.1).

    Args:
        channels: of the backbone's levels.
        grids: where each level lies: its own grid, or the output's if it is finer.
        grid: the output's cells.
        settings: widths and groups.
        outputs: axes that it gives.
    """

    def __init__(self, channels: Sequence[int], grids: Sequence[Grid], grid: Grid, settings: NetworkSettings,
                 outputs: int) -> None:
        super().__init__()
        self.grids, self.grid = grids, grid
        widths = [min(inputs, settings.channels) for inputs in channels]
        self.reduce = nn.ModuleList(_layer(inputs, width, settings)
                                    for inputs, width in zip(channels, widths, strict=True))
        # merge[j] takes level j and what came down from the coarser ones.
        merge: list[nn.Module] = []
        for level in range(len(widths) - 1):
            down = widths[-1] if level == len(widths) - 2 else widths[level + 1]
            merge.append(_layer(widths[level] + down, widths[level], settings))
        self.merge = nn.ModuleList(merge)
        self.decode = nn.Sequential(_layer(widths[0], settings.channels, settings),
                                    _layer(settings.channels, settings.channels, settings),
                                    nn.Conv2d(settings.channels, outputs, 1, bias=False))

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Levels (N, C_j, h_j, w_j) on ``grids`` to (N, outputs, h, w): upsample, concatenate with the next finer
        level, 1x1 convolution."""
        features = self.reduce[-1](levels[-1])
        for level in range(len(levels) - 2, -1, -1):
            own = self.reduce[level](levels[level])
            source, target = self.grids[level + 1], self.grids[level]
            if source != target:
                features = resample(features, source, target, own.shape[-2:])
            features = self.merge[level](torch.cat([own, features], dim=1))
        if self.grids[0] != self.grid:
            features = resample(features, self.grids[0], self.grid, size)
        return self.decode(features)


class IRNet(nn.Module):
    """Displacement field and class boundary map on one grid (a quarter of the image in the paper's setting).

    Levels finer than that grid are brought to it before they are merged; the paper does not give the output's
    resolution, and its walk runs on the quarter grid.

    Args:
        backbone: of the trained classifier, or one of its own; its weights stay as they are (section 6.1).
        settings: widths and groups, and whether the displacement's two axes share a branch.
        grid: the cells of both outputs.
    """

    displacement_mean: Tensor

    def __init__(self, backbone: Backbone, settings: NetworkSettings, grid: Grid) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.grid = grid
        self.level_grids = [level if level.stride > grid.stride else grid for level in backbone.grids]
        axes = [1, 1] if settings.separate_axes else [2]
        self.displacement = nn.ModuleList(
            DisplacementBranch(backbone.channels, self.level_grids, grid, settings, outputs) for outputs in axes)
        self.edge = nn.ModuleList(_layer(inputs, settings.boundary_channels, settings) for inputs in backbone.channels)
        self.edge_last = nn.Conv2d(settings.boundary_channels * len(backbone.channels), 1, 1)
        self.register_buffer("displacement_mean", torch.zeros(2))

    def train(self, mode: bool = True) -> IRNet:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """RGB images (N, 3, H, W) to displacement (N, 2, h, w) as (dy, dx) in cells and boundary (N, h, w), logits.

        The losses want the logits; inference (``fields.fields``) gives their sigmoid. The mean that training leaves in
        ``displacement_mean`` is already subtracted (section 4.3).
        """
        stride = int(self.grid.stride)
        size = (-(-images.shape[-2] // stride), -(-images.shape[-1] // stride))
        with torch.no_grad():
            levels = self.backbone.levels(images)
        reduced = []
        for level, own, common in zip(levels, self.backbone.grids, self.level_grids, strict=True):
            if common is self.grid:
                level = resample(level, own, self.grid, size)
            reduced.append(level)
        displacement = torch.cat([branch(reduced, size) for branch in self.displacement], dim=1)
        return displacement - self.displacement_mean.view(1, 2, 1, 1), self._boundary(reduced, size)

    def _boundary(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Each level reduced and resized to the grid, all together through one last 1x1 convolution, to logits."""
        maps = []
        for level, edge, grid in zip(levels, self.edge, self.level_grids, strict=True):
            features = edge(level)
            maps.append(features if grid == self.grid else resample(features, grid, self.grid, size))
        return self.edge_last(torch.cat(maps, dim=1))[:, 0]


def build_irnet(classifier: Path, settings: IRNetSettings, device: torch.device) -> IRNet:
    """IRNet on the trained classifier's backbone, or on one of its own, its other layers fresh."""
    own = settings.network.backbone
    backbone = classifier_backbone(classifier, device) if own is None else Backbone(own)
    return IRNet(backbone, settings.network, grid_of(settings.grid)).to(device)


def load_irnet(irnet: Path, classifier: Path, settings: IRNetSettings, device: torch.device) -> IRNet:
    """The trained IRNet in evaluation mode.

    Args:
        irnet, classifier: folders of the trained networks; the classifier's holds the backbone that they share.
        settings: network and grid.
        device: where it runs.

    Raises:
        UserError: weights that are missing, or do not fit the settings.
    """
    own = settings.network.backbone
    if own is None:
        model = build_irnet(classifier, settings, device)
        load_weights(irnet / "weights.pt", model, without="backbone.")
    else:  # the file has the backbone's weights, too: no download is asked for again
        network = settings.network.model_copy(update={"backbone": own.model_copy(update={"weights": "none"})})
        model = build_irnet(classifier, settings.model_copy(update={"network": network}), device)
        load_weights(irnet / "weights.pt", model)
    return model.eval()


def trained_state(model: IRNet, settings: NetworkSettings) -> dict[str, Tensor]:
    """What is kept of a trained IRNet: all but a backbone that is the classifier's."""
    return {name: value for name, value in model.state_dict().items()
            if settings.backbone is not None or not name.startswith("backbone.")}

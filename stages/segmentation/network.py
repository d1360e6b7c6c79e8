"""Semantic segmentation networks: a timm backbone, dilated, under a decoder of segmentation-models-pytorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling, DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from torch import Tensor, nn

from stages.cues.backbone import Backbone, Grid, constant, resample
from stages.runtime.errors import UserError
from stages.segmentation.settings import FeatureSettings

PIXELS = Grid(1, 0)
_FINE = 4  # stride of the features that DeepLabV3+ adds to those of its pyramid [px]
_GROUPS = 32


class DenseFeatures(nn.Module):
    """RGB images to features on the cells of a grid: a backbone under a decoder.

    The decoders' parts are used without their interpolations, which assume that the corners of all maps coincide
    (up to a cell off at the far border): every map is resampled from where its cells lie. That, and pooling by matrix
    products, also keeps gradients deterministic on a GPU.

    Attributes:
        grid: where the cells lie.
        width: number of features.

    Args:
        settings: see ``FeatureSettings``.
    """

    decoder: Any  # a library without types

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = dilated_backbone(settings)
        self.width = settings.decoder_channels
        self.grid = self.backbone.grids[-1]
        if settings.architecture == "plain":
            self.decoder = nn.Identity()
            self.width = self.backbone.channels[-1]
            return
        if settings.architecture == "pspnet":
            self.decoder = PSPDecoder([self.backbone.channels[-1]], out_channels=self.width, dropout=settings.dropout)
        else:
            strides = [grid.stride for grid in self.backbone.grids]
            if _FINE not in strides:
                raise UserError(f"backbone {settings.backbone.name!r} has no features of stride {_FINE}, which "
                                f"deeplabv3plus needs (it has {strides}); choose pspnet or another backbone")
            self.fine = strides.index(_FINE)
            self.grid = self.backbone.grids[self.fine]
            widths = [0, 0, self.backbone.channels[self.fine], self.backbone.channels[-1]]
            self.decoder = DeepLabV3PlusDecoder(widths, 5, self.width, settings.atrous_rates, 16, True,
                                                settings.dropout)
        initialize_decoder(self.decoder)
        _choose_norm(self.decoder, settings.decoder_norm)
        self.decoder.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 or float in 0..1, to (N, width, h, w) on the cells of ``grid``.

        The last row and column of cells may hang over the image by less than the backbone's stride.
        """
        levels = self.backbone.levels(self._padded(images))
        if self.settings.architecture == "plain":
            return levels[-1]
        if self.settings.architecture == "pspnet":
            return self._pyramid(levels[-1])
        fine = levels[self.fine]
        coarse = resample(self.decoder.aspp(levels[-1]), self.backbone.grids[-1], self.grid, _size(fine))
        return self.decoder.block2(torch.cat([coarse, self.decoder.block1(fine)], 1))

    def _padded(self, images: Tensor) -> Tensor:
        """Whole cells: sides up to a multiple of the stride, with the mean colour at the end, as random views have."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        height, width = _size(images)
        stride = self.settings.backbone.stride
        rows, columns = -(-height // stride) * stride, -(-width // stride) * stride
        if (rows, columns) == (height, width):
            return images
        padded = self.backbone.mean.to(images).expand(len(images), 3, rows, columns).clone()
        padded[..., :height, :width] = images
        return padded

    def _pyramid(self, features: Tensor) -> Tensor:
        """PSPNet's pyramid pooling: means over 1, 4, 9 and 36 bins beside the features themselves."""
        height, width = _size(features)
        pooled = []
        for block in self.decoder.psp.blocks:
            bins, convolution = block.pool_size, block.pool[1]
            down, across = (constant(_means, side, bins, like=features) for side in (height, width))
            means = down @ features @ across.T
            rows, columns = (Grid(side / bins, (side / bins - 1) / 2) for side in (height, width))
            pooled.append(resample(convolution(means), rows, PIXELS, (height, width), (columns, PIXELS)))
        return self.decoder.dropout(self.decoder.conv(torch.cat([*pooled, features], 1)))

    def train(self, mode: bool = True) -> DenseFeatures:
        super().train(mode)
        if self.settings.decoder_norm == "frozen":
            for module in self.decoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
                    module.requires_grad_(False)
        return self


class SegmentationNetwork(DenseFeatures):
    """RGB images to logits of background and classes, at the images' resolution.

    Args:
        settings: see ``FeatureSettings``.
        classes: number of classes beside background, which is channel 0.
    """

    def __init__(self, settings: FeatureSettings, classes: int) -> None:
        super().__init__(settings)
        if settings.architecture == "pspnet":
            self.head = nn.Conv2d(self.width, 1 + classes, 3, padding=1)
        else:
            self.head = nn.Conv2d(self.width, 1 + classes, 1)
        initialize_head(self.head)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 or float in 0..1, of any size, to logits (N, 1 + classes, H, W)."""
        height, width = images.shape[-2:]
        return resample(self.cells(images), self.grid, PIXELS, (height, width))

    def cells(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to logits (N, 1 + classes, h, w) of the cells of ``grid``."""
        return self.head(self.features(images))


def dilated_backbone(settings: FeatureSettings) -> Backbone:
    """The backbone at its stride, dilated by timm where the settings say so, without layers behind its last level.

    Raises:
        UserError: as of ``Backbone``, and where timm cannot dilate the network.
    """
    chosen = settings.backbone
    if settings.dilate and chosen.stride < 32:
        chosen = chosen.model_copy(update={"arguments": {"output_stride": max(chosen.stride, 8), **chosen.arguments}})
    try:
        backbone = Backbone(chosen)
    except AssertionError:  # timm asserts that a VGG is not to be dilated
        raise UserError(f"backbone {chosen.name!r}: timm cannot dilate it to stride {chosen.stride}; set dilate: false"
                        ) from None
    except UserError as error:
        if chosen is settings.backbone or "output_stride" not in str(error):
            raise
        raise UserError(f"{error}; where a network cannot be dilated, set dilate: false") from None
    # Parameters that get no gradient are an error in distributed training.
    backbone.body.prune_intermediate_layers(indices=None, prune_norm=True, prune_head=True)
    for module in backbone.body.modules():
        # A ResNet-D's shortcut averages 2 x 2 cells even where its stride is gone, which moves it by half a cell.
        if settings.dilate and isinstance(module, nn.AvgPool2d) and module.stride in (1, (1, 1)):
            module.kernel_size = 1 if isinstance(module.kernel_size, int) else (1, 1)
    return backbone


def _choose_norm(decoder: nn.Module, kind: str) -> None:
    """Exchange the decoder's batch norms, and leave them out on maps of one cell, which have no statistics."""
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            if isinstance(parent, ASPPPooling):
                setattr(parent, name, nn.Identity())
            elif kind == "group":
                width = child.num_features
                setattr(parent, name, nn.GroupNorm(math.gcd(width, _GROUPS), width))


def _means(cells: int, bins: int) -> Tensor:
    """(bins, cells) weights of the means over bins that share the cells; bins overlap where they do not divide them."""
    weights = torch.zeros(bins, cells)
    for number in range(bins):
        start, end = number * cells // bins, -(-(number + 1) * cells // bins)
        weights[number, start:end] = 1 / (end - start)
    return weights


def _size(maps: Tensor) -> tuple[int, int]:
    height, width = maps.shape[-2:]
    return height, width

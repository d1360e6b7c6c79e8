"""The networks of EXITS: encoders of crops, and the mask decoder of appendix A."""

from __future__ import annotations

import math
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.exits.settings import EncoderSettings, PropagationSettings
from stages.cues.attention import TokenEncoder
from stages.cues.backbone import Backbone, Grid, resample, resample_output
from stages.cues.settings import BackboneSettings
from stages.propagation.points import colour_exponent, distance_exponent, feature_exponent
from stages.runtime.errors import UserError
from stages.runtime.optimisation import part_at_rate
from stages.runtime.weights import load_weights


def _convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    groups = math.gcd(16, outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
                         nn.GroupNorm(groups, outputs), nn.ReLU(inplace=True))


class Pyramid(nn.Module):
    """A convolutional encoder: the backbone's levels merged top-down at the mask's resolution.

    Stands in for the ViT where there are no MAE weights (not in the paper). Convolutions do not know where they are, so
    the position of every cell relative to the box can be added to the coarsest level (``position``).
    """

    def __init__(self, settings: EncoderSettings, mask_stride: int, guided: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.body = Backbone(BackboneSettings(name=settings.name, weights=settings.weights, stride=settings.stride,
                                              arguments=settings.arguments,
                                              freeze_batch_norm=settings.freeze_batch_norm))
        self.levels = [index for index, grid in enumerate(self.body.grids) if grid.stride >= mask_stride]
        self.stride = int(self.body.grids[self.levels[0]].stride)
        self.width = settings.width
        self.guided = guided
        extra = (4 if settings.position else 0) + int(self.guided)
        self.lateral = nn.ModuleList(_convolution(self.body.channels[index] + extra, self.width, 1)
                                     for index in self.levels)
        self.merge = nn.ModuleList(_convolution(self.width, self.width) for _ in self.levels)

    def forward(self, images: Tensor, boxes: Tensor, scores: Tensor | None = None) -> Tensor:
        """Crops (B, 3, s, s), boxes (B, 4) in crop pixels and, for a guided one, scores (B, N, N) to features
        (B, width, s / stride, s / stride)."""
        return self._merged(self.body.levels(images), boxes, scores, images.shape[-1])

    def _merged(self, maps: list[Tensor], boxes: Tensor, scores: Tensor | None, side: int) -> Tensor:
        features: Tensor | None = None
        for place in range(len(self.levels) - 1, -1, -1):
            index = self.levels[place]
            level, grid = maps[index], self.body.grids[index]
            if self.settings.position:
                level = torch.cat([level, _position(boxes, level.shape[-1], grid.stride, grid.origin)], dim=1)
            if self.guided:
                level = torch.cat([level, _guide(scores, level, grid, side)], dim=1)
            own = self.lateral[place](level)
            if features is not None:
                coarser = self.body.grids[self.levels[place + 1]]
                own = own + resample(features, coarser, grid, (own.shape[-2], own.shape[-1]))
            features = self.merge[place](own)
        assert features is not None
        return features

    def exponent(self, images: Tensor, boxes: Tensor, cells: int, layer: int, temperature: float) -> Tensor:
        """(B, cells^2, cells^2): likeness of the features at the cells' places, of one level or of all (its logarithm).
        """
        maps, grids, side = self.body.levels(images), self.body.grids, images.shape[-1]
        if layer > len(maps) + 1:
            raise UserError(f"exits.propagation.layer is {layer}, the pyramid has {len(maps) + 1} (the last is merged)")
        if layer == len(maps) + 1:
            maps, grids = [*maps, self._merged(maps, boxes, None, side)], [*grids, grids[self.levels[0]]]
        chosen = range(len(maps)) if layer == 0 else [layer - 1]
        parts = []
        for index in chosen:
            level = _at_cells(maps[index], grids[index], side, cells)
            level = level - level.mean((2, 3), keepdim=True)
            parts.append(functional.normalize(level, dim=1))
        return feature_exponent(torch.cat(parts, dim=1).flatten(2), temperature)


def _cell_grid(side: int, cells: int) -> Grid:
    """Where the cells lie that divide a crop of ``side`` pixels."""
    stride = side / cells
    return Grid(stride, (stride - 1) / 2)


def _at_cells(maps: Tensor, grid: Grid, side: int, cells: int) -> Tensor:
    """Features (B, C, h, w) on a grid, at the cells that divide the crop: (B, C, cells, cells) float32.

    Larger cells than the grid's are averages over their area: of as many places as the grid has cells there, or more.
    """
    places = max(1, math.ceil(side / cells / grid.stride))
    fine = cells * places
    return functional.avg_pool2d(resample_output(maps, grid, _cell_grid(side, fine), (fine, fine)), places)


def _position(boxes: Tensor, cells: int, stride: float, origin: float) -> Tensor:
    """(B, 4, cells, cells): signed distances of the cells from the box's sides in units of its width and height."""
    at = origin + stride * torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5
    left, top, right, bottom = boxes.unbind(1)
    width, height = (right - left).clamp(min=1), (bottom - top).clamp(min=1)
    columns = torch.stack([(at - left[:, None]) / width[:, None], (right[:, None] - at) / width[:, None]], dim=1)
    rows = torch.stack([(at - top[:, None]) / height[:, None], (bottom[:, None] - at) / height[:, None]], dim=1)
    maps = torch.cat([columns[:, :, None, :].expand(-1, -1, cells, -1), rows[:, :, :, None].expand(-1, -1, -1, cells)],
                     dim=1)
    return maps.clamp(-1, 1)


def _guide(scores: Tensor | None, like: Tensor, grid: Grid, side: int) -> Tensor:
    """(B, 1, h, w): propagation scores (B, N, N) of a crop of ``side`` pixels at the places of a level ``like``
    (B, C, h, w) on ``grid``, their extremes flattened; 0 where there are none."""
    if scores is None:
        return like.new_zeros(len(like), 1, *like.shape[-2:])
    size = (like.shape[-2], like.shape[-1])
    return resample(scores[:, None].to(like).tanh(), _cell_grid(side, scores.shape[-1]), grid, size)


class Decoder(nn.Module):
    """Mask decoder of appendix A: a pixel head of four convolutions and a prototype head of two linear layers.

    The features are enlarged between the second and the third convolution, to ``factor`` times their size (the paper
    enlarges to the full crop; here masks are learnt at a quarter of it and enlarged bilinearly at the end).
    """

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        hidden = max(8, width // 3)
        self.factor = factor
        self.before = nn.Sequential(_convolution(width, width), _convolution(width, hidden))
        self.after = nn.Sequential(_convolution(hidden, hidden), nn.Conv2d(hidden, hidden, 3, padding=1))
        self.prototype = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden))
        self.scale = hidden ** -0.5

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, n, n) to logits (B, n * factor, n * factor): the inner product of eq. a1, before the sigmoid."""
        pixels = self.before(features)
        if self.factor > 1:
            pixels = functional.interpolate(pixels, scale_factor=self.factor, mode="bilinear", align_corners=False)
        pixels = self.after(pixels)
        prototype = self.prototype(features.mean((2, 3)))
        return torch.einsum("bchw,bc->bhw", pixels, prototype) * self.scale


class Generator(nn.Module):
    """Encoder and mask decoder; the similarity extractor is one too, of which later only the encoder counts.

    Args:
        settings: of the encoder.
        side: of the crops [px].
        mask_stride: crop pixels per pixel of the masks.
        guided: whether a pyramid has an input for propagation scores (not in the paper).
    """

    def __init__(self, settings: EncoderSettings, side: int, mask_stride: int, guided: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.encoder: TokenEncoder | Pyramid
        if settings.kind == "vit":
            self.encoder = TokenEncoder(settings.name, settings.weights, settings.arguments, side, settings.stride)
            stride = settings.stride
        else:
            self.encoder = Pyramid(settings, mask_stride, guided)
            stride = self.encoder.stride
        self.guided = guided
        self.decoder = Decoder(self.encoder.width, max(1, stride // mask_stride))
        self.mask_cells = side // stride * self.decoder.factor

    def forward(self, images: Tensor, boxes: Tensor, scores: Tensor | None = None) -> Tensor:
        """RGB crops (B, 3, s, s) uint8 and boxes (B, 4) xyxy in crop pixels to mask probabilities (B, m, m).

        ``scores`` (B, N, N) is the difference of the propagation scores in units of 1 / N^2, for a guided encoder.
        """
        vit = isinstance(self.encoder, TokenEncoder)
        features = self.encoder(images) if vit else self.encoder(images, boxes, scores)
        return self.decoder(features).float().sigmoid()

    @torch.no_grad()
    def similarity(self, images: Tensor, boxes: Tensor, settings: PropagationSettings) -> Tensor:
        """(B, N^2, N^2): attention of the chosen layer (ViT), or likeness of features (pyramid)."""
        encoder, exponents = self.encoder, []
        if isinstance(encoder, TokenEncoder) and encoder.cells != settings.cells:
            raise UserError(f"exits.propagation.cells is {settings.cells}, the encoder has {encoder.cells} tokens "
                            f"along a side; make them equal")
        if isinstance(encoder, Pyramid):
            exponents.append(encoder.exponent(images, boxes, settings.cells, settings.layer, settings.temperature))
        if settings.colour > 0:
            exponents.append(colour_exponent(images, settings.cells, settings.colour))
        if settings.locality > 0:
            exponents.append(distance_exponent(settings.cells, settings.locality).to(images.device))
        # A pair that nothing connects would leave rows without any similarity where there are many such pairs.
        factors = [reduce(torch.add, exponents).exp().clamp(min=1e-12)] if exponents else []
        if isinstance(encoder, TokenEncoder):
            factors.append(encoder.attention(images, settings.layer))
        return reduce(torch.mul, factors)

    def groups(self, rate: float, encoder_factor: float) -> list[dict[str, object]]:
        """Parameter groups: what was pretrained learns ``encoder_factor`` times as fast."""
        return part_at_rate(self, self.encoder.body, rate, encoder_factor)


def load_generator(path: Path, settings: EncoderSettings, side: int, mask_stride: int, device: torch.device,
                   name: str | None = None, guided: bool = False) -> Generator:
    """A trained network, frozen, in evaluation mode.

    Args:
        path: ``weights.pt`` of a training stage.
        settings, side, mask_stride: as in training.
        device: where it runs.
        name: entry of the file, where it holds several networks.
        guided: as in training.
    """
    model = Generator(settings.model_copy(update={"weights": "none"}), side, mask_stride, guided)
    load_weights(path, model, name)
    return model.requires_grad_(False).to(device).eval()

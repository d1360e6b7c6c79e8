"""Multi-label image classifier and its class attention maps (IRNet, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.cues.backbone import Backbone, BackboneSettings, Grid, resample


class Classifier(nn.Module):
    """Backbone, global average pooling, one weight vector per class and no bias: phi_c of eq. 1.

    Without a bias the score of a class is the mean of its attention over the image, so that the map and the score
    that it is trained through cannot disagree. ``scale`` multiplies the logits and leaves eq. 1 as it is: from
    scratch, the mean over an image that an object fills to a tenth is too small to learn from.
    """

    def __init__(self, settings: BackboneSettings, classes: int, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.backbone = Backbone(settings)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(self.backbone.width, classes, 1, bias=False)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class logits (N, classes)."""
        features = self.dropout(self.backbone(images))
        return self.scale * self.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)

    def attention(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to phi_c^T f(x), the numerator of eq. 1, below 0 cut off: (N, classes, h, w)."""
        return functional.relu(self.head(self.backbone(images)))


def class_attention_maps(model: Classifier, image: Tensor, classes: Sequence[int], *, scales: Sequence[float],
                         flip: bool, grid: Grid) -> tuple[Tensor, Tensor]:
    """Attention maps of the classes that an image has, over several scales (IRNet eq. 1).

    The maps of all scales, and of the mirrored image, are brought to one grid and added before they are divided by
    their maximum (scales and flips are not in the paper).

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8 RGB on the model's device.
        classes: indices of the classes that the image's tags name; the maps of others are zero by definition.
        scales: factors on the image's size.
        flip: also look at the mirrored image.
        grid: where the result's cells lie, e.g. ``grid_of(4)``.

    Returns:
        Maps (len(classes), ceil(H / stride), ceil(W / stride)) in 0..1, float32, the maximum of each 1 (or 0 where
        a class has no attention at all), and the probabilities (classes of the model,) averaged over the views.
    """
    height, width = image.shape[-2:]
    size = (-(-height // int(grid.stride)), -(-width // int(grid.stride)))
    total = torch.zeros(len(classes), *size, device=image.device)
    probabilities = []
    for scale in scales:
        scaled = _scaled(image, scale)
        views = torch.stack([scaled, scaled.flip(-1)]) if flip else scaled[None]
        features = model.backbone(views)
        logits = model.scale * model.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)
        probabilities.append(logits.sigmoid())
        attention = functional.relu(model.head(features))[:, list(classes)]
        own = model.backbone.grid
        # Pixel p of the scaled image is pixel (p + .5) / ratio - .5 of the image; sides are rounded one by one.
        rows, columns = (Grid(own.stride / ratio, (own.origin + 0.5) / ratio - 0.5)
                         for ratio in (scaled.shape[-2] / height, scaled.shape[-1] / width))
        total += resample(attention[:1], rows, grid, size, (columns, grid))[0]
        if flip:
            # Pixel p of the image is pixel width - 1 - p of its mirror image.
            mirrored = Grid(-grid.stride, width - 1 - grid.origin)
            total += resample(attention[1:], rows, grid, size, (columns, mirrored))[0]
    maxima = total.amax(dim=(1, 2), keepdim=True)
    return total / maxima.clamp(min=1e-8), torch.cat(probabilities).mean(0)


def _scaled(image: Tensor, scale: float) -> Tensor:
    """A (3, H, W) image times ``scale`` in size, as float in 0..1."""
    image = image.float()[None] / 255
    if scale == 1:
        return image[0]
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return functional.interpolate(image, size=size, mode="bilinear", antialias=scale < 1)[0]

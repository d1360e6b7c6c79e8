"""The classifier whose attention peaks are instance cues: VGG-16, three new layers, peak attention (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.bestie.settings import PeakClassifierSettings
from stages.cues.backbone import Backbone, Grid, grid_of, resample_output
from stages.cues.classifier import Classifier


class PeakAttention(nn.Module):
    """Keeps the peak regions of every channel and deactivates the rest (section 3.3, fig. 4, listing 2).

    Nothing here is learnt; the layers before learn to put what a class needs into the peaks.

    Args:
        alpha: share of a channel's maximum below which it is deactivated, in 0..1.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, features: Tensor) -> Tensor:
        """(N, K, H, W) to the same size, never negative."""
        features = functional.relu(features)
        criteria = features.amax(dim=(2, 3), keepdim=True)  # selector: S_p, (N, K, 1, 1)
        boundary = criteria * self.alpha  # controller: G_p is the constant alpha
        return features * (features >= boundary)  # stimulator


class PeakClassifier(Classifier):
    """Backbone, three 3x3 convolutions ("layer 4" to "layer 6" of the paper), a 1x1 convolution, global mean."""

    def __init__(self, settings: PeakClassifierSettings, classes: int) -> None:
        super().__init__(settings.backbone, classes, scale=settings.logit_scale)
        self.settings = settings
        _dilate_last_block(self.backbone)
        widths = [self.backbone.width, settings.width, settings.width, settings.width]
        self.layers = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1)
                                    for inputs, outputs in zip(widths, widths[1:], strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(settings.width) if settings.normalise else nn.Identity()
                                   for _ in self.layers)
        self.gates = nn.ModuleList(PeakAttention(settings.alpha) if number in settings.attention else nn.ReLU()
                                   for number in (4, 5, 6))
        self.head = nn.Conv2d(settings.width, classes, 1)
        for layer in (*self.layers, self.head):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.zeros_(layer.bias)
            if layer is self.head:
                nn.init.normal_(layer.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def maps(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class maps (N, classes, h, w) on ``backbone.grid``."""
        features = self.backbone(images)
        for layer, norm, gate in zip(self.layers, self.norms, self.gates, strict=True):
            features = gate(norm(layer(features)))
        return self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class logits (N, classes)."""
        return self.scale * self.maps(images).mean(dim=(2, 3))

    def parameter_groups(self) -> list[dict[str, object]]:
        """Optimizer groups: new layers and biases learn faster."""
        settings = self.settings
        groups = []
        for new in (False, True):
            for bias in (False, True):
                rate = settings.learning_rate
                rate *= settings.head_factor if new else 1
                rate *= settings.bias_factor if bias else 1
                chosen = [value for name, value in self.named_parameters() if value.requires_grad
                          and name.startswith("backbone.") != new and name.endswith(".bias") == bias]
                if chosen:
                    groups.append({"params": chosen, "lr": rate})
        return groups


def _dilate_last_block(backbone: Backbone) -> None:
    """A VGG at stride 8 keeps its fourth pool's window without its step, and dilates the block after it by 2.

    ``Backbone`` takes a window away together with its step; published code keeps the fourth. What moves is no step,
    so the grid stays where it is.
    """
    layers = list(getattr(backbone.body, "features", []))
    pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    if len(pools) != 5 or backbone.grid.stride != 8:
        return
    pool = layers[pools[3]]
    pool.kernel_size, pool.stride, pool.padding = 3, 1, 1
    for layer in layers[pools[3]:]:
        if isinstance(layer, nn.Conv2d):
            layer.dilation, layer.padding = (2, 2), (2, 2)


@torch.no_grad()
def attention_maps(model: PeakClassifier, image: Tensor, classes: Sequence[int], side: int, flip: bool) -> Tensor:
    """Attention maps of some classes at the image's resolution (not in the paper; published code).

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8 RGB on the model's device.
        classes: indices of the classes that are wanted: those of the image's tags.
        side: side of the square to which the image is squeezed [px]; 0 = it is taken as it is.
        flip: average with the mirrored image.

    Returns:
        (len(classes), H, W) float32 in 0..1: of each view the positive part, enlarged and divided by its maximum (0
        where it has none), averaged over the views.
    """
    height, width = image.shape[-2:]
    view = image.float()[None] / 255
    if side:
        view = functional.interpolate(view, (side, side), mode="bilinear", antialias=True)
    views = torch.cat([view, view.flip(-1)]) if flip else view
    maps = functional.relu(model.maps(views))[:, list(classes)]
    own, pixels = model.backbone.grid, grid_of(1)
    # Pixel p of the squeezed image is pixel (p + .5) / ratio - .5 of the image.
    rows, columns = (Grid(own.stride / ratio, (own.origin + 0.5) / ratio - 0.5)
                     for ratio in (view.shape[-2] / height, view.shape[-1] / width))
    total = torch.zeros(len(classes), height, width, device=image.device)
    for index, target in enumerate((pixels, Grid(-1, width - 1))[:len(views)]):
        enlarged = resample_output(maps[index:index + 1], rows, pixels, (height, width), (columns, target))[0]
        total += enlarged / enlarged.amax(dim=(1, 2), keepdim=True).clamp(min=1e-8)
    return total / len(views)

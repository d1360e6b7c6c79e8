"""Multi-label image classifier (IRNet, section 3), open at any of its layers, and Grad-CAM through them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.cues.backbone import Backbone
from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError
from stages.runtime.settings import nearest


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
        self.inserted = nn.ModuleDict()

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W) to class logits (N, classes)."""
        features = self.dropout(self.backbone(images))
        return self.scale * self.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)

    def layer(self, name: str) -> nn.Module:
        """A layer of the backbone by its name, e.g. ``layer4`` or ``layer4.1.conv2`` of a ResNet.

        Raises:
            UserError: there is none of that name; those of the upper levels are listed.
        """
        layers = dict(self.backbone.body.named_modules())
        if not name or name not in layers:
            shown = [known for known in layers if known and known.count(".") < 2]
            raise UserError(f"layer {name!r}: backbone {self.backbone.settings.name!r} has none of that name"
                            f"{nearest(name, list(layers))} (it has {', '.join(shown)}, and what lies below them)")
        return layers[name]

    def insert_behind(self, name: str, module: nn.Module) -> None:
        """Let ``module`` change what a named layer of the backbone gives; it is trained and saved with the rest.

        Args:
            name: see ``layer``.
            module: features (N, C, h, w) to features of the same shape, e.g. peak attention (BESTIE sec. 3.3).

        Raises:
            UserError: no such layer, or there is a module behind it already.
        """
        layer, key = self.layer(name), name.replace(".", "_")
        if key in self.inserted:
            raise UserError(f"layer {name!r}: there is a {type(self.inserted[key]).__name__} behind it already")
        self.inserted[key] = module
        layer.register_forward_hook(_Behind(module))

    def open_at(self, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """One forward pass that also shows a layer.

        Args:
            name: see ``layer``.
            images: RGB (N, 3, H, W).

        Returns:
            Features (N, C, h, w) of the named layer (after what is inserted behind it) and logits (N, classes). Where
            gradients are kept, ``torch.autograd.grad(logits[:, c].sum(), features)`` gives those of a class, also of
            a frozen network.
        """
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if torch.is_grad_enabled() and not output.requires_grad:
                output.requires_grad_()
            kept.append(output)
            return output.clone()  # what comes next may work in place

        hook = self.layer(name).register_forward_hook(keep)
        try:
            logits = self(images)
        finally:
            hook.remove()
        return kept[-1], logits


class _Behind:
    """A forward hook that hands a layer's output to a module.

    An object and no function, because a deep copy of the network (an EMA teacher) must use its own copy of the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.module(output)


def grad_cam(model: Classifier, image: Tensor, layer: str, classes: Sequence[int]) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2): ReLU of the features weighted by their mean gradients.

    Args:
        model: in evaluation mode.
        image: (3, H, W) RGB on the model's device.
        layer: name of a layer of the backbone; its cells lie on ``model.backbone.grid_at(layer)``.
        classes: indices of the classes.

    Returns:
        (len(classes), h, w) on the layer's cells, not negative, not normalised.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # What was made in inference mode cannot take part in a backward pass; a copy can.
        features, logits = model.open_at(layer, image[None].clone())
        return grad_cam_maps(features, logits, classes)


def grad_cam_maps(features: Tensor, logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Grad-CAM of one image from what a network made of it.

    Args:
        features: (1, C, h, w) of a layer, with a gradient.
        logits: (1, all classes), made from them.
        classes: indices of the classes.

    Returns:
        (len(classes), h, w), not negative, not normalised.
    """
    maps = []
    for index in classes:
        gradient, = torch.autograd.grad(logits[0, index], features, retain_graph=True)
        weights = gradient[0].mean(dim=(1, 2), keepdim=True)
        maps.append(functional.relu((weights * features[0]).sum(0)).detach())
    return torch.stack(maps) if maps else features.new_zeros((0, *features.shape[-2:])).detach()

"""Plain vision transformers from timm: features of tokens, and the attention between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from stages.runtime.errors import UserError
from stages.runtime.precision import unmixed

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class TokenEncoder(nn.Module):
    """A ViT without classifier at a given image size; positions learnt at another size are interpolated.

    Args:
        name: timm model, a ``VisionTransformer``.
        weights: ``imagenet`` (whatever timm has for the name), ``none``, or a file: a state dict of timm's or of the
            MAE authors' naming, which is the same.
        arguments: further arguments of ``timm.create_model``.
        side: height and width of the images [px].
        stride: pixels per token, which must be the model's patch size.
    """

    body: Any  # whatever timm makes
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, weights: str, arguments: Mapping[str, object], side: int, stride: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"pretrained": weights != "none", "num_classes": 0, "global_pool": "",
                                   "img_size": side, **arguments}
        if weights not in ("imagenet", "none"):
            if not Path(weights).is_file():
                raise UserError(f"{weights}: no such weights file")
            options["pretrained_cfg_overlay"] = {"file": weights}
        try:
            self.body = timm.create_model(name, **options)
        except (RuntimeError, TypeError, OSError, ValueError, AssertionError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"encoder {name!r} (weights: {weights}) cannot be made for images of {side} px: {reason}. "
                            f"Give a timm vision transformer, or the path of a weights file where timm's download "
                            f"cannot be reached") from None
        if not hasattr(self.body, "blocks") or not hasattr(self.body, "patch_embed"):
            raise UserError(f"encoder {name!r} is no plain vision transformer of timm (no blocks); use kind pyramid "
                            f"for a convolutional network")
        patch = self.body.patch_embed.patch_size[0]
        if patch != stride or side % stride:
            raise UserError(f"encoder {name!r}: its patches are {patch} px wide; stride must be {patch} and the crop's "
                            f"side a multiple of it, found stride {stride} and side {side}")
        self.cells = side // patch
        self.width = int(self.body.embed_dim)
        self.depth = len(self.body.blocks)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def _normalise(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return (images - self.mean) / self.deviation

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, side, side), uint8 or float in 0..1, to features (B, width, cells, cells)."""
        tokens = self.body.forward_features(self._normalise(images))[:, self.body.num_prefix_tokens:]
        return tokens.transpose(1, 2).unflatten(2, (self.cells, self.cells))

    @torch.no_grad()
    def attention(self, images: Tensor, layer: int) -> Tensor:
        """Self-attention between the image's tokens, averaged over the heads: (B, cells^2, cells^2).

        Args:
            images: as for ``forward``.
            layer: from 1 to the depth, or 0 for the mean over all layers.

        Returns:
            Positive; a class token's share is left out, so that rows sum to less than 1 where the model has one.

        Raises:
            UserError: the model has fewer layers.
        """
        if layer > self.depth:
            raise UserError(f"layer {layer} was asked for, the transformer has {self.depth}")
        found: list[Tensor] = []
        chosen = self.body.blocks if layer == 0 else [self.body.blocks[layer - 1]]
        hooks = [block.attn.register_forward_pre_hook(
            lambda module, inputs: found.append(_mean_attention(module, inputs[0]))) for block in chosen]
        try:
            self.body.forward_features(self._normalise(images))
        finally:
            for hook in hooks:
                hook.remove()
        prefix = self.body.num_prefix_tokens
        return torch.stack(found).mean(0)[:, prefix:, prefix:]


def _mean_attention(module: Any, tokens: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) of one attention layer, averaged over its heads; timm's fused kernel never gives it."""
    batch, count, _ = tokens.shape
    queries, keys, _ = module.qkv(tokens).reshape(batch, count, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    queries, keys = module.q_norm(queries), module.k_norm(keys)
    with unmixed():  # what is walked over
        return (queries.float() * module.scale @ keys.float().transpose(-2, -1)).softmax(-1).mean(1)

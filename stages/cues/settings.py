"""Settings of backbones and of random views; apart from the code, because they are read before torch is needed."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from stages.runtime.settings import Settings


class BackboneSettings(Settings):
    """Which network computes features, and how densely."""

    name: str = Field("resnet50", description="timm model name (IRNet sec. 3: ResNet50)")
    weights: str = Field("imagenet", description="'imagenet' (timm's download), 'none', or a file with a state dict "
                                                 "(IRNet: ImageNet)")
    stride: int = Field(16, ge=2, description="image pixels per cell of the last feature map [px] (IRNet sec. 3: 16)")
    arguments: dict[str, Any] = Field(default_factory=dict, description="further arguments of timm.create_model, e.g. "
                                                                        "pad_type or channels (not in the paper)")
    freeze_batch_norm: bool = Field(False, description="keep batch-norm statistics and scales as loaded "
                                                       "(not in the paper)")


class AugmentSettings(Settings):
    """How a training view is drawn."""

    crop: int = Field(512, ge=16, description="side of the square crop [px] (not in the paper; published code: 512)")
    long_side: tuple[int, int] | None = Field(
        (320, 640), description="range of the image's longer side before cropping [px]; null: a factor instead "
                                "(not in the paper; known of published code)")
    scale: tuple[float, float] = Field(
        (0.5, 1.5), description="range of the factor on the image's size where long_side is null (not in the paper)")
    flip: bool = Field(True, description="mirror half of the views (not in the paper)")
    jitter: float = Field(0.0, ge=0, le=1, description="largest relative change of brightness, contrast and "
                                                       "saturation (not in the paper)")

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSettings:
        for name in ("long_side", "scale"):
            span = getattr(self, name)
            if span is not None and not 0 < span[0] <= span[1]:
                raise ValueError(f"{name}: a range [low, high] with 0 < low <= high was expected, found {list(span)}")
        return self

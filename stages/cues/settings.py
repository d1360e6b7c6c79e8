"""Settings of backbones, views and classifiers; apart from the code, because they are read before torch is needed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.runtime.settings import Arguments, Positive, Settings, TrainingSettings

MaskKind = Literal["box", "ellipse", "grabcut", "grabcut_points"]
"""Masks without learning, see ``stages.cues.simple_masks.simple_mask``."""


class BackboneSettings(Settings):
    """Which network computes features, and how densely."""

    name: str = Field("resnet50", description="timm model name (IRNet sec. 3: ResNet50)")
    weights: str = Field("imagenet", description="'imagenet' (timm's download), 'none', or a file with a state dict "
                                                 "(IRNet: ImageNet)")
    stride: int = Field(16, ge=2, description="image pixels per cell of the last feature map [px] (IRNet sec. 3: 16)")
    arguments: Arguments = Field(default_factory=dict, description="further arguments of timm.create_model, e.g. "
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


class ViewSettings(Settings):
    """How a network looks at a whole image."""

    flip: bool = Field(True, description="average with the mirrored image (not in the paper)")
    max_pixels: float = Field(4e6, ge=1024, description=(
        "a view that would have more pixels is taken at the largest scale that fits, for want of memory [px] "
        "(not in the paper)"))


class ImageBatchSettings(ViewSettings):
    """How a network looks at whole images, several of one size at once."""

    batch_size: int = Field(1, ge=1, description="images of equal size that are looked at at once (not in the paper)")


class CamSettings(ImageBatchSettings):
    """Inference of class attention maps (IRNet eq. 1)."""

    flip: bool = Field(True, description="also look at the mirrored image (not in the paper; published code)")
    scales: tuple[Positive, ...] = Field((0.5, 1.0, 1.5, 2.0), min_length=1, description=(
        "factors on the image's size (not in the paper; published code)"))


class ClassifierSettings(TrainingSettings):
    """The multi-label classifier behind class attention maps (IRNet sec. 3, with its values)."""

    backbone: BackboneSettings = Field(BackboneSettings(), description="network (IRNet sec. 3: ResNet50, stride 16)")
    augment: AugmentSettings = Field(AugmentSettings(), description="random views (not in the paper)")
    epochs: int = Field(5, ge=1, description="passes over the training images (not in the paper; published code: 5)")
    batch_size: int = Field(16, ge=1, description="images per step (not in the paper; published code: 16)")
    learning_rate: float = Field(0.1, gt=0, description="initial rate (IRNet sec. 6.1: 0.1, with sgd and polynomial)")
    backbone_factor: float = Field(0.1, ge=0, description="factor on the rate of the backbone (not in the paper)")
    logit_scale: float = Field(1.0, gt=0, description="factor on the class scores; more than 1 helps a network that "
                                                      "starts from nothing (not in the paper: 1)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of feature channels dropped (not in the paper)")

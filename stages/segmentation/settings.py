"""Settings of semantic segmentation; apart from the code, because they are read before torch is needed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.cues.settings import AugmentSettings, BackboneSettings
from stages.runtime.settings import Count, Positive, Settings, TrainingSettings


class FeatureSettings(Settings):
    """A backbone, dilated, under a decoder; "panoptic" is that paper's section 4.1."""

    architecture: Literal["pspnet", "deeplabv3plus", "plain"] = Field(
        "pspnet", description="decoder: pyramid pooling, or atrous pyramid and features of stride 4, or none: the "
                              "backbone's own features (panoptic: PSPNet)")
    backbone: BackboneSettings = Field(
        BackboneSettings(name="resnet101", stride=8, freeze_batch_norm=True),
        description="network, weights, stride (4, 8, 16 or 32) and whether its batch norm is frozen (panoptic: "
                    "ResNet-101 at stride 8, frozen)")
    dilate: bool = Field(True, description="dilate where a stride is removed, so that the field of view stays; timm "
                                           "can with ResNets and others, never with VGG (PSPNet: yes)")
    decoder_channels: int = Field(512, ge=8, description="features that classes are told from, but for plain "
                                                         "[channels] (PSPNet: 512; DeepLabV3+: 256)")
    decoder_norm: Literal["batch", "frozen", "group"] = Field(
        "batch", description="normalisation in the decoder: batch statistics, batch norm as it was initialised or "
                             "loaded (for batches of one image), or groups of channels (panoptic: frozen)")
    atrous_rates: tuple[Count, Count, Count] = Field(
        (6, 12, 18), description="dilations of deeplabv3plus [cells] (DeepLabV3+: at stride 16; twice that at 8)")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of decoder features dropped (not in the papers)")

    @model_validator(mode="after")
    def _possible(self) -> FeatureSettings:
        if self.backbone.stride not in (4, 8, 16, 32):
            raise ValueError(f"backbone.stride: 4, 8, 16 or 32 was expected, found {self.backbone.stride}")
        if min(self.atrous_rates) < 1:
            raise ValueError(f"atrous_rates: numbers from 1 on were expected, found {list(self.atrous_rates)}")
        return self


class SegmentationSettings(FeatureSettings, TrainingSettings):
    """A semantic segmentation network and its training.

    The panoptic paper's schedule is counted in steps of one crop (about 400,000); epochs are the preset's business.
    """

    learning_rate: float = Field(1e-4, gt=0, description="highest rate (panoptic: 1e-4, then 1e-5)")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay (panoptic: 5e-4)")
    backbone_factor: float = Field(1.0, ge=0, description="factor on the rate of the backbone (not in the papers)")
    augment: AugmentSettings = Field(AugmentSettings(), description="random views (not in the papers)")


class SemanticInferenceSettings(Settings):
    """How a trained network looks at an image of any size."""

    scales: tuple[Positive, ...] = Field(
        (1.0,), min_length=1, description="factors on the image's size (panoptic: a single scale)")
    flip: bool = Field(False, description="also look at the mirrored image (not in the papers)")
    max_pixels: int = Field(1024 * 512, ge=64 * 64, description="most pixels of a view that is looked at at once; a "
                                                                "larger one is cut into overlapping tiles [px] (not in "
                                                                "the papers)")
    restrict: bool = Field(True, description="on training images only the classes that the image's tags name, and "
                                             "background (BESTIE, panoptic sec. 3.4)")
    confidence: float = Field(0.0, ge=0, lt=1, description="pixels whose highest probability is below this are "
                                                           "undecided; 0 = every pixel is decided (not in the papers)")

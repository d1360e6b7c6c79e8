"""Settings of the two dense CRFs, for the methods that refine labels or masks by one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.runtime.settings import Settings


class DenseCrfSettings(Settings):
    """Dense CRF of any number of labels on an image (``dense_crf``); the papers give no values."""

    engine: Literal["lattice", "pydensecrf"] = Field("lattice", description=(
        "lattice: in torch, the lattice built once for all partitions of an image; pydensecrf: that library, once for "
        "each; their labels differ in some 5 of 10,000 pixels (not in the paper)"))
    iterations: int = Field(10, ge=0, description="mean-field steps; 0 = no refinement (not in the paper)")
    confidence: float = Field(0.7, gt=0.5, lt=1, description="probability of the given label (not in the paper)")
    gaussian_xy: float = Field(3.0, gt=0, description="deviation of the smoothness kernel [px] (not in the paper)")
    gaussian_weight: float = Field(3.0, ge=0, description="weight of the smoothness kernel (not in the paper)")
    bilateral_xy: float = Field(50.0, gt=0, description="spatial deviation of the appearance kernel [px] "
                                                        "(not in the paper)")
    bilateral_rgb: float = Field(5.0, gt=0, description="colour deviation of the appearance kernel [0..255] "
                                                        "(not in the paper)")
    bilateral_weight: float = Field(10.0, ge=0, description="weight of the appearance kernel (not in the paper)")


class MeanFieldSettings(Settings):
    """Mean-field of foreground and background on crops of objects (``mean_field``); the papers give no values."""

    iterations: int = Field(10, ge=0, description="mean-field steps; 0 = no refinement (not in the paper)")
    radius: int = Field(0, ge=0, description=(
        "the appearance kernel joins a pixel with those of a window of 2 radius + 1 pixels around it; 0 = with all "
        "pixels [mask px] (not in the paper)"))
    gaussian_xy: float = Field(1.0, gt=0, description=(
        "deviation of the smoothness kernel [mask px] (not in the paper)"))
    gaussian_weight: float = Field(1.0, ge=0, description="weight of the smoothness kernel (not in the paper)")
    bilateral_xy: float = Field(10.0, gt=0, description=(
        "spatial deviation of the appearance kernel [mask px] (not in the paper)"))
    bilateral_rgb: float = Field(8.0, gt=0, description=(
        "colour deviation of the appearance kernel [0..255] (not in the paper)"))
    bilateral_weight: float = Field(4.0, ge=0, description="weight of the appearance kernel (not in the paper)")

"""Settings of the EXITS chain; one section per DVC stage, so that a changed threshold never retrains."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from stages.propagation.settings import MeanFieldSettings
from stages.runtime.settings import Settings, TrainingSettings


class RandomCropSettings(Settings):
    """Crops in training (section 4.1: as MAL)."""

    margin: tuple[float, float] = Field((0.0, 0.6), description=(
        "range of the margin on each side [share of the box's side] (not in the paper; published code of MAL: 0 to "
        "1.2 for both sides together)"))
    flip: bool = Field(True, description="mirror half of the crops (sec. 4.1: as MAL)")
    jitter: float = Field(0.4, ge=0, le=1, description=(
        "largest relative change of brightness, contrast and saturation (sec. 4.1: as MAL; the value is not in the "
        "paper)"))
    min_area: float = Field(1024.0, ge=1, description=(
        "objects with a smaller box are not trained on, but get a mask [px] (not in the paper; published code of "
        "MAL: 2048)"))

    @model_validator(mode="after")
    def _ordered(self) -> RandomCropSettings:
        if not 0 <= self.margin[0] <= self.margin[1]:
            raise ValueError(f"margin: a range [low, high] with 0 <= low <= high was expected, found "
                             f"{list(self.margin)}")
        return self


class CropSettings(Settings):
    """Crops around objects (section 4.1)."""

    side: int = Field(512, ge=32, description="side of the crop that the networks see [px] (sec. 4.1: 512)")
    margin: float = Field(0.3, ge=0, description=(
        "margin on each side where points are retrieved and masks are made [share of the box's side] (not in the "
        "paper; published code of MAL: 0.6 for both sides together)"))
    random: RandomCropSettings = Field(RandomCropSettings(), description="see RandomCropSettings")


class EncoderSettings(Settings):
    """What turns a crop into features (appendix A: ViT-Base; a class token, which MAE's weights have, is not used)."""

    kind: Literal["vit", "pyramid"] = Field("vit", description=(
        "vit: a plain vision transformer (the paper's); pyramid: a convolutional network whose levels are merged "
        "top-down, for where no MAE weights can be had (not in the paper)"))
    name: str = Field("vit_base_patch16_224.mae", description="timm model (sec. 4.1: ViT-Base, MAE)")
    weights: str = Field("imagenet", description=(
        "'imagenet' (timm's download, whatever the name was trained on), 'none', or a file with a state dict (sec. "
        "4.1: MAE)"))
    arguments: dict[str, Any] = Field(default_factory=dict, description=(
        "further arguments of timm.create_model (not in the paper)"))
    stride: int = Field(16, ge=2, description=(
        "crop pixels per token, or per cell of a pyramid's last level [px] (sec. 4.1: 16 x 16 patches)"))
    freeze_batch_norm: bool = Field(False, description=(
        "keep batch-norm statistics as loaded (pyramid; not in the paper)"))
    width: int = Field(96, ge=8, description="channels of the merged features [channels] (pyramid; not in the paper)")
    position: bool = Field(False, description=(
        "tell the network where the box lies in the crop (not in the paper, whose ViT learns positions of crops "
        "that are centred on the box)"))


class GuidedEncoderSettings(EncoderSettings):
    """The generator's encoder."""

    scores: bool = Field(False, description=(
        "show the network the propagation scores of the crop, too, in training and for every object that gets a "
        "mask; where `points` is not `retrieved` they are 0 (pyramid; not in the paper, whose generator sees the "
        "crop alone)"))

    @model_validator(mode="after")
    def _scores_need_a_pyramid(self) -> GuidedEncoderSettings:
        if self.scores and self.kind != "pyramid":
            raise ValueError("scores: only a pyramid takes propagation scores; set it to false or kind to pyramid")
        return self


class NetworkSettings(TrainingSettings):
    """What both networks share."""

    mask_stride: int = Field(4, ge=1, description=(
        "crop pixels per pixel of the mask that is learnt [px] (app. A: 1; memory makes it 4)"))
    batch_size: int = Field(32, ge=1, description="crops per step, over all processes (not in the paper)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="optimizer (sec. 4.1: AdamW)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field("cosine", description=(
        "how the rate changes (sec. 4.1: cosine)"))
    learning_rate: float = Field(1.5e-6, gt=0, description=(
        "highest rate per sample of a batch: it is multiplied by the batch size (sec. 4.1: 1.5e-6; the "
        "multiplication is MAL's published code)"))
    encoder_factor: float = Field(1.0, ge=0, description=(
        "factor on the rate of the pretrained layers (not in the paper)"))
    weight_decay: float = Field(0.05, ge=0, description="weight decay (not in the paper)")


class ExtractorSettings(NetworkSettings):
    """The similarity extractor: warmed up with the MIL loss, then frozen (section 3.2.1)."""

    encoder: EncoderSettings = Field(EncoderSettings(), description="see EncoderSettings")
    epochs: int = Field(8, ge=0, description=(
        "passes over the objects; 0 = no warm-up (sec. 4.1: VOC 8, COCO 1, LVIS 10)"))


class PropagationSettings(Settings):
    """Retrieval of points (sections 3.2.1 and 3.2.2)."""

    cells: int = Field(32, ge=2, description="points along a side, N [points] (sec. 4.1: 512 px in patches of 16)")
    layer: int = Field(10, ge=0, description=(
        "layer whose attention is the similarity, from 1 (sec. 4.1: 10); 0 = the mean over all layers (table a1); "
        "for a pyramid the backbone's level from fine to coarse, and last the merged features; 0 = all levels side "
        "by side"))
    temperature: float = Field(0.1, gt=0, description="of the similarity of features (pyramid; not in the paper)")
    locality: float = Field(0.0, ge=0, description=(
        "similarity falls off with the distance of two points, to 1 / e at this share of the crop's side; 0 = it "
        "does not (not in the paper)"))
    colour: float = Field(0.0, ge=0, description=(
        "similarity falls off with the difference of two points' mean colours in CIELAB, to 1 / e at this share of "
        "the range of lightness; 0 = it does not (not in the paper)"))
    sinkhorn: int = Field(10, ge=1, description="iterations of Sinkhorn-Knopp (not in the paper)")
    hops: int = Field(3, ge=0, description="alpha; 0 = until it converges (eq. a2) (sec. 4.1: 3)")
    beta: float = Field(0.25, gt=0, lt=1, description="share that walks on, where hops is 0 (app. C: 0.25)")
    inward: float = Field(12 / 512, ge=0, lt=0.5, description=(
        "delta, by which extreme points move into the object [share of the crop's side] (app. B: VOC 12, LVIS 16, "
        "COCO 24 of 512 px)"))
    foreground: float = Field(1.024, description="tau_FG in units of 1 / N^2 (sec. 4.1: 1e-3 at N = 32)")
    background: float = Field(-0.1024, description="tau_BG in units of 1 / N^2 (sec. 4.1: -1e-4 at N = 32)")
    batch_size: int = Field(8, ge=1, description="crops at a time (not in the paper)")

    @model_validator(mode="after")
    def _ordered(self) -> PropagationSettings:
        if self.background >= self.foreground:
            raise ValueError(f"background ({self.background}) must be below foreground ({self.foreground})")
        return self


class GeneratorSettings(NetworkSettings):
    """The pseudo label generator and its training (section 3.2.3, appendix A and B)."""

    encoder: GuidedEncoderSettings = Field(GuidedEncoderSettings(), description="see EncoderSettings")
    points: Literal["none", "extreme", "retrieved"] = Field("retrieved", description=(
        "supervision by points: none = the box-only variant (first row of table 5), extreme = extreme points and "
        "points outside the box (second row), retrieved = all"))
    dropout: float = Field(0.9, ge=0, lt=1, description=(
        "share of the retrieved points left out in each epoch (sec. 4.1: 0.9)"))
    hide_scores: float = Field(0.0, ge=0, lt=1, description=(
        "share of the training crops in which a guided encoder is not shown the scores, so that it learns to see by "
        "itself (pyramid; not in the paper)"))
    mil_weight: float = Field(10.0, ge=0, description="lambda_mil (app. B: 10)")
    point_weight: float = Field(0.05, ge=0, description="lambda_point (app. B: VOC 0.05, COCO and LVIS 0.5)")
    crf_weight: float = Field(0.5, ge=0, description="lambda_crf (app. B: 0.5)")
    crf_scores: float = Field(0.0, ge=0, le=1, description=(
        "share of the propagation scores, as probabilities, in the prediction that the CRF refines (not in the paper: "
        "0, where the networks' predictions alone are refined)"))
    crf_start: float = Field(0.1, ge=0, le=1, description=(
        "share of the training over which the weight of the CRF loss rises from 0 (not in the paper; published code "
        "of MAL: 4000 steps)"))
    crf: MeanFieldSettings = Field(MeanFieldSettings(), description=(
        "mean-field of eq. 9; its widths are in mask pixels (not in the paper)"))
    ema: float = Field(0.996, ge=0, lt=1, description=(
        "momentum of the teacher (not in the paper; published code of MAL: 0.996)"))
    epochs: int = Field(80, ge=1, description="passes over the objects (sec. 4.1: VOC 80; DESIGN: COCO 10)")


class InferenceSettings(Settings):
    """Probabilities of all objects (section 3.3)."""

    network: Literal["teacher", "student"] = Field("teacher", description=(
        "which network makes the masks (not in the paper)"))
    flip: bool = Field(False, description="average with the mirrored crop (not in the paper)")
    unguided: float = Field(0.0, ge=0, le=1, description=(
        "share, in a guided encoder's prediction, of the one that it makes without the scores; only useful after "
        "training with `hide_scores` (pyramid; not in the paper)"))
    scores: float = Field(0.0, ge=0, le=1, description=(
        "share of the propagation scores, as probabilities, in the masks, before the CRF if there is one; where "
        "`generator.points` is not `retrieved`, and for objects without extreme points, it is 0 (not in the paper: 0)"))
    batch_size: int = Field(8, ge=1, description="crops at a time (not in the paper)")
    crf: MeanFieldSettings = Field(MeanFieldSettings(iterations=0), description=(
        "mean-field refinement at the crop's resolution; its widths are in crop pixels (not in the paper)"))


class SynthesisSettings(Settings):
    """Masks of all objects (section 3.3)."""

    min_box: float = Field(16.0, ge=1, description=(
        "objects with a smaller box are labelled by the box itself [px] (not in the paper)"))
    threshold: float = Field(0.5, gt=0, lt=1, description=(
        "probability from which a pixel belongs to the mask (not in the paper)"))
    inside_box: bool = Field(True, description=(
        "cut the mask at the box, outside of which nothing belongs to the object (sec. 3.2: definite background)"))
    extreme_points: bool = Field(True, description=(
        "the pixels of the extreme points belong to the mask in any case (sec. 3.2: a part of the true mask)"))


class ExitsSettings(Settings):
    """All of EXITS."""

    crops: CropSettings = Field(CropSettings(), description="see CropSettings")
    extractor: ExtractorSettings = Field(ExtractorSettings(), description="see ExtractorSettings")
    propagation: PropagationSettings = Field(PropagationSettings(), description="see PropagationSettings")
    generator: GeneratorSettings = Field(GeneratorSettings(), description="see GeneratorSettings")
    inference: InferenceSettings = Field(InferenceSettings(), description="see InferenceSettings")
    synthesis: SynthesisSettings = Field(SynthesisSettings(), description="see SynthesisSettings")

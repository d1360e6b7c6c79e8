"""Settings of the EXITS chain; one section per DVC stage, so that a changed threshold never retrains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.cues.settings import MaskKind
from stages.propagation.settings import MeanFieldSettings
from stages.runtime.settings import Arguments, Settings, TrainingSettings

MaskSource = Literal["generator", "walk"] | MaskKind


class StudentSettings(Settings):
    """What is done, by chance, to the colours of the student's view and not to those of the teacher's (section 4.1: as
    MAL, by its published code)."""

    chance: float = Field(0.5, ge=0, le=1, description=(
        "share of the views whose brightness, contrast, saturation and hue change (sec. 4.1: as MAL; published code of "
        "MAL: 0.5)"))
    brightness: float = Field(0.4, ge=0, le=1, description=(
        "largest relative change (sec. 4.1: as MAL; published code of MAL: 0.4)"))
    contrast: float = Field(0.4, ge=0, le=1, description=(
        "largest relative change (sec. 4.1: as MAL; published code of MAL: 0.4)"))
    saturation: float = Field(0.2, ge=0, le=1, description=(
        "largest relative change (sec. 4.1: as MAL; published code of MAL: 0.2)"))
    hue: float = Field(0.1, ge=0, le=0.5, description=(
        "largest shift [turns] (sec. 4.1: as MAL; published code of MAL: 0.1)"))
    grey: float = Field(0.2, ge=0, le=1, description=(
        "share of the views that lose their colours (sec. 4.1: as MAL; published code of MAL: 0.2)"))
    blur: float = Field(0.5, ge=0, le=1, description=(
        "share of the views that are blurred (sec. 4.1: as MAL; published code of MAL: 0.5)"))
    blur_width: tuple[float, float] = Field((0.1, 2.0), description=(
        "range of the blur's standard deviation [crop px] (not in the paper)"))

    @property
    def differs(self) -> bool:
        """Whether the student ever sees another view than the teacher."""
        return max(self.chance, self.grey, self.blur) > 0

    @model_validator(mode="after")
    def _ordered(self) -> StudentSettings:
        if not 0 < self.blur_width[0] <= self.blur_width[1]:
            raise ValueError(f"blur_width: a range [low, high] with 0 < low <= high was expected, found "
                             f"{list(self.blur_width)}")
        return self


class RandomCropSettings(Settings):
    """Crops in training (section 4.1: as MAL)."""

    margins: Literal["shared", "each"] = Field("shared", description=(
        "shared: a number out of `margin` is what two opposite sides move out by together, a uniform share of it the "
        "one and the rest the other; each: every side has a number of its own (sec. 4.1: as MAL, whose "
        "published code is shared)"))
    margin: tuple[float, float] = Field((0.0, 0.6), description=(
        "range of the margin, uniform [share of the box's side] (sec. 4.1: as MAL; published code of MAL: 0 to 1.2 "
        "halves of it)"))
    flip: bool = Field(True, description="mirror half of the crops (sec. 4.1: as MAL)")
    jitter: float = Field(0.0, ge=0, le=1, description=(
        "largest relative change of brightness, contrast and saturation of every view, the teacher's too (not in the "
        "paper)"))
    student: StudentSettings = Field(StudentSettings(), description="see StudentSettings")
    min_area: float = Field(2048.0, ge=1, description=(
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
    margin: float = Field(0.15, ge=0, description=(
        "margin on each side where points are retrieved and masks are made; the crop ends where the image does [share "
        "of the box's side] (sec. 4.1: as MAL; published code of MAL: 0.15, the box fills 1 / 1.3^2 = 59 % of it)"))
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
    arguments: Arguments = Field(default_factory=dict, description=(
        "further arguments of timm.create_model (not in the paper)"))
    stride: int = Field(16, ge=2, description=(
        "crop pixels per token, or per cell of a pyramid's last level [px] (sec. 4.1: 16 x 16 patches)"))
    freeze_batch_norm: bool = Field(False, description=(
        "keep batch-norm statistics as loaded (pyramid; not in the paper)"))
    width: int = Field(96, ge=8, description="channels of the merged features [channels] (pyramid; not in the paper)")
    position: bool = Field(False, description=(
        "tell the network where the box lies in the crop (not in the paper, whose ViT learns positions of crops "
        "that are centred on the box)"))


class NetworkSettings(TrainingSettings):
    """What both networks share."""

    mask_stride: int = Field(4, ge=1, description=(
        "crop pixels per pixel of the mask that is learnt [px] (app. A: 1; published code of MAL: 4)"))
    batch_size: int = Field(32, ge=1, description="crops per step, over all processes (not in the paper)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="optimizer (sec. 4.1: AdamW)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field("cosine", description=(
        "how the rate changes (sec. 4.1: cosine)"))
    learning_rate: float = Field(1.5e-6, gt=0, description=(
        "highest rate per sample of a batch: it is multiplied by the batch size (sec. 4.1: 1.5e-6; the "
        "multiplication is MAL's published code)"))
    encoder_factor: float = Field(1.0, ge=0, description=(
        "factor on the rate of the pretrained layers (not in the paper)"))
    floor: float = Field(0.2, ge=0, lt=1, description=(
        "what the schedule falls to [share of the highest rate] (not in the paper; published code of MAL: 0.2)"))
    warmup_steps: int = Field(0, ge=0, description=(
        "linear rise of the rate from a thousandth [steps] (not in the paper, nor in what is known of MAL, whose "
        "losses rise: 0)"))
    weight_decay: float = Field(5e-4, ge=0, description=(
        "weight decay (not in the paper; published code of MAL: 5e-4)"))


class ExtractorSettings(NetworkSettings):
    """The similarity extractor: warmed up with the MIL loss, then frozen (section 3.2.1)."""

    encoder: EncoderSettings = Field(EncoderSettings(), description="see EncoderSettings")
    epochs: int = Field(8, ge=0, description=(
        "passes over the objects; 0 = no warm-up (sec. 4.1: VOC 8; COCO and LVIS 1, as we read it)"))


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


class CrfSettings(MeanFieldSettings):
    """Mean-field of the masks of objects, and what is done before and after it (the paper gives no values)."""

    clamp: float = Field(0.02, ge=0, lt=0.5, description=(
        "probabilities inside the box are kept this far from 0 and 1 before the mean-field (not in the paper)"))
    binary: bool = Field(False, description="above 1/2 the result is 1, elsewhere 0 (not in the paper)")


class WindowCrfSettings(CrfSettings):
    """The CRF of the training (eq. 9: as in MAL): pairs of a 3 x 3 window, its result a mask of 0 and 1; `radius` 0
    makes it the dense one."""

    radius: int = Field(1, ge=0, description=(
        "the pairs of a pixel are those of a window of 2 radius + 1 pixels around it; 0 = all pixels [mask px] "
        "(eq. 9: as in MAL; published code of MAL: 1)"))
    gaussian_weight: float = Field(0.0, ge=0, description=(
        "weight of the smoothness kernel, which no window cuts off (eq. 9: as in MAL, whose pairs are the window's "
        "alone: 0)"))
    clamp: float = Field(0.1, ge=0, lt=0.5, description=(
        "probabilities inside the box are kept this far from 0 and 1 before the mean-field (eq. 9: as in MAL; "
        "published code of MAL: 0.1)"))
    binary: bool = Field(True, description=(
        "above 1/2 the result is 1, elsewhere 0 (eq. 9: as in MAL; published code of MAL)"))


class GeneratorSettings(NetworkSettings):
    """The pseudo label generator and its training (section 3.2.3, appendix A and B)."""

    encoder: EncoderSettings = Field(EncoderSettings(), description="see EncoderSettings")
    points: Literal["none", "extreme", "retrieved"] = Field("retrieved", description=(
        "supervision by points: none = the box-only variant (first row of table 5), extreme = extreme points and "
        "points outside the box (second row), retrieved = all"))
    dropout: float = Field(0.9, ge=0, lt=1, description=(
        "share of the retrieved points left out in each epoch (sec. 4.1: 0.9)"))
    mil_weight: float = Field(10.0, ge=0, description="lambda_mil (app. B: 10)")
    point_weight: float = Field(0.05, ge=0, description="lambda_point (app. B: VOC 0.05, COCO and LVIS 0.5)")
    crf_weight: float = Field(0.5, ge=0, description="lambda_crf (app. B: 0.5)")
    mil_rise: int = Field(1000, ge=0, description=(
        "over which the weight of the MIL loss rises from 0 [steps] (not in the paper; published code of MAL: 1000)"))
    crf_rise: int = Field(4000, ge=0, description=(
        "over which the weight of the CRF loss rises from 0; 0 = over `crf_start` [steps] (not in the paper; published "
        "code of MAL: 4000)"))
    crf_start: float = Field(0.1, ge=0, le=1, description=(
        "the same as a share of the training, where `crf_rise` is 0 (not in the paper)"))
    crf: WindowCrfSettings = Field(WindowCrfSettings(), description=(
        "mean-field of eq. 9; its widths are in mask pixels (see WindowCrfSettings)"))
    ema: float = Field(0.996, ge=0, lt=1, description=(
        "momentum of the teacher (not in the paper; published code of MAL: 0.996)"))
    epochs: int = Field(80, ge=1, description=(
        "passes over the objects (sec. 4.1: VOC 80; COCO and LVIS 10, as we read it)"))


class GuidedTrainingSettings(Settings):
    """What the generator gets of the propagation scores while it learns (not in the paper)."""

    input: bool = Field(True, description=(
        "show the network the propagation scores of the crop, too, in training and for every object that gets a mask "
        "(pyramid; not in the paper, whose generator sees the crop alone)"))
    hidden: float = Field(0.0, ge=0, lt=1, description=(
        "share of the training crops in which the network is not shown the scores, so that it learns to see by itself "
        "(pyramid; not in the paper)"))
    target: float = Field(0.0, ge=0, le=1, description=(
        "share of the propagation scores, as probabilities, in the prediction that the CRF of eq. 9 refines (not in "
        "the paper: 0, the networks' predictions alone)"))


class GuidedInferenceSettings(Settings):
    """What the masks get of the propagation scores (not in the paper)."""

    without: float = Field(0.0, ge=0, le=1, description=(
        "share, in the prediction of a network that is shown the scores, of the one that it makes without them; only "
        "useful after training with `hidden` (pyramid; not in the paper)"))
    masks: float = Field(0.0, ge=0, le=1, description=(
        "share of the propagation scores, as probabilities, in the masks, before the CRF if there is one; it is 0 for "
        "objects without extreme points (not in the paper: 0)"))


class GuidedSettings(Settings):
    """The short cut from the propagation to the masks, past the training on points (not in the paper).

    It is of account where `generator.points` is `retrieved`, and nowhere else: nothing of the walk gets into the other
    rows of the paper's table 5.
    """

    enabled: bool = Field(False, description=(
        "let the generator see, and the masks hold, propagation scores (not in the paper: false)"))
    training: GuidedTrainingSettings = Field(GuidedTrainingSettings(), description="see GuidedTrainingSettings")
    inference: GuidedInferenceSettings = Field(GuidedInferenceSettings(), description="see GuidedInferenceSettings")

    @property
    def shown(self) -> bool:
        """Whether the generator has an input for the scores."""
        return self.enabled and self.training.input

    @model_validator(mode="after")
    def _does_something(self) -> GuidedSettings:
        if self.enabled and not (self.training.input or self.training.target or self.inference.masks):
            raise ValueError("enabled is true, and nothing is done with the scores; set training.input, "
                             "training.target or inference.masks, or enabled to false")
        return self


class InferenceSettings(Settings):
    """Probabilities of all objects (section 3.3)."""

    source: MaskSource = Field("generator", description=(
        "whose masks: the generator's (sec. 3.3); walk: the propagation scores as probabilities, no generator; box, "
        "ellipse, grabcut, grabcut_points: without learning, see BaselineSettings; all that follows is the same for "
        "all of them (only generator is in the paper)"))
    middle: float = Field(0.0, description=(
        "difference of the propagation scores that is a probability of 1/2 [1 / N^2] (source walk; not in the paper)"))
    network: Literal["teacher", "student"] = Field("teacher", description=(
        "which network makes the masks (not in the paper)"))
    flip: bool = Field(False, description="average with the mirrored crop (not in the paper)")
    batch_size: int = Field(8, ge=1, description="crops at a time (not in the paper)")
    crf: CrfSettings = Field(CrfSettings(iterations=0), description=(
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
        "the pixels of the extreme points belong to the mask in any case (sec. 3.2: a part of the true mask; of "
        "annotations.extreme_points: extremenet some lie beside it)"))


class ExitsSettings(Settings):
    """All of EXITS."""

    crops: CropSettings = Field(CropSettings(), description="see CropSettings")
    extractor: ExtractorSettings = Field(ExtractorSettings(), description="see ExtractorSettings")
    propagation: PropagationSettings = Field(PropagationSettings(), description="see PropagationSettings")
    generator: GeneratorSettings = Field(GeneratorSettings(), description="see GeneratorSettings")
    guided: GuidedSettings = Field(GuidedSettings(), description="see GuidedSettings")
    inference: InferenceSettings = Field(InferenceSettings(), description="see InferenceSettings")
    synthesis: SynthesisSettings = Field(SynthesisSettings(), description="see SynthesisSettings")

    @model_validator(mode="after")
    def _shown_scores_need_a_pyramid(self) -> ExitsSettings:
        if self.guided.shown and self.generator.encoder.kind != "pyramid":
            raise ValueError("guided.training.input: only a pyramid takes propagation scores; set it or guided.enabled "
                             "to false, or generator.encoder.kind to pyramid")
        return self

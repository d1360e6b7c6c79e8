"""Settings of the BESTIE chain; one section per DVC stage, so that a changed threshold never retrains.

Where a default comes from: a section or table of the paper; "published code" is what the published figures were
obtained with; "not in the paper" alone is a choice of this project.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.cues.settings import AugmentSettings, BackboneSettings
from stages.runtime.settings import Count, Positive, Settings, TrainingSettings
from stages.segmentation.settings import SegmentationSettings, SemanticInferenceSettings


def _odd(settings: Settings, *names: str) -> None:
    for name in names:
        if getattr(settings, name) % 2 == 0:
            raise ValueError(f"{name}: an odd number was expected, a window has a middle; found "
                             f"{getattr(settings, name)}")


class PeakClassifierSettings(TrainingSettings):
    """The multi-label classifier with peak attention (section 3.3; appendix: details of the peak attention module)."""

    backbone: BackboneSettings = Field(BackboneSettings(name="vgg16", stride=8), description=(
        "network before the three new layers (app. PAM: VGG-16; the stride is not in the paper, published code: 8)"))
    width: int = Field(512, ge=1, description="channels of the three new layers (fig. 10; published code: 512)")
    normalise: bool = Field(False, description=(
        "batch normalisation behind the new layers; it helps a network that starts from nothing (not in the paper: "
        "none)"))
    attention: tuple[Literal[4, 5, 6], ...] = Field((6,), description=(
        "which of the three new layers, 4 to 6, have peak attention; none = plain attention maps, the first row of "
        "table 3 (table 8: the last one; published code: all three)"))
    alpha: float = Field(0.7, ge=0, le=1, description=(
        "what is below this share of a channel's maximum is deactivated (sec. 3.3: 0.7; table 7 finds 0.3 to 0.7 "
        "alike)"))
    logit_scale: float = Field(1.0, gt=0, description=(
        "factor on the class scores; more than 1 helps a network that starts from nothing (not in the paper: 1)"))
    augment: AugmentSettings = Field(AugmentSettings(crop=321, long_side=None, scale=(1.0, 1.0), jitter=0.3),
                                     description=(
        "random views (app. PAM: crops of 321, flip, jitter; published code: jitter 0.3)"))
    side: int = Field(384, ge=0, description=(
        "images are squeezed to a square of this side before they are cropped; 0 = they keep their shape [px] (not "
        "in the paper; published code: 384)"))
    hue: float = Field(0.1, ge=0, le=0.5, description=(
        "largest change of the hue in training [turns] (not in the paper; published code: 0.1)"))
    epochs: int = Field(15, ge=1, description="passes over the training images (app. PAM: 15)")
    batch_size: int = Field(5, ge=1, description="images per step (app. PAM: 5)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field("thirds", description=(
        "how the rate changes (app. PAM: divided by 10 after epochs 5 and 10 of 15)"))
    learning_rate: float = Field(0.001, gt=0, description="initial rate of the backbone (app. PAM: 0.001)")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay (app. PAM: 5e-4)")
    head_factor: float = Field(10.0, gt=0, description=(
        "factor on the rate of the new layers (not in the paper; published code: 10)"))
    bias_factor: float = Field(2.0, gt=0, description=(
        "further factor on the rate of biases (not in the paper; published code: 2)"))


class CueSettings(Settings):
    """Instance cues: peaks of the attention maps, or the annotated points (sections 3.3 and 4.3)."""

    source: Literal["peaks", "points"] = Field("peaks", description=(
        "peaks of the attention maps (tags), or the points of the annotations (sec. 4.3)"))
    side: int = Field(321, ge=0, description=(
        "images are squeezed to a square of this side for the classifier; 0 = their own size [px] (not in the paper; "
        "published code: 321)"))
    flip: bool = Field(True, description="average with the mirrored image (not in the paper; published code)")
    smoothing: int = Field(3, ge=1, description=(
        "side of the window over which a map is averaged before peaks are looked for; 1 = none [px] (not in the "
        "paper; published code: 3)"))
    window: int = Field(15, ge=1, description=(
        "side of the window in which a peak is the maximum [px] (not in the paper; published code: 15)"))
    threshold: float = Field(0.5, ge=0, lt=1, description=(
        "a peak is higher than this share of its map's maximum (app. ablation: 0.5; published code: 0.7)"))
    most: int = Field(25, ge=1, description=(
        "peaks of a class and image, the highest ones (not in the paper; published code: 25)"))

    @model_validator(mode="after")
    def _odd(self) -> CueSettings:
        _odd(self, "smoothing", "window")
        return self


class MapSettings(Settings):
    """The weak semantic map that the method starts from (sections 3.3 and 4.2; the paper takes PMM's)."""

    folder: str = Field("data/irnet/semantic", description=(
        "PNG maps of category ids, 255 undecided: those of this project's IRNet, or of any other source (sec. 4.2: "
        "PMM's)"))
    segmenter: SegmentationSettings = Field(SegmentationSettings(), description=(
        "network that is trained on them (sec. 4.2: not specified)"))
    inference: SemanticInferenceSettings = Field(SemanticInferenceSettings(), description=(
        "its predictions on the training images (not in the paper)"))
    source: Literal["segmenter", "folder"] = Field("segmenter", description=(
        "segmenter: a segmentation network is trained on the folder's maps, and its predictions are used; folder: "
        "the maps themselves (sec. 4.2; published code: predictions, which gain 4 AP50)"))


class CentreSettings(Settings):
    """How centres are found in a heat map and in an offset field (section 3.2; appendix: center clustering)."""

    window: int = Field(41, ge=1, description=(
        "side of the window in which a centre is the maximum [px] (not in the paper; published code: 41)"))
    threshold: float = Field(0.3, description="heat that a centre exceeds (not in the paper; published code: 0.3 in "
                                              "training, 0.1 in inference)")
    clustering: bool = Field(True, description="also centres by clustered offsets (table 3, last row)")
    offset: float = Field(2.5, gt=0, description=(
        "offsets shorter than this are near a centre [px] (app. center clustering: 2.5)"))
    tolerance: int = Field(3, ge=1, description=(
        "a cluster's area differs by less than this from the number of lattice points within `offset`, 21 at 2.5 "
        "[px] (app. center clustering: 3)"))
    heat: float = Field(0.05, description=(
        "heat that a clustered centre exceeds (not in the paper; published code: 0.05)"))
    merge: float = Field(100.0, ge=0, description=(
        "a clustered centre is farther than this from every centre of the heat map in its component [px] (not in the "
        "paper; published code: 100)"))

    @model_validator(mode="after")
    def _odd(self) -> CentreSettings:
        _odd(self, "window")
        return self


class TransferSettings(Settings):
    """Semantic knowledge transfer: pseudo instance labels of a crop (section 3.3)."""

    smallest: int = Field(50, ge=1, description=(
        "components with fewer pixels are no candidates [px] (not in the paper; published code: 50)"))
    sigma: float = Field(6.0, gt=0, description="deviation of a centre's Gaussian [px] (sec. 3.3: 6)")
    centre: Literal["centroid", "nearest"] = Field("centroid", description=(
        "a mask's centre: its centroid, or the pixel of the mask that is nearest to it, which helps rings (listing "
        "4: centroid)"))


class RefinementSettings(Settings):
    """Self-refinement: labels from the network's own output at every step (section 3.5)."""

    enabled: bool = Field(True, description="train on refined labels, too (table 3)")
    start: float = Field(0.0, ge=0, le=1, description=(
        "share of the training after which refined labels are used (listing 1: from the first step)"))
    centres: CentreSettings = Field(CentreSettings(), description="see CentreSettings")
    most: int = Field(5, ge=1, description=(
        "components with more centres are skipped (not in the paper; published code: 5)"))
    centre: Literal["centroid", "nearest", "found"] = Field("centroid", description=(
        "a label's centre: its mask's centroid, the mask's pixel nearest to it, or the centre that was found (listing "
        "5: centroid; published code: found)"))
    weight: Literal["heat", "heat_class"] = Field("heat", description=(
        "weight of a label: the heat at its centre, or that times its mean class probability (eq. 2: heat; published "
        "code: heat_class)"))


class NetworkSettings(TrainingSettings):
    """The instance network and its training (sections 3.2, 3.4, 3.5, 4.2)."""

    backbone: BackboneSettings = Field(BackboneSettings(name="hrnet_w48", stride=32), description=(
        "an HRNet, whose finest branch feeds the heads, or any other timm network under decoders after "
        "Panoptic-DeepLab; an HRNet's `stride` is that of its coarsest branch (sec. 4.2: HRNet-48; app. ablation: "
        "ResNet-50)"))
    finest: int = Field(4, ge=1, description=(
        "finest level that decoders merge [px per cell] (not in the paper; Panoptic-DeepLab: 4)"))
    semantic_width: int = Field(256, ge=4, description=(
        "channels of the semantic decoder and head (not in the paper; Panoptic-DeepLab: 256)"))
    instance_width: int = Field(128, ge=4, description=(
        "channels of the instance decoder and of the head of centres under decoders (not in the paper; "
        "Panoptic-DeepLab: 128)"))
    offset_width: int = Field(32, ge=1, description=(
        "channels of the head of offsets under decoders (not in the paper; Panoptic-DeepLab: 32)"))
    offset_unit: float = Field(1.0, gt=0, description=(
        "length of an offset for which the head says 1; more helps a network that starts from nothing [px] (not in the "
        "paper: 1)"))
    atrous_rates: tuple[Count, ...] = Field((3, 6, 9), description=(
        "dilations of the spatial pyramid of decoders [cells] (not in the paper; Panoptic-DeepLab)"))
    augment: AugmentSettings = Field(AugmentSettings(crop=416, long_side=(314, 584)), description=(
        "random views (sec. 4.2: crops of 416; published code: long side 449 times 0.7 to 1.3, flip)"))
    brightness: float = Field(16.0, ge=0, description=(
        "largest change of brightness [0..255] (not in the paper; published code: 16)"))
    contrast: tuple[Positive, Positive] = Field((0.5, 1.5), description=(
        "range of the factor on contrast (not in the paper; published code)"))
    hue: float = Field(0.1, ge=0, le=0.5, description=(
        "largest change of the hue [turns] (not in the paper; published code: 36 degrees)"))
    centre_weight: float = Field(200.0, ge=0, description="weight of the loss of centres (eq. 6: 200)")
    offset_weight: float = Field(0.01, ge=0, description="weight of the loss of offsets (eq. 6: 0.01)")
    semantic_weight: float = Field(1.0, ge=0, description="weight of the semantic loss (eq. 6: 1)")
    hardest: float = Field(1.0, gt=0, le=1, description=(
        "share of the pixels, those of the highest loss, that the semantic loss averages (eq. 5: all; published code: "
        "0.2)"))
    average: bool = Field(False, description=(
        "the mean of the losses of pseudo and refined labels instead of their sum (eq. 3 and 4: sum; published code: "
        "mean)"))
    guidance: bool = Field(True, description=(
        "instance-aware guidance: only labelled instances guide centres and offsets (sec. 3.4; table 3)"))
    refinement: RefinementSettings = Field(RefinementSettings(), description="see RefinementSettings")
    moments: int = Field(10, ge=0, description=(
        "how often the labels of some training images are kept during the training, for the counts of fig. 6; 0 = "
        "never (fig. 6)"))
    moment_images: int = Field(100, ge=1, description=(
        "how many training images, the first ones, whose labels are kept then (fig. 6: 1,464)"))
    epochs: int = Field(70, ge=1, description="passes over the training images (sec. 4.2: 70)")
    batch_size: int = Field(32, ge=1, description="images per step (sec. 4.2: 32)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description="optimizer (sec. 4.2: Adam)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field(
        "polynomial", description="how the rate changes (sec. 4.2: polynomial; published code: power 0.9)")
    learning_rate: float = Field(5e-5, gt=0, description="initial rate (sec. 4.2: 5e-5)")
    backbone_factor: float = Field(1.0, ge=0, description="factor on the rate of the backbone (not in the paper: 1)")
    weight_decay: float = Field(0.0, ge=0, description="weight decay (not in the paper; published code: none)")
    warmup_steps: int = Field(2000, ge=0, description=(
        "steps over which the rate rises from a thousandth (not in the paper; published code: 2000)"))
    sync_batch_norm: bool = Field(True, description=(
        "batch statistics over all processes (not in the paper; published code)"))


class InferenceSettings(Settings):
    """From the network's outputs to instances (section 3.2; the values are not in the paper)."""

    scales: tuple[Positive, ...] = Field((1.0,), min_length=1, description=(
        "factors on the image's size (sec. 4.2: the original resolution)"))
    flip: bool | None = Field(None, description=(
        "average class probabilities and heat with those of the mirrored image; null = with points, not with tags "
        "(not in the paper; published code)"))
    flip_offset: bool = Field(False, description=(
        "average the offsets, too, where the mirrored image is looked at (not in the paper; published code: false)"))
    max_pixels: float = Field(4e6, ge=1024, description=(
        "a view that would have more pixels is taken at the largest scale that fits, for want of memory [px] (not in "
        "the paper)"))
    smallest: int = Field(50, ge=1, description=(
        "components of the predicted classes with fewer pixels are left out [px] (not in the paper; published code: "
        "50)"))
    centres: CentreSettings = Field(CentreSettings(threshold=0.1), description="see CentreSettings")
    reach: Literal["class", "component"] = Field("class", description=(
        "with annotated points, which pixels compete for a point: all of its class (sec. 4.3), or those of the "
        "component that it lies in (not in the paper)"))
    trust: float = Field(0.0, ge=0, description=(
        "with annotated points, where the offset ought to be 0: how far offsets are followed around a point whose own "
        "is wrong, which is 1 / (1 + (e / (trust d))^2) of their length, e being that error and d the distance of the "
        "next point that it competes with; 0 = as they are (sec. 4.3; not in the paper otherwise)"))
    whole: bool = Field(True, description=(
        "a component in which no centre is found is one instance (not in the paper; published code)"))


class RetrainingSettings(Settings):
    """Iterative training: a new network on labels that the trained one makes of the training images (section 4.5)."""

    iterations: int = Field(0, ge=0, description=(
        "how often a network is trained anew, from initial weights, on the instances that the one before finds in the "
        "training images, in the place of the pseudo labels of semantic knowledge transfer (table 5: 0 to 2; the "
        "method as published: 0)"))
    threshold: float = Field(0.0, ge=0, le=1, description=(
        "instances with a lower score are no labels (not in the paper: 0)"))


class SynthesisSettings(Settings):
    """Labels of the training images."""

    source: Literal["network", "nearest_point", "discs"] = Field("network", description=(
        "what the training images' labels are made by, those of val are the network's in any case: the network; or, to "
        "compare with, components of the semantic map split by the nearest cue, or discs at the cues of the class's "
        "area in the map divided by its cues (sec. 3.5: network; the others are not in the paper)"))
    foreground: Literal["network", "map"] = Field("network", description=(
        "what the network's labels of training images are parted of: its own semantic segmentation, or the semantic "
        "map that it was trained on, where few images teach it less than the map says (sec. 3.2: network)"))
    threshold: float = Field(0.0, ge=0, le=1, description=(
        "instances with a lower score are left out (not in the paper: 0)"))


class BestieSettings(Settings):
    """All of BESTIE."""

    classifier: PeakClassifierSettings = Field(PeakClassifierSettings(), description="see PeakClassifierSettings")
    cues: CueSettings = Field(CueSettings(), description="see CueSettings")
    maps: MapSettings = Field(MapSettings(), description="see MapSettings")
    transfer: TransferSettings = Field(TransferSettings(), description="see TransferSettings")
    network: NetworkSettings = Field(NetworkSettings(), description="see NetworkSettings")
    inference: InferenceSettings = Field(InferenceSettings(), description="see InferenceSettings")
    retraining: RetrainingSettings = Field(RetrainingSettings(), description="see RetrainingSettings")
    synthesis: SynthesisSettings = Field(SynthesisSettings(), description="see SynthesisSettings")

"""Settings of the panoptic chain; one section per part of the work, so that a changed threshold never retrains.

Where a default comes from: a section, table or appendix of the paper; "published code" is what the published figures
were obtained with; "not in the paper" alone is a choice of this project.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.cues.settings import AugmentSettings, BackboneSettings
from stages.detector.settings import (
    DetectorPredictSettings,
    DetectorSettings,
    DetectorTrainSettings,
    Detectron2Settings,
    TorchvisionSettings,
)
from stages.runtime.settings import Settings, TrainingSettings
from stages.segmentation.settings import FeatureSettings, SegmentationSettings

Schedule = Literal["polynomial", "one_cycle", "cosine", "thirds", "last_third", "constant"]


class BoxCueSettings(Settings):
    """GrabCut and a proposal for every box (section 3.2)."""

    iterations: int = Field(5, ge=1, description="steps of GrabCut (not in the paper)")
    margin: float = Field(0.5, gt=0, description=(
        "how far around its box GrabCut looks [share of the box's side] (not in the paper)"))
    longest: int = Field(192, ge=16, description=(
        "the part that GrabCut looks at is made no longer than this, which bounds its time [px] (not in the paper)"))
    least: float = Field(0.15, ge=0, lt=1, description=(
        "where GrabCut leaves less of the box it has lost the object, and the whole box is ignored [share of the box] "
        "(not in the paper)"))
    overlap: Literal["mask", "box"] = Field("mask", description=(
        "the proposal is chosen by the IoU of its mask with the filled box, or of its own box with the box (sec. 3.2: "
        "IoU with the box, which may mean either)"))


class CropClassifierSettings(FeatureSettings, TrainingSettings):
    """The multi-label classifier of fixed crops, for stuff (appendix B.2)."""

    flip: bool = Field(True, description="mirror half of the crops (not in the paper)")
    jitter: float = Field(0.0, ge=0, le=1, description=(
        "largest relative change of brightness, contrast and saturation (not in the paper)"))
    logit_scale: float = Field(1.0, gt=0, description=(
        "factor on the class scores; more than 1 helps a network that starts from nothing (not in the paper: 1)"))
    steps: int = Field(50_000, ge=0, description=(
        "training steps; 0 = `epochs` passes over the crops [steps] (app. B.2: 50,000)"))
    batch_size: int = Field(1, ge=1, description="crops per step (app. B.2: 1)")
    schedule: Schedule = Field("constant", description="how the rate changes (app. B.2: fixed)")
    learning_rate: float = Field(1e-4, gt=0, description="rate (app. B.2: 1e-4)")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay (app. B.1: 5e-4)")


class StuffSettings(Settings):
    """Localisation cues of stuff (section 3.3)."""

    grid: int = Field(4, ge=1, description="image pixels per cell of the kept maps [px] (not in the paper)")
    threshold: float = Field(0.5, gt=0, lt=1, description=(
        "what exceeds this share of a crop's maximum is of the class (sec. 4.1: 0.5; Grad-CAM's authors: 0.15)"))


class CrfSettings(Settings):
    """The dense CRF behind the network's output (section 3.4); parameters of the published code."""

    iterations: int = Field(10, ge=0, description="mean-field steps; 0 = no CRF (not in the paper)")
    gaussian_xy: float = Field(3.0, gt=0, description="deviation of the smoothness kernel [px] (section 3.4: DeepLab)")
    gaussian_weight: float = Field(3.0, ge=0, description="weight of the smoothness kernel (section 3.4: DeepLab)")
    bilateral_xy: float = Field(49.0, gt=0, description=(
        "spatial deviation of the appearance kernel [px] (section 3.4: DeepLab; 49)"))
    bilateral_rgb: float = Field(5.0, gt=0, description=(
        "colour deviation of the appearance kernel [0..255] (section 3.4: DeepLab; 5)"))
    bilateral_weight: float = Field(4.0, ge=0, description="weight of the appearance kernel (section 3.4: DeepLab; 4)")


class RoundSettings(Settings):
    """Rounds of refinement: the network's output becomes the next approximate truth (section 3.4)."""

    rounds: int = Field(6, ge=1, description=(
        "trainings of the semantic network, each on the labels that the one before gave; 1 = on the cues alone "
        "[rounds] (sec. 4.2: on VOC one; of Cityscapes not in the paper)"))
    steps: int = Field(150_000, ge=0, description=(
        "training steps of a round; 0 = `network.epochs` passes over the images [steps] (app. B.1: 150,000)"))
    rate_factor: float = Field(0.5, gt=0, le=1, description=(
        "factor on the learning rate from one round to the next (app. B.1: halved)"))
    restart: bool = Field(False, description=(
        "every round starts from the initial weights again instead of the last round's (not in the paper)"))
    crf: CrfSettings = Field(CrfSettings(), description="see CrfSettings")
    confidence: float = Field(0.99, ge=0, lt=1, description=(
        "pixels whose highest probability behind the CRF is lower are ignored (not in the paper; published code: "
        "0.99)"))
    merged: int = Field(5, ge=0, description=(
        "rounds in which things are those of the boxes' cues, whatever is predicted; in later ones predicted things "
        "count [rounds] (not in the paper; published code: 5)"))
    proposal_below: float = Field(0.0, ge=0, le=1, description=(
        "boxes of which GrabCut and the proposal share less than this get the whole proposal instead; 0 = none [share "
        "of the box] (not in the paper)"))
    fill: float = Field(0.0, ge=0, le=1, description=(
        "boxes of which their class fills a smaller share are filled with it; 0 = none [share of the box] (not in the "
        "paper: 0; published code: 0.5)"))


class HeadSettings(Settings):
    """The instance subnetwork (section 3.5, eq. 2 to 4): three steps of mean-field with four scalars that learn."""

    steps: int = Field(3, ge=0, description="mean-field steps (not in the paper; published code: 3)")
    box_weight: float = Field(1.0, gt=0, description="w1 of eq. 2 at the start (not in the paper; published code: 1)")
    global_weight: float = Field(1.0, gt=0, description=(
        "w2 of eq. 2 at the start (not in the paper; published code: 1)"))
    gaussian_weight: float = Field(3.0, ge=0, description=(
        "weight of the smoothness kernel at the start (not in the paper; published code: 3)"))
    bilateral_weight: float = Field(4.0, ge=0, description=(
        "weight of the appearance kernel at the start (not in the paper; published code: 4)"))
    gaussian_xy: float = Field(3.0, gt=0, description=(
        "deviation of the smoothness kernel [px] (not in the paper; published code: 3)"))
    bilateral_xy: float = Field(49.0, gt=0, description=(
        "spatial deviation of the appearance kernel [px] (not in the paper; published code: 49)"))
    bilateral_rgb: float = Field(5.0, gt=0, description=(
        "colour deviation of the appearance kernel [0..255] (not in the paper; published code: 5)"))


class InstanceSettings(TrainingSettings):
    """The training of the instance subnetwork (sections 3.5 and 4.2, appendix B.1)."""

    end_to_end: bool = Field(True, description=(
        "train the semantic network too; false: its weights stay and four scalars learn, piecewise (sec. 4.2: end to "
        "end)"))
    labels: Literal["last", "used"] = Field("last", description=(
        "last: labels that the last round's network gives of the training images; used: those that it was trained on, "
        "after one round the cues themselves (sec. 3.4; on VOC used)"))
    head: HeadSettings = Field(HeadSettings(), description="see HeadSettings")
    head_factor: float = Field(10.0, gt=0, description=(
        "factor on the rate of the four scalars (not in the paper; published code: 10)"))
    move: float = Field(0.1, ge=0, lt=0.5, description=(
        "each side of a given box is moved by up to this share of its length in training, because a detector's boxes "
        "are not exact (not in the paper; published code moves them, by an unknown amount)"))
    steps: int = Field(400_000, ge=0, description=(
        "training steps; 0 = `epochs` passes over the images [steps] (app. B.1: 400,000)"))
    augment: AugmentSettings = Field(AugmentSettings(crop=521, long_side=None, scale=(1.0, 1.0)), description=(
        "random views (app. B.1: crops of 521)"))
    batch_size: int = Field(1, ge=1, description="crops per step (app. B.1: 1)")
    schedule: Schedule = Field("constant", description="how the rate changes (app. B.1: fixed)")
    learning_rate: float = Field(1e-5, gt=0, description="rate of the semantic network (app. B.1: 1e-5)")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay (app. B.1: 5e-4)")


class BoxDetectorSettings(Settings):
    """A detector of boxes, without mask head, by the engine of ``detector.engine`` (section 3.5: Faster R-CNN)."""

    train: DetectorTrainSettings = Field(DetectorTrainSettings(), description="schedule and augmentation")
    predict: DetectorPredictSettings = Field(
        DetectorPredictSettings(score_threshold=0.5, nms_threshold=0.3), description=(
            "what becomes of the output (not in the paper; published code: scores from 0.5 on, NMS at 0.3)"))
    torchvision: TorchvisionSettings = Field(TorchvisionSettings(), description="network of the torchvision engine")
    detectron2: Detectron2Settings = Field(
        Detectron2Settings(config="COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"), description=(
            "network of the detectron2 engine (sec. 4.1: Faster R-CNN with ResNet-101)"))


class PanopticInferenceSettings(Settings):
    """How the whole network looks at an image (section 3.5)."""

    max_pixels: int = Field(521 * 521, ge=64 * 64, description=(
        "most pixels that the semantic network looks at at once: a larger image is cut into overlapping tiles, whose "
        "logits are averaged; the CRFs see the whole image [px] (not in the paper; trained on crops of 521)"))
    flip: bool = Field(False, description="also look at the mirrored image (sec. 4.2: a single view)")
    scale: float = Field(1.0, gt=0, le=4, description=(
        "factor on an image's size for the semantic network; with `network.augment.long_side` the size that the "
        "network knows objects in; the CRFs see all pixels (sec. 4.2: a single scale, 1)"))
    detections: int = Field(100, ge=1, description=(
        "most detections of an image, the best scored ones (not in the paper)"))
    tagged: bool = Field(True, description=(
        "on training images only the stuff that their tags name (not in the paper)"))
    boxed: bool = Field(False, description=(
        "on training images, whose boxes are given, a thing outside all boxes of its class is impossible (sec. 3.4 has "
        "it for labels; eq. 2 to 4 only prefer the inside)"))


class PanopticSynthesisSettings(Settings):
    """Labels of the training and the validation images."""

    source: Literal["network", "agreement", "grabcut", "proposal", "box"] = Field("network", description=(
        "what the labels of the training images are: the network's, or the boxes' cues as they are, without any "
        "training: where there is none, a box has no label (not in the paper)"))
    score: Literal["detection", "confidence"] = Field("detection", description=(
        "how instances are ranked: by the detection's score, 1 for stuff, or by the mean probability of their class "
        "inside them (table 6: detection; for stuff the confidence is better)"))


class PanopticSettings(Settings):
    """All of the panoptic method."""

    boxes: BoxCueSettings = Field(BoxCueSettings(), description="see BoxCueSettings")
    classifier: CropClassifierSettings = Field(CropClassifierSettings(decoder_norm="frozen"), description=(
        "see CropClassifierSettings"))
    stuff: StuffSettings = Field(StuffSettings(), description="see StuffSettings")
    network: SegmentationSettings = Field(SegmentationSettings(
        backbone=BackboneSettings(name="resnet101", stride=8, freeze_batch_norm=True), decoder_norm="frozen",
        augment=AugmentSettings(crop=521, long_side=None, scale=(1.0, 1.0)), batch_size=1, schedule="constant"),
        description="the semantic network and a round's training (sec. 4.1, app. B.1)")
    rounds: RoundSettings = Field(RoundSettings(), description="see RoundSettings")
    detector: BoxDetectorSettings = Field(BoxDetectorSettings(), description="see BoxDetectorSettings")
    instances: InstanceSettings = Field(InstanceSettings(), description="see InstanceSettings")
    inference: PanopticInferenceSettings = Field(PanopticInferenceSettings(), description=(
        "see PanopticInferenceSettings"))
    synthesis: PanopticSynthesisSettings = Field(PanopticSynthesisSettings(), description=(
        "see PanopticSynthesisSettings"))


def box_detector(settings: BoxDetectorSettings, common: DetectorSettings) -> DetectorSettings:
    """The settings of the box detector, with the engine of section ``detector``."""
    return DetectorSettings(engine=common.engine, train=settings.train, predict=settings.predict,
                            torchvision=settings.torchvision, detectron2=settings.detectron2)

"""Settings of the instance segmenter that is trained on the labels: Mask R-CNN in one of two engines.

IRNet section 6.3 names the network (Mask R-CNN, ResNet-50-FPN) and nothing of its schedule; COCO figures are those of
Detectron2's model zoo, VOC figures are the COCO ones scaled to the size of VOC ("not in the paper").
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stages.runtime.settings import Arguments, Count, Positive, Settings

Side = Annotated[int, Field(ge=16, le=8192)]
Width = Annotated[int, Field(ge=1, le=4096)]


class DetectorTrainSettings(Settings):
    """Schedule and augmentation, for both engines."""

    steps: int = Field(
        90_000, ge=1, description="training steps [steps] (Detectron2 model zoo: 90000 = 1x, 270000 = 3x on COCO)")
    batch_size: int = Field(
        16, ge=1, description="images per step, over all processes [images] (Detectron2 model zoo)")
    learning_rate: float = Field(
        0.02, gt=0, description="learning rate at this batch size, after the warm-up (Detectron2 model zoo)")
    decay: Literal["milestones", "cosine"] = Field(
        "milestones", description="how the learning rate falls (Detectron2 model zoo: milestones)")
    milestones: tuple[float, ...] = Field(
        (0.667, 0.889), description="where the rate is multiplied by gamma [fraction of the steps] (zoo 1x: 60k, 80k)")
    gamma: float = Field(0.1, gt=0, le=1, description="factor at each milestone (Detectron2 model zoo)")
    warmup_steps: int = Field(
        1000, ge=0, description="linear rise of the rate from a thousandth [steps] (Detectron2 model zoo)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD (Detectron2 model zoo)")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay (Detectron2 model zoo)")
    clip_gradients: float = Field(
        0.0, ge=0, description="largest L2 norm of the whole gradient, 0 = no clipping (not in the paper)")
    min_sides: tuple[Side, ...] = Field(
        (640, 672, 704, 736, 768, 800), min_length=1,
        description="shorter side of a training image, one drawn per image [px] (Detectron2 model zoo)")
    max_side: Side = Field(1333, description="the longer side is at most this [px] (Detectron2 model zoo)")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip (Detectron2 model zoo)")
    colour_jitter: float = Field(
        0.0, ge=0, lt=1, description="brightness and contrast factors are drawn from 1 +- this (not in the paper)")
    keep_empty: bool = Field(
        True, description="train on images without instances too, as negatives (Detectron2 model zoo: false)")
    repeat_threshold: float = Field(
        0.0, ge=0, le=1, description="an image comes sqrt(this / share) times as often if it shows a class that a "
                                     "smaller share of the images shows; 0 = all equally often [share of the images] "
                                     "(LVIS, Gupta et al. 2019: repeat factor sampling; Detectron2 model zoo: 0.001 on "
                                     "LVIS, where it goes by the name of RepeatFactorTrainingSampler)")
    ignore_crowds: bool = Field(
        True, description="regions under iscrowd annotations are no negatives (not in the paper; plain Detectron2 and "
                          "torchvision treat them as background)")

    @field_validator("milestones")
    @classmethod
    def _rising_fractions(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)) or any(not 0 < item < 1 for item in value):
            raise ValueError("rising fractions between 0 and 1 are expected")
        return value


class DetectorPredictSettings(Settings):
    """What becomes of the network's output; a change here does not train again."""

    min_side: Side = Field(800, description="shorter side of an image [px] (Detectron2 model zoo)")
    max_side: Side = Field(1333, description="the longer side is at most this [px] (Detectron2 model zoo)")
    score_threshold: float = Field(
        0.05, ge=0, lt=1, description="detections below this score are dropped (Detectron2 model zoo)")
    nms_threshold: float = Field(
        0.5, gt=0, le=1, description="box IoU above which the weaker of two of a class goes (Detectron2 model zoo)")
    detections_per_image: int = Field(100, ge=1, description="most detections of an image (COCO protocol)")
    mask_threshold: float = Field(
        0.5, gt=0, lt=1, description="a pixel belongs to the mask from this probability (Mask R-CNN section 3)")


class TorchvisionSettings(Settings):
    """The network of the torchvision engine: timm backbone, FPN, RPN, box head, mask head."""

    backbone: str = Field(
        "resnet50", description="timm model that can give feature maps (IRNet section 6.3: ResNet-50)")
    backbone_arguments: Arguments = Field(
        default_factory=dict, description="passed to timm.create_model, e.g. channels of a narrow ResNet")
    weights: str = Field(
        "imagenet", description="imagenet (timm's download), none, or a file with the backbone's state dict")
    levels: tuple[Count, ...] = Field(
        (4, 8, 16, 32), min_length=1, description="strides of the feature maps under the FPN [px] (Mask R-CNN: FPN)")
    extra_level: bool = Field(True, description="one coarser, pooled level for the RPN alone (FPN section 4.1)")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen", description="the backbone's batch norm: frozen when pretrained, train from scratch (Mask R-CNN)")
    frozen_stride: int = Field(
        0, ge=0, description="the backbone's layers up to the feature map of this stride keep their weights, 0 = none; "
                             "saves half the time on a CPU [px] (Detectron2 model zoo: 4)")
    fpn_channels: Width = Field(256, description="channels of the FPN's maps (FPN section 3)")
    anchor_sizes: tuple[Positive, ...] = Field(
        (32, 64, 128, 256, 512), min_length=1,
        description="anchor size of each RPN level, in pixels of the network's input [px] (FPN section 4.1)")
    aspect_ratios: tuple[Positive, ...] = Field(
        (0.5, 1.0, 2.0), min_length=1, description="height over width of the anchors (Faster R-CNN section 3.1.1)")
    rpn_samples: int = Field(256, ge=2, description="anchors per image in the RPN's loss (Faster R-CNN section 3.1.2)")
    proposals: int = Field(1000, ge=1, description="proposals of an image after suppression (FPN section 4.2)")
    roi_samples: int = Field(512, ge=2, description="proposals per image in the heads' loss (FPN section 4.2)")
    roi_positives: float = Field(0.25, gt=0, lt=1, description="share of positives among them (Fast R-CNN section 2.3)")
    roi_canonical_size: float = Field(
        224.0, gt=0, description="object size that is pooled at stride 16 [px] (FPN equation 1)")
    box_head_channels: Width = Field(1024, description="width of the two layers of the box head (FPN section 4.2)")
    mask_head_channels: tuple[Width, ...] = Field(
        (256, 256, 256, 256), min_length=1, description="widths of the mask head's layers (Mask R-CNN figure 4)")
    head_norm: Literal["none", "group"] = Field(
        "none", description="group norm in the FPN and the mask head: helps from scratch (not in the paper)")
    backbone_factor: float = Field(
        1.0, gt=0, description="factor on the learning rate of a pretrained backbone (not in the paper)")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="adamw is the better choice for short training from scratch (Mask R-CNN: SGD)")

    @field_validator("levels")
    @classmethod
    def _doubling(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(later != 2 * earlier for earlier, later in zip(value, value[1:], strict=False)):
            raise ValueError("each stride has to be twice the one before, e.g. [4, 8, 16]")
        return value

    @model_validator(mode="after")
    def _one_anchor_per_level(self) -> TorchvisionSettings:
        expected = len(self.levels) + int(self.extra_level)
        if len(self.anchor_sizes) != expected:
            raise ValueError(f"anchor_sizes needs {expected} sizes (levels{' + extra_level' * self.extra_level}), "
                             f"it has {len(self.anchor_sizes)}")
        return self


class Detectron2Settings(Settings):
    """The network of the detectron2 engine: a configuration of its model zoo."""

    config: str = Field(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
        description="configuration in Detectron2's model zoo (IRNet section 6.3: Mask R-CNN, ResNet-50-FPN)")
    weights: str = Field(
        "imagenet", description="imagenet (the configuration's own download), none, or a .pth or .pkl file")
    overrides: tuple[str | int | float | bool, ...] = Field(
        (), description="further Detectron2 settings, KEY, VALUE, KEY, VALUE, ... (not in the paper)")

    @field_validator("overrides")
    @classmethod
    def _pairs(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(value) % 2:
            raise ValueError("KEY and VALUE alternate, so an even number of items is expected")
        return value


class DetectorSettings(Settings):
    """Section ``detector`` of params.yaml."""

    engine: Literal["detectron2", "torchvision"] = Field(
        "detectron2", description="which implementation of Mask R-CNN (torchvision installs from PyPI alone)")
    train: DetectorTrainSettings = Field(DetectorTrainSettings(), description="schedule and augmentation")
    predict: DetectorPredictSettings = Field(DetectorPredictSettings(), description="what becomes of the output")
    torchvision: TorchvisionSettings = Field(TorchvisionSettings(), description="network of the torchvision engine")
    detectron2: Detectron2Settings = Field(Detectron2Settings(), description="network of the detectron2 engine")

    def network(self) -> dict[str, Any]:
        """What decides the shape and content of the trained weights, as plain data (written beside them)."""
        return {"engine": self.engine, "train": self.train.model_dump(mode="json"),
                self.engine: getattr(self, self.engine).model_dump(mode="json")}

    def weights_files(self) -> list[Path]:
        """The file of initial weights that the chosen engine reads, if it is one."""
        weights = getattr(self, self.engine).weights
        return [] if weights in ("imagenet", "none") else [Path(weights)]

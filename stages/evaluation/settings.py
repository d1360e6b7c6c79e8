"""Settings of the stages ``score``, ``evaluate`` and ``report``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from stages.labels.settings import AnnotationSeconds
from stages.runtime.settings import Settings


class MeasureSettings(Settings):
    """What ``score`` and ``evaluate`` share."""

    max_detections: int = Field(100, ge=1, description=(
        "best-scored masks per image and class that count in COCO AP [masks] (source: COCO's evaluation)"))
    lvis_max_detections: int = Field(300, ge=1, description=(
        "best-scored masks per image, over all classes, that count in LVIS AP [masks] (source: LVIS's evaluation)"))
    medium_from: float = Field(1024.0, gt=0, description=(
        "area at which an object is no longer small [pixels] (source: COCO's evaluation, 32 x 32)"))
    large_from: float = Field(9216.0, gt=0, description=(
        "area at which an object is large [pixels] (source: COCO's evaluation, 96 x 96)"))
    keep_visible: float = Field(0.5, ge=0, le=1, description=(
        "a mask of which better-scored masks leave less than this share visible is dropped from PQ and mIoU "
        "[share of its area] (source: panoptic FPN's merging of instances, Kirillov et al. 2019)"))
    coverage: bool = Field(False, description=(
        "measure the coverage of the objects, too: KITTI's MWCov and MUCov (WISE table 6)"))

    @model_validator(mode="after")
    def _sizes_in_order(self) -> MeasureSettings:
        if self.large_from <= self.medium_from:
            raise ValueError(f"large_from must be above medium_from ({self.medium_from:g})")
        return self


class ScoreSettings(MeasureSettings):
    """Pseudo-labels against the truth of the training images."""

    min_score: float = Field(0.0, ge=0, le=1, description=(
        "labels below this score are left out of PQ, mIoU, recall and mean IoU; AP uses all (not in the papers)"))
    oracle: tuple[Literal["proposal", "mask"], ...] = Field((), description=(
        "on val, measure also what the truth would make of the method's locations, and of all objects: proposal, the "
        "best of the method's proposals; mask, the true mask (WISE table 1: L-Net + Oracle proposal, L-Net + GT-Mask)"))

    @field_validator("oracle")
    @classmethod
    def _once(cls, rows: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(rows)) != len(rows):
            raise ValueError("every row at most once")
        return rows


class EvaluateSettings(MeasureSettings):
    """The detector's masks against the truth of the validation images."""

    min_score: float = Field(0.5, ge=0, le=1, description=(
        "detections below this score are left out of PQ, mIoU, recall and mean IoU; AP uses all "
        "(source: panoptic FPN's merging of instances, Kirillov et al. 2019)"))
    supervision: Literal["auto", "tags", "points", "boxes", "extreme_points", "masks"] = Field("auto", description=(
        "what the method was given, for the annotation time; auto: the dearest of annotations.kinds "
        "(not in the papers)"))
    seconds: AnnotationSeconds = Field(default_factory=AnnotationSeconds, description="annotation time per image")


class ReportSettings(Settings):
    """The page that shows a run."""

    gallery_images: int = Field(12, ge=0, description="training images in the gallery [images] (not in the papers)")
    validation_images: int = Field(6, ge=0, description=(
        "validation images in the gallery, with the detector's masks [images] (not in the papers)"))
    picture_width: int = Field(320, ge=64, le=2048, description=(
        "pictures wider than this are made smaller [pixels] (not in the papers)"))
    min_score: float = Field(0.5, ge=0, le=1, description=(
        "the detector's masks below this score are not drawn (not in the papers)"))

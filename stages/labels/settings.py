"""What annotators need for their labels."""

from __future__ import annotations

from pydantic import Field

from stages.runtime.settings import Settings


class AnnotationSeconds(Settings):
    """What annotators need for one image, on average over Pascal VOC, and for one label where labels are counted."""

    tags: float = Field(20.0, ge=0, description="image tags [s per image] (source: BESTIE section 4.3)")
    points: float = Field(23.3, ge=0, description=(
        "one point per object [s per image] (source: BESTIE section 4.3; WISE says 22.1)"))
    boxes: float = Field(38.1, ge=0, description=(
        "boxes, and extreme points, which cost the same by EXITS [s per image] (source: BESTIE section 4.3)"))
    masks: float = Field(239.7, ge=0, description=(
        "masks [s per image] (source: BESTIE section 4.3; panoptic App. D: 5,400 on Cityscapes)"))
    box: float = Field(7.0, ge=0, description="one box [s] (source: panoptic App. D)")
    stuff_tag: float = Field(1.0, ge=0, description="one tag of stuff, of an image or a crop [s] (source: panoptic "
                                                    "App. D)")

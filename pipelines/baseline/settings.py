"""Settings of the masks without learning."""

from __future__ import annotations

from pydantic import Field

from stages.cues.settings import MaskKind
from stages.runtime.settings import Settings


class BaselineSettings(Settings):
    """All of the baseline (none of it is in the papers)."""

    masks: MaskKind = Field("grabcut_points", description=(
        "box: the filled box; ellipse: the four quarter ellipses through the extreme points; grabcut: GrabCut from the "
        "box; grabcut_points: GrabCut with the extreme points as seeds; of a box alone ellipse makes the box and "
        "grabcut_points what grabcut makes (not in the paper)"))
    min_box: float = Field(16.0, ge=1, description=(
        "objects with a smaller box are labelled by the box itself [px] (not in the paper)"))

"""Settings of the IRNet chain; one section per DVC stage, so that a changed threshold never retrains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.cues.settings import AugmentSettings, BackboneSettings, CamSettings, ClassifierSettings, ImageBatchSettings
from stages.propagation.settings import DenseCrfSettings
from stages.runtime.settings import Settings, TrainingSettings

IGNORE = 255
"""Label, in the maps of relations, of what is neither confident foreground nor confident background."""


class RelationSettings(Settings):
    """Confident areas from which pairs of pixels are drawn (section 4.2)."""

    foreground: float = Field(0.3, gt=0, lt=1,
                              description="attention above which a pixel is foreground (sec. 4.2: 0.3)")
    background: float = Field(0.05, ge=0, lt=1, description="attention below which it is background (sec. 4.2: 0.05)")
    crf: DenseCrfSettings = Field(DenseCrfSettings(), description="refinement of each area (sec. 4.2)")

    @model_validator(mode="after")
    def _ordered(self) -> RelationSettings:
        if self.background >= self.foreground:
            raise ValueError(f"background ({self.background}) must be below foreground ({self.foreground})")
        return self


class NetworkSettings(TrainingSettings):
    """IRNet and its training (sections 4.1, 4.3 to 4.5, 6.1)."""

    backbone: BackboneSettings | None = Field(None, description=(
        "frozen network of its own; null: the trained classifier's (sec. 4.1: the same architecture; published code: "
        "torchvision's ImageNet weights)"))
    channels: int = Field(256, ge=8, description="widest displacement features [channels] (sec. 4.1: 256)")
    boundary_channels: int = Field(32, ge=1, description="boundary features per level [channels] (not in the paper)")
    groups: int = Field(16, ge=1, description="groups of the group norm, at most (not in the paper; published code: "
                                              "16)")
    group_channels: int = Field(1, ge=1, description="channels of such a group, at least (not in the paper; published "
                                                     "code: 8, so 4 groups of 32 boundary features)")
    separate_axes: bool = Field(False, description="a displacement branch of its own for dy and for dx (sec. 4.1: one "
                                                   "branch)")
    augment: AugmentSettings = Field(AugmentSettings(), description="random views (not in the paper)")
    epochs: int = Field(3, ge=1, description="passes over the training images (not in the paper; published code: 3)")
    batch_size: int = Field(32, ge=1, description="images per step (not in the paper; published code: 32)")
    learning_rate: float = Field(0.1, gt=0, description="initial rate (sec. 6.1: 0.1, with sgd and polynomial)")
    displacement_factor: float = Field(10.0, gt=0, description="factor on the gradient that the displacement branch "
                                                               "receives; without effect under adamw, which "
                                                               "ignores the scale of a gradient (sec. 6.1: 10)")
    axes: Literal["sum", "mean"] = Field(
        "sum", description="the L1 norm of a displacement: the sum over its two axes, or their mean (eq. 5 and 6: sum; "
                           "published code: mean)")
    halved: bool = Field(False, description="half of the sum of all losses (eq. 9: the sum; published code: half)")
    background_warmup: float = Field(0.0, ge=0, le=1, description=(
        "share of the training over which the weight of the background's displacement loss grows from 0 to 1 (not in "
        "the paper: 0)"))
    radius: float = Field(10.0, gt=1, description="pairs are closer than this [cells] (sec. 6.1: 10)")
    max_pixels: float = Field(4e6, ge=1024, description="images with more pixels are made smaller where their mean "
                                                        "displacement is taken [px] (not in the paper)")
    mean_over: Literal["all", "foreground"] = Field(
        "all", description="pixels whose mean displacement is subtracted (sec. 4.3 says the mean of D)")


class FieldSettings(ImageBatchSettings):
    """Inference of displacement field and class boundary map."""

    flip_displacement: bool = Field(True, description="with flip, average the displacement, too, not the boundary "
                                                      "alone (not in the paper; published code: the boundary alone)")


class PropagationSettings(Settings):
    """Instance map and random walk (sections 5.1 and 5.2)."""

    radius: float = Field(5.0, gt=1, description="pairs are closer than this [cells] (sec. 6.1: 5)")
    beta: float = Field(10.0, ge=1, description="Hadamard power of the affinities (sec. 6.1: 10)")
    steps: int = Field(256, ge=0, description="steps of the walk (sec. 6.1: 256)")
    refinements: int = Field(100, ge=0, description="iterations of eq. 10 (sec. 6.1: 100)")
    centroid: float = Field(2.5, gt=0, description="displacement below which a cell may be a centroid [cells] "
                                                   "(not in the paper; published code: 2.5)")
    seed: float = Field(0.3, ge=0, le=1, description="an instance of a class whose attention nowhere reaches this is "
                                                     "left out (not in the paper; sec. 4.2's confident foreground; "
                                                     "published code: 0)")


class SynthesisSettings(Settings):
    """Labels from the propagated scores (section 5.2); the first two make the rows of Table 1."""

    scores: Literal["cam", "propagated"] = Field(
        "propagated", description="attention maps as they are, or after the random walk (Table 1)")
    instances: Literal["displacement", "components"] = Field(
        "displacement", description="how instances of a class are told apart (Table 1)")
    split: bool = Field(False, description="instances that are not connected are several (not in the paper; published "
                                           "code)")
    connectivity: Literal[4, 8] = Field(8, description="which pixels are connected: those that share a side, or also "
                                                       "a corner (not in the paper; published code: 4)")
    threshold: float = Field(0.25, ge=0, le=1, description="normalised score below which a pixel is background "
                                                           "(sec. 5.2: bottom 25 %)")
    normalise: Literal["image", "instance"] = Field(
        "image", description="whose maximum is 1: all maps of the image together, or each map (not in the paper)")
    threshold_kind: Literal["score", "percentile"] = Field(
        "score", description="threshold as a share of the maximum, or as a percentile of the scores (sec. 5.2)")
    fragment: float = Field(0.01, ge=0, lt=1, description="instances smaller than this share of the image keep "
                                                          "score 0 (not in the paper; published code: 0.01)")
    drop_fragments: bool = Field(False, description="leave such instances out (not in the paper)")


class IRNetSettings(Settings):
    """All of IRNet."""

    grid: int = Field(4, ge=1, description="image pixels per cell of the maps that are stored and of the walk [px] "
                                           "(not in the paper; here a quarter of the resolution)")
    classifier: ClassifierSettings = Field(ClassifierSettings(), description="see ClassifierSettings")
    cams: CamSettings = Field(CamSettings(), description="see CamSettings")
    relations: RelationSettings = Field(RelationSettings(), description="see RelationSettings")
    network: NetworkSettings = Field(NetworkSettings(), description="see NetworkSettings")
    inference: FieldSettings = Field(FieldSettings(), description="see FieldSettings")
    propagation: PropagationSettings = Field(PropagationSettings(), description="see PropagationSettings")
    synthesis: SynthesisSettings = Field(SynthesisSettings(), description="see SynthesisSettings")

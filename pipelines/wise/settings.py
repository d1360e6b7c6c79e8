"""Settings of the WISE chain; one section per DVC stage, so that a changed threshold never retrains.

Where a default comes from: a section or table of the paper; "published code" is what the published figures were
obtained with; "not in the paper" alone is a choice of this project.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.cues.settings import BackboneSettings
from stages.runtime.settings import Count, Settings, TrainingSettings


class PeakSettings(TrainingSettings):
    """The classifier of peak response mapping, for points from tags (table 1, "PRM"; Zhou et al., CVPR 2018)."""

    backbone: BackboneSettings = Field(BackboneSettings(stride=32), description=(
        "network (Zhou et al.: ResNet-50, stride 32)"))
    side: int = Field(448, ge=16, description=(
        "images are squeezed to a square of this side [px] (not in the paper; published code: 448)"))
    enlarge: int = Field(8, ge=1, description=(
        "factor on class maps before peaks are looked for (not in the paper; published code: 8)"))
    window: int = Field(3, ge=3, description=(
        "side of the window in which a peak is the maximum [cells] (not in the paper; published code: 3)"))
    flip: bool = Field(True, description="mirror half of the images (not in the paper; published code)")
    epochs: int = Field(20, ge=1, description="passes over the training images (not in the paper; published code: 20)")
    batch_size: int = Field(16, ge=1, description="images per step (not in the paper; published code: 16)")
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field(
        "constant", description="how the rate changes (not in the paper)")
    learning_rate: float = Field(0.01, gt=0, description="rate (not in the paper; published code: 0.01)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (not in the paper; published code: 0.9)")

    @model_validator(mode="after")
    def _odd(self) -> PeakSettings:
        if self.window % 2 == 0:
            raise ValueError(f"window: an odd number was expected, a window has a middle; found {self.window}")
        return self


class DiscSettings(Settings):
    """Which proposals are preferred as pseudo-masks, and kept off the background, beside their objectness (not in the
    paper)."""

    power: float = Field(0.0, ge=0, description=(
        "a candidate's objectness is multiplied by this power of its Jaccard similarity with a disc around its point; "
        "0 = objectness alone (sec. 4.2: 0)"))
    area: float = Field(0.05, gt=0, le=1, description="of the disc [share of the image] (not in the paper)")
    cap: float = Field(0.6, ge=0, le=1, description=(
        "the disc's radius is at most this share of the way to the next point; 0 = no cap (not in the paper)"))


class CueSettings(Settings):
    """Where points come from, and which proposals and pixels they stand for (sections 3.2 and 4.1)."""

    source: Literal["points", "peaks"] = Field("points", description=(
        "points: those of the annotations; peaks: of a classifier of tags (table 1: PRM + E-Net)"))
    peak: float = Field(30.0, description=(
        "a peak's class response exceeds this, with source peaks (not in the paper; published code: 30)"))
    objectness: float = Field(0.5, description=(
        "proposals above this may be pseudo-masks and replace masks (not in the paper; published code: 0.5)"))
    background: Literal["best", "paper"] = Field("best", description=(
        "paper: outside all proposals, which is nothing where they are many; best: outside each point's `best` "
        "candidates that hold no other point (sec. 3.2: outside all)"))
    best: int = Field(10, ge=1, description=(
        "candidates of a point, with background best [proposals] (not in the paper)"))
    least: float = Field(0.02, ge=0, lt=1, description=(
        "where less background is left, only each point's best candidate is cut out [share of the image] (not in the "
        "paper)"))
    disc: DiscSettings = Field(DiscSettings(), description="see DiscSettings")


class NetworkSettings(TrainingSettings):
    """L-Net and E-Net and their joint training (sections 3.1, 3.2, 4.2)."""

    backbone: BackboneSettings = Field(BackboneSettings(stride=32, freeze_batch_norm=True), description=(
        "network (sec. 4.2: ResNet-50 of ImageNet; that batch norm is frozen is not in the paper; published code)"))
    shared: bool = Field(True, description=(
        "one backbone for both; false: one each (sec. 4.2: shared; published code trained L-Net apart)"))
    strides: tuple[Count, ...] = Field((32, 16, 8), min_length=1, description=(
        "levels that are summed [px per cell] (sec. 4.2: as FCN8)"))
    width: int = Field(0, ge=0, description=(
        "channels in which levels are summed and mixed by 3x3 convolutions; 0 = no mixing, the sum itself is the "
        "output (sec. 4.2: as FCN8, 0)"))
    dimensions: int = Field(64, ge=1, description="length of an embedding (sec. 4.2: 64)")
    coordinates: bool = Field(False, description=(
        "E-Net also sees where a cell lies, so that look-alike neighbours can differ (not in the paper)"))
    location_scale: float = Field(1.0, gt=0, description=(
        "factor on the initial weights of L-Net's last layers (not in the paper: 1)"))
    embedding_scale: float = Field(1.0, gt=0, description=(
        "factor on the initial weights of E-Net's last layers (not in the paper: 1)"))
    background_bias: float = Field(0.0, description=(
        "initial logit of the background; above 0 there are fewer blobs at first (not in the paper: 0)"))
    balance: float = Field(0.1, ge=0, le=1, description=(
        "lambda of eq. 4: weight of L-Net's loss, that of E-Net is 1 - lambda (sec. 4.2: 0.1)"))
    term_warmup: int = Field(0, ge=0, description=(
        "the split and the false-positive term rise from nothing over this many steps [steps] (not in the paper: 0)"))
    pairs: Literal["published", "paper"] = Field("published", description=(
        "which pixels are compared (sec. 3.2: each point with pixels of every mask; published code: of its own mask, "
        "and with the other points)"))
    pixels: int = Field(100, ge=0, description=(
        "random pixels of a mask that a point is compared with; 0 = the number of objects [px] (sec. 3.2: the number "
        "of objects; published code: 100)"))
    mean: bool = Field(True, description=(
        "average the terms of eq. 3 per point and over the points (eq. 3: sum; published code: means)"))
    alone: bool = Field(False, description=(
        "draw pseudo-masks among the candidates that hold no other point, where there are any (not in the paper: among "
        "all)"))
    sharpness: float = Field(1.0, ge=0, description=(
        "pseudo-masks are drawn in proportion to this power of the objectness; built-in proposals are scored by their "
        "rank, which hardly differs from one to the next (sec. 4.2: 1)"))
    hard: int = Field(1000, ge=0, description=(
        "background pixels among which those most like an object are pushed away from it; 0 = none [px] (not in the "
        "paper; published code: all background pixels)"))
    hard_below: int = Field(12, ge=0, description=(
        "only in images with fewer objects [objects] (not in the paper; published code: 12)"))
    flip: bool = Field(False, description="mirror half of the images (not in the paper; published code: no)")
    max_pixels: float = Field(4e6, ge=1024, description=(
        "larger images are made smaller [px] (not in the paper)"))
    epochs: int = Field(137, ge=1, description=(
        "passes over the training images (sec. 4.2: 200,000 steps, of VOC's 1,464 images)"))
    batch_size: int = Field(1, ge=1, description="images per step (sec. 4.2: 1)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description=(
        "optimizer; adam's weight decay is an L2 term (sec. 4.2: Adam)"))
    schedule: Literal["polynomial", "one_cycle", "cosine", "thirds", "constant"] = Field(
        "constant", description="how the rate changes (not in the paper; published code: constant)")
    learning_rate: float = Field(1e-5, gt=0, description="rate (sec. 4.2: 1e-5)")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay (sec. 4.2: 0.0005)")


class InferenceSettings(Settings):
    """L-Net's points of the validation images, and the background's pixels (section 3.3)."""

    least: float = Field(0.0, ge=0, le=1, description=(
        "blobs whose highest probability is lower are left out (not in the paper: 0)"))
    background_pixels: int = Field(0, ge=0, description=(
        "pixels that stand for the background, k of the k-means; 0 = the number of objects (sec. 4.2: the number of "
        "objects)"))
    max_pixels: float = Field(4e6, ge=1024, description="larger images are looked at smaller [px] (not in the paper)")


class SynthesisSettings(Settings):
    """Labels from points, embeddings and proposals (section 3.3).

    Train has the points of `cues`. The rows of table 1 on val: "L-Net + Blobs" is masks blobs; "L-Net + Best
    proposal" best_proposal; "WISE" embedding; "GT-points + E-Net" embedding with val_points given; "PRM + E-Net" the
    same with cues.source peaks. "L-Net + Oracle proposal" and "L-Net + GT-Mask" need the truth and are made in the
    evaluation.
    """

    val_points: Literal["lnet", "given"] = Field("lnet", description=(
        "whose points the labels of val start from that are measured: L-Net's, or those of `cues` (table 1)"))
    masks: Literal["embedding", "best_proposal", "blobs", "disc"] = Field("embedding", description=(
        "grouped pixels; the proposal of highest objectness that holds the point; L-Net's blobs (table 1); discs "
        "around the points, which need no network (not in the paper)"))
    disc_area: float = Field(0.02, gt=0, le=1, description=(
        "of a disc, with masks disc or disc_power [share of the image] (not in the paper)"))
    disc_cap: float = Field(0.0, ge=0, le=1, description=(
        "its radius is at most this share of the way to the next point; 0 = no cap (not in the paper)"))
    replace: bool = Field(True, description=(
        "replace a grouped mask, or a disc, by the proposal with the largest Jaccard similarity (sec. 3.3)"))
    alone: bool = Field(False, description=(
        "prefer proposals that hold no other point (not in the paper: no)"))
    objectness: float = Field(0.0, ge=0, description=(
        "the proposal is chosen by its Jaccard similarity times this power of its objectness (sec. 3.3: 0, by the "
        "similarity alone)"))
    disc_power: float = Field(0.0, ge=0, description=(
        "and times this power of the proposal's Jaccard similarity with a disc around the point (not in the paper: 0)"))


class WiseSettings(Settings):
    """All of WISE."""

    cues: CueSettings = Field(CueSettings(), description="see CueSettings")
    peaks: PeakSettings = Field(PeakSettings(), description="see PeakSettings; only with cues.source peaks")
    network: NetworkSettings = Field(NetworkSettings(), description="see NetworkSettings")
    inference: InferenceSettings = Field(InferenceSettings(), description="see InferenceSettings")
    synthesis: SynthesisSettings = Field(SynthesisSettings(), description="see SynthesisSettings")

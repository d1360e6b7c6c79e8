"""Settings of the segment proposals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from stages.runtime import layout
from stages.runtime.settings import Count, Settings


class RankSettings(Settings):
    """Weights of the cues of ``ranking.cues``.

    They were found by a coordinate search for recall on 56 training photographs whose masks are known, and then
    rounded. No table reports figures of those photographs. So the provider is not trained on masks, but these weights
    are chosen with some: provider.json says ``tuned_on_masks``.
    """

    boundary: float = Field(0.9, description="log mean contrast along the boundary (not in the papers)")
    inside: float = Field(1.2, description="log mean contrast of the edges within (not in the papers)")
    weak: float = Field(-3.5, description="share of weak boundary (not in the papers)")
    compact: float = Field(6.0, description="root of 4 pi area / perimeter^2 (not in the papers)")
    ellipse: float = Field(4.0, description="area / area of the ellipse of equal moments (not in the papers)")
    size: float = Field(-0.1, description="(log share of the image's area + 0.5)^2 (not in the papers)")
    off_centre: float = Field(-2.0, description="distance from the image's middle / longer side (not in the papers)")
    triplet: float = Field(-2.0, description="being joined of three neighbours (not in the papers)")


class MapSettings(Settings):
    """Folders of maps that further trees are built on, which DVC watches: one .npz per image, named by its id in twelve
    digits. The data set's images themselves stand for none. An image without a file is done without the tree."""

    features: str = Field(str(layout.IMAGES), min_length=1, description=(
        "array `features` (C, h, w), a network's: regions of alike values are merged (not in the papers)"))
    boundary: str = Field(str(layout.IMAGES), min_length=1, description=(
        "array `boundary` (h, w): regions are merged where it is low; data/irnet/fields are IRNet's, of the training "
        "images, which DVC then makes before (not in the papers)"))

    def folders(self) -> dict[str, Path]:
        """What the folders that are given hold -> folder."""
        found = {"features": Path(self.features), "boundary": Path(self.boundary)}
        return {kind: folder for kind, folder in found.items() if folder != layout.IMAGES}


class HierarchySettings(Settings):
    """The built-in provider: regions of hierarchies, their neighbouring pairs and triplets, ranked."""

    regions: int = Field(1200, ge=2, le=3000, description="regions that the trees start from (not in the papers)")
    max_pixels: int = Field(409600, ge=64, description=(
        "larger images are made smaller for the regions; the masks have the image's size [pixels] (not in the "
        "papers)"))
    pair_cuts: tuple[Count, ...] = Field((10, 20, 40, 80), description=(
        "numbers of regions at which two neighbours are joined (not in the papers)"))
    triplet_cuts: tuple[Count, ...] = Field((10, 20, 40), description=(
        "numbers of regions at which three neighbours are joined (not in the papers)"))
    smallest: float = Field(0.001, ge=0, lt=1, description="smallest proposal [share of the image] (not in the papers)")
    largest: float = Field(0.95, gt=0, le=1, description="largest proposal [share of the image] (not in the papers)")
    first: int = Field(100, ge=0, description=(
        "best proposals that must differ more from each other [proposals] (not in the papers)"))
    first_iou: float = Field(0.65, gt=0, le=1, description="largest IoU between those (not in the papers)")
    iou: float = Field(0.87, gt=0, le=1, description="largest IoU between any two proposals (not in the papers)")
    rank: RankSettings = Field(default_factory=RankSettings, description="weights of the cues")


class FileSettings(Settings):
    """Who made ``proposals.source``: COCO results, a JSON list of image_id, segmentation, score."""

    name: str = Field(min_length=1, description=(
        "what made them, e.g. SharpMask; metric files say so (not in the papers)"))
    trained_on_masks: bool = Field(description=(
        "whether masks were used to train it: true of MCG, COB, DeepMask, SharpMask and SAM. There is no default: the "
        "reader of every figure must be told (not in the papers)"))
    tuned_on_masks: bool = Field(False, description=(
        "whether masks were used to choose a few of its parameters, though not to train it (not in the papers)"))
    missing: Literal["error", "none"] = Field("error", description=(
        "an image without a proposal in the file: an error, or an image without proposals (not in the papers)"))


class ProposalSettings(Settings):
    """Class-agnostic segment proposals, for WISE and the panoptic method."""

    provider: Literal["hierarchy", "file"] = Field("hierarchy", description=(
        "hierarchy: built in, trained on nothing, a few weights chosen with masks; file: made by another program (WISE "
        "section 3: SharpMask)"))
    source: str = Field(str(layout.IMAGES), min_length=1, description=(
        "what they are made of, which DVC watches: the data set's images (hierarchy); or the JSON file, or a folder of "
        "such files, for the images of train and val (file) (not in the papers)"))
    limit: int = Field(1000, ge=1, le=10000, description="best proposals that are kept [per image] (WISE section 3)")
    hierarchy: HierarchySettings = Field(default_factory=HierarchySettings, description="the built-in provider")
    maps: MapSettings = Field(default_factory=MapSettings, description="maps for the built-in provider")
    file: FileSettings | None = Field(None, description="what made the file (provider: file)")

    @model_validator(mode="after")
    def _source_fits(self) -> ProposalSettings:
        if self.provider == "file" and self.file is None:
            raise ValueError("provider is file: a section file with name and trained_on_masks is needed")
        if (self.provider == "file") == (Path(self.source) == layout.IMAGES):
            raise ValueError(f"source: {self.source} does not go with provider {self.provider}; write {layout.IMAGES} "
                             f"for hierarchy, the COCO results for file")
        if self.provider == "file" and self.maps.folders():
            raise ValueError(f"maps are for provider hierarchy; write {layout.IMAGES}, which stands for none")
        return self

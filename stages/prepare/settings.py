"""Settings of the sections ``dataset`` and ``annotations``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.runtime.settings import Settings

LabelKind = Literal["tags", "points", "boxes", "extreme_points", "masks"]
Share = Annotated[float, Field(ge=0, le=1)]


class ShapesSettings(Settings):
    """How many scenes, how large, and how hard."""

    train: int = Field(240, ge=1, le=1_000_000, description="training images [images] (not in the paper)")
    val: int = Field(60, ge=1, le=1_000_000, description="validation images [images] (not in the paper)")
    width: int = Field(160, ge=32, le=4096, description="image width [px] (not in the paper)")
    height: int = Field(128, ge=32, le=4096, description="image height [px] (not in the paper)")
    max_objects: int = Field(7, ge=1, le=40, description="most objects in an image [objects] (not in the paper)")
    smallest: float = Field(
        0.16, gt=0, le=1, description="longest side of the smallest object [share of the shorter image side] "
        "(not in the paper)")
    largest: float = Field(
        0.54, gt=0, le=1, description="longest side of the largest object [share of the shorter image side] "
        "(not in the paper)")
    touching: float = Field(
        0.6, ge=0, le=1, description="probability that a further object of a class is put against the previous one "
        "(not in the paper)")
    occluders: float = Field(
        0.2, ge=0, le=1, description="probability that a pole, which belongs to the ground, is put across an object "
        "(not in the paper)")
    contrast: float = Field(
        0.8, ge=0, le=1, description="share of the objects whose colour is chosen to differ from what is behind them "
        "(not in the paper)")
    noise: float = Field(
        0.022, ge=0, le=0.5, description="standard deviation of the sensor noise [share of full scale] "
        "(not in the paper)")
    min_pixels: int = Field(
        25, ge=1, description="an object that would show less is left out of the scene [px] (not in the paper)")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> ShapesSettings:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is larger than largest ({self.largest})")
        side = self.largest * min(self.width, self.height)
        if self.min_pixels > side**2:
            raise ValueError(f"min_pixels ({self.min_pixels}) is more than any object has: largest ({self.largest:g}) "
                             f"is {side:.0f} px here")
        return self


class PartSettings(Settings):
    """A further part of the training images: a JSON and its images, both relative to ``dataset.root``."""

    file: str = Field(min_length=1, description="COCO instance JSON (not in the papers)")
    images: str = Field(min_length=1, description="image folder (not in the papers)")


class DatasetSettings(Settings):
    """Where images and truth come from. All paths but ``root`` are relative to ``root``."""

    kind: Literal["shapes", "coco", "panoptic", "lvis", "voc", "kitti", "cityscapes", "folder"] = Field(
        "shapes", description="shapes: rendered, embedded; coco: COCO instance JSON and images; panoptic: COCO "
        "panoptic JSON and PNGs, and images; lvis: LVIS v1 JSON and COCO 2017's images; voc: VOCdevkit, with SBD for "
        "train_aug; kitti: boxes or instance PNGs of KITTI, MOTS included; cityscapes: leftImg8bit with gtFine or "
        "gtCoarse; folder: images and a table of tags (not in the papers)")
    root: str = Field(
        "stages/prepare/shapes.py", min_length=1,
        description="folder of the data set; for shapes, which needs none, a file of this project, because DVC tracks "
        "it (not in the papers)")
    max_pixels: float = Field(
        2e8, ge=1, description="an image with more pixels is refused before it is decoded [px] (not in the papers)")
    train: str | None = Field(
        None, description="training part: a JSON (coco; default instances_train.json; lvis; default "
        "lvis_v1_train.json; panoptic; default panoptic_train.json, whose PNGs lie in the folder of its name), an "
        "image set (voc; train_aug, train, trainval or another list of ImageSets/Segmentation; default train_aug), "
        "image sets joined by + (cityscapes; train and val of gtFine, train_extra, train_coarse and val_coarse of "
        "gtCoarse; default train), a list of image names or sequences (kitti; default: all that have labels), a table "
        "(folder; default labels.csv)")
    val: str | None = Field(
        None, description="validation part, as `train` (defaults: instances_val.json, lvis_v1_val.json, "
        "panoptic_val.json, val; none "
        "for folder, where `split` is the usual way, and for kitti, where `val_images` is another)")
    train_images: str | None = Field(
        None, description="image folder of `train` (coco, panoptic, lvis, kitti and folder; default images; for lvis, "
        "where it holds train2017/ and val2017/, the root itself, for folder too where there is no folder images; for "
        "kitti training/image_2 or, of MOTS, training/image_02)")
    val_images: str | None = Field(None, description="image folder of `val` (default: that of `train`)")
    train_more: tuple[PartSettings, ...] = Field(
        (), description="further parts of the training images, as COCO 2014's 35k images of val (coco; WISE section "
        "4.4: train and the 35k)")
    sbd: str = Field(
        "SBD", min_length=1, description="folder of the Semantic Boundaries Dataset, for train_aug (voc): it holds "
        "inst/, train.txt and val.txt, itself or in dataset/ or benchmark_RELEASE/dataset/")
    limit: int | None = Field(
        None, ge=1, description="use only the first images of each of train and val, by id [images] "
        "(not in the papers)")
    budget_seconds: float | None = Field(
        None, gt=0, description="draw, uniformly and without replacement from `seed`, as many training images as this "
        "annotation time pays for at the cost of the labels (annotations.kinds, evaluate.seconds); `split` is made "
        "before, `limit` takes the first of those that were drawn [s] (WISE table 2: 29280)")
    split: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="take val out of `train` by chance from `seed`: a share below 1, or a number [images] "
        "(not in the papers)")
    seed: int = Field(
        0, ge=0, description="of the rendering, of `split` and of `budget_seconds`; apart from the seed of training, "
        "so that another training leaves the data as they are (not in the papers)")
    classes: list[str] | None = Field(
        None, min_length=1, description="names of the classes to keep; objects and tags of others are dropped, their "
        "images stay (not in the papers)")
    allow_empty_classes: bool = Field(
        False, description="accept classes that no training image shows; with `limit` they are accepted anyway "
        "(not in the papers)")
    empty_masks: Literal["error", "drop"] = Field(
        "error", description="objects whose mask holds no pixel: refuse, or drop them; COCO 2017 has a few "
        "(not in the papers)")
    copy_images: bool = Field(
        False, description="copy images instead of hard-linking them: for DVC's cache.type hardlink or symlink, which "
        "would make the originals part of its cache and read-only (not in the papers)")
    shapes: ShapesSettings = Field(default=ShapesSettings(), description="the rendered scenes (kind shapes)")

    @model_validator(mode="after")
    def _parts_agree(self) -> DatasetSettings:
        if self.split is not None and self.val is not None:
            raise ValueError(f"val ({self.val!r}) and split ({self.split}) exclude each other; remove one")
        if self.kind == "shapes":
            given = [name for name in ("train", "val", "train_images", "val_images", "split")
                     if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)}: no meaning for kind shapes; remove (numbers of images are "
                                 f"dataset.shapes.train and dataset.shapes.val)")
        if self.train_more and self.kind != "coco":
            raise ValueError(f"train_more: no meaning for kind {self.kind}, coco alone has it; remove it")
        if self.kind == "folder" and self.val is None and self.split is None:
            raise ValueError("kind folder needs split (for example 0.2) or val (a second table)")
        return self


class TagCropSettings(Settings):
    """A fixed grid of overlapping crops, each of which is tagged by itself. The first lies flush with the image's upper
    left corner, the last with its lower right one, the others in equal steps between them."""

    columns: int = Field(5, ge=1, le=100, description=(
        "crops side by side [crops] (source: panoptic App. B.2, 15 crops)"))
    rows: int = Field(3, ge=1, le=100, description=(
        "crops one below the other [crops] (source: panoptic App. B.2, 15 crops)"))
    width: int | None = Field(500, ge=1, description=(
        "of a crop, in a narrower image that image's; null: as narrow as covers the image [px] "
        "(source: panoptic App. B.2)"))
    height: int | None = Field(400, ge=1, description=(
        "of a crop, in a lower image that image's; null: as low as covers the image [px] "
        "(source: panoptic App. B.2)"))


class AnnotationSettings(Settings):
    """Which weak labels the methods get, on train and val."""

    kinds: list[LabelKind] = Field(
        ["tags"], min_length=1, description="supervision: tags (IRNet; BESTIE), points (WISE; BESTIE), boxes and tags "
        "(panoptic: stuff has tags only), extreme_points (EXITS), masks (full, or for semi-supervised mixes)")
    source: Literal["auto", "truth", "input"] = Field(
        "auto", description="truth: derived from masks as an annotator would give them; input: what the data set "
        "itself carries; auto: truth where the data set has masks, else input (not in the papers)")
    tag_crops: TagCropSettings | None = Field(None, description=(
        "if kinds has tags: tags for each crop of a fixed grid beside those of the image, which say little where every "
        "image shows most classes (source: panoptic App. B.2)"))
    extreme_points: Literal["longest_run", "extremenet"] = Field("longest_run", description=(
        "where extreme points of a mask lie: longest_run: in the middle of the longest run of pixels of the extreme "
        "row or column, always on the mask (not in the papers); extremenet: half way between the first and the last of "
        "the mask's pixels that are within 2 % of its height or width of the extreme one, where a concave mask may "
        "have none (EXITS sec. 4.1: as ExtremeNet)"))
    masked_images: Share | list[int | str] = Field(1.0, description=(
        "training images that are labelled in full, if kinds has masks: things, crowds and stuff; a share, or a list "
        "of image ids and file names [share] (not in the papers)"))
    seed: int = Field(0, ge=0, description="of the choice of images for a share of `masked_images` (not in the papers)")

    @field_validator("kinds")
    @classmethod
    def _unique(cls, kinds: list[LabelKind]) -> list[LabelKind]:
        if len(set(kinds)) != len(kinds):
            raise ValueError("every kind at most once")
        return kinds

"""Cityscapes: street scenes of 2048 x 1024 px with 8 classes of things and 11 of stuff, labelled finely or coarsely.

The data set's own folders: ``leftImg8bit/<set>/<city>/*_leftImg8bit.png``, with labels in ``gtFine`` or ``gtCoarse``,
``.../*_instanceIds.png``. Those hold all that the ``labelIds`` pictures hold, so that these are not read.
``cityscapes_masks`` reads the pictures.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import Entry
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError, summarise
from stages.runtime.settings import nearest

STUFF = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
         20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"}
THINGS = {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
"""The classes that are evaluated, by the data set's own label ids; all other labels are void."""
CATEGORIES: list[Entry] = [{"id": number, "name": name, "isthing": int(number in THINGS)}
                           for number, name in sorted((STUFF | THINGS).items())]
SETS = {"train": ("train", "gtFine"), "val": ("val", "gtFine"), "train_extra": ("train_extra", "gtCoarse"),
        "train_coarse": ("train", "gtCoarse"), "val_coarse": ("val", "gtCoarse")}
"""Name in dataset.train or dataset.val -> folder of images, folder of labels."""
COARSE = "gtCoarse"
_IMAGE = "_leftImg8bit.png"


def chosen_sets(dataset: DatasetSettings) -> dict[str, list[str]]:
    """part -> names of image sets (keys of :data:`SETS`); several are joined by ``+``.

    Raises:
        UserError: an unknown name, or images that two sets of a part share.
    """
    wanted = {"train": dataset.train or "train"}
    if dataset.split is None:
        wanted["val"] = dataset.val or "val"
    found = {part: [name.strip() for name in names.split("+")] for part, names in wanted.items()}
    for part, names in found.items():
        for name in names:
            if name not in SETS:
                raise UserError(f"dataset.{part}: no image set {name!r}{nearest(name, list(SETS))} (allowed: "
                                f"{', '.join(SETS)}; join several by +)")
        if len({SETS[name][0] for name in names}) != len(names):
            raise UserError(f"dataset.{part}: {'+'.join(names)} has the same images twice")
    return found


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, and the folders of images and labels of the chosen sets."""
    root = Path(dataset.root)
    names = {name: None for part in chosen_sets(dataset).values() for name in part}
    return [root, *(root / kind / SETS[name][0] for name in names for kind in ("leftImg8bit", SETS[name][1]))]


def read(dataset: DatasetSettings) -> Source:
    """List the images.

    Raises:
        UserError: a missing folder, an image without labels, or labels without an image.
    """
    root = Path(dataset.root)
    parts = chosen_sets(dataset)
    found = {name: _pairs(root, name) for name in dict.fromkeys(name for names in parts.values() for name in names)}
    # One running number over all sets, so that an id means one image.
    numbers = {file: number for number, file in enumerate(
        sorted({image for pairs in found.values() for image, _ in pairs}), start=1)}
    images = {part: [SourceImage(numbers[image], image, str(root / "leftImg8bit"), masks=(labels,),
                                 coarse=SETS[name][1] == COARSE)
                     for name in names for image, labels in found[name]]
              for part, names in parts.items()}
    origin = {part: root / "leftImg8bit" / SETS[names[0]][0] for part, names in parts.items()}
    return Source([dict(category) for category in CATEGORIES], images, origin)


def _pairs(root: Path, name: str) -> list[tuple[str, str]]:
    """The images of a set, relative to leftImg8bit, with the paths of their labels."""
    folder, kind = SETS[name]
    ending = f"_{kind}_instanceIds.png"
    for path in (root / "leftImg8bit" / folder, root / kind / folder):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; dataset.root must hold leftImg8bit/{folder} and {kind}/{folder}, "
                            f"as the data set's archives unpack")
    images = {path.parent.name + "/" + path.name.removesuffix(_IMAGE): path
              for path in sorted((root / "leftImg8bit" / folder).glob(f"*/*{_IMAGE}"))}
    labels = {path.parent.name + "/" + path.name.removesuffix(ending): path
              for path in sorted((root / kind / folder).glob(f"*/*{ending}"))}
    problems = [f"{root / kind / folder / stem}{ending}: no such file; {images[stem]} needs its labels"
                for stem in sorted({*images} - {*labels})]
    problems += [f"{root / 'leftImg8bit' / folder / stem}{_IMAGE}: no such file; {labels[stem]} labels it"
                 for stem in sorted({*labels} - {*images})]
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else summarise(
            problems, f"{root}: {len(problems)} file(s) of the set {name} are missing; unpack its archives again:"))
    return [(f"{folder}/{stem}{_IMAGE}", str(labels[stem])) for stem in images]

"""COCO panoptic data sets: a JSON and a folder of PNGs that say of every pixel what it belongs to.

``panoptic_masks`` reads the PNGs.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import Entry
from stages.labels.panoptic import png_folder, read_panoptic
from stages.prepare import coco
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError


def parts(dataset: DatasetSettings) -> dict[str, tuple[Path, Path]]:
    """part -> (JSON file, image folder)."""
    return coco.part_paths(dataset, "panoptic_train.json", "panoptic_val.json", "images")


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, JSON files, their folders of PNGs, and image folders."""
    return [Path(dataset.root), *(path for file, folder in parts(dataset).values()
                                  for path in (file, png_folder(file), folder))]


def read(dataset: DatasetSettings) -> Source:
    """Read and check the JSON files.

    Raises:
        UserError: a missing file or folder, JSON that is not COCO panoptic, or an image without segments.
    """
    images: dict[str, list[SourceImage]] = {}
    categories: dict[int, Entry] = {}
    found = parts(dataset)
    for part, (file, folder) in found.items():
        content = read_panoptic(file)
        for path, key in ((folder, f"dataset.{part}_images"), (png_folder(file), f"dataset.{part}")):
            if not path.is_dir():
                raise UserError(f"{path}: no such folder; set {key} (relative to dataset.root)")
        coco.add_categories(categories, content["categories"], file)
        rows = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        without = [image["id"] for image in content["images"] if image["id"] not in rows]
        if without:
            raise UserError(f"{file}: {len(without)} image(s) have no annotation (first: image {without[0]}); every "
                            f"image needs its segments")
        images[part] = [_image(image, rows[image["id"]], folder, png_folder(file)) for image in content["images"]]
    origin = {part: file for part, (file, _) in found.items()}
    return Source([categories[key] for key in sorted(categories)], images, origin, [file for file, _ in found.values()])


def _image(image: Entry, annotation: Entry, folder: Path, masks: Path) -> SourceImage:
    segments = tuple({key: segment.get(key, 0) for key in ("id", "category_id", "iscrowd")}
                     for segment in annotation["segments_info"])
    return SourceImage(image["id"], image["file_name"], str(folder), image["width"], image["height"],
                       segments=segments, masks=(str(masks / annotation["file_name"]),))

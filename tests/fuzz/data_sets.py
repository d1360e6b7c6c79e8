"""Data sets that somebody brings: prepare and annotate."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from stages.labels.coco import Entry
from stages.prepare.annotate import annotate
from stages.prepare.cityscapes import STUFF, THINGS
from stages.prepare.prepare import prepare
from stages.prepare.settings import AnnotationSettings, DatasetSettings
from stages.runtime.settings import RuntimeSettings
from tests.fuzz import oracles, samples, spoilers
from tests.fuzz.kind import Kind
from tests.fuzz.oracles import ask

RUNTIME = RuntimeSettings(workers=1)
_WRITES = ("desk/data/dataset", "desk/data/annotations", "desk/.work")


def _nothing_in_place(case: Path) -> None:
    """No labels; and no data set, or a whole one: the labels were refused then."""
    ask(not (case / "desk/data/annotations").exists(), "refused, and there are labels")
    if (case / "desk/data").exists():
        for part in ("train", "val"):
            oracles.read_truth(case / "desk", part)


def _run_prepare(random: Random, case: Path, **settings: Any) -> dict[str, Any]:
    """prepare and annotate, with some settings by chance; the truth must be there before labels are asked for."""
    more: dict[str, Any] = {"max_pixels": 1e6, "allow_empty_classes": random.random() < 0.9}
    if random.random() < 0.3:
        more["empty_masks"] = "drop"
    if random.random() < 0.1:
        more["copy_images"] = True
    chosen = {"root": str(case / "user"), **more, **settings}
    kinds = random.choice([["tags"], ["points"], ["boxes"], ["extreme_points"], ["tags", "boxes"], ["tags", "masks"],
                           ["tags", "points", "boxes", "extreme_points"], ["boxes", "masks"]])
    prepare(DatasetSettings.model_validate(chosen), RUNTIME)
    options = {"tag_crops": {"columns": 2, "rows": 2, "width": None, "height": None}} if random.random() < 0.1 else {}
    annotate(AnnotationSettings.model_validate({"kinds": kinds, **options}), RUNTIME)
    return {"kinds": kinds, **chosen}


def _spoil_coco(random: Random, case: Path, suffixes: tuple[str, ...] = (".json",)) -> str:
    root, way = case / "user", random.random()
    if way < 0.72:
        return spoilers.spoil_json(random, spoilers.pick(random, root, *suffixes))
    if way < 0.92:
        return spoilers.spoil_picture(random, spoilers.pick(random, root / "images"))
    return spoilers.spoil_name(random, root)


def _same_pictures(case: Path, given: Callable[[str], list[Entry]], folder: Path) -> None:
    """Pictures of the truth show what the files that they come from show."""
    for part in ("train", "val"):
        names = {entry["id"]: entry["file_name"] for entry in given(part)}
        for image in oracles.read_truth(case / "desk", part)["images"]:
            oracles.same_picture(folder / names[image["id"]], case / "desk/data/dataset/images" / image["file_name"])


def _check_coco(case: Path, settings: dict[str, Any]) -> None:
    root = case / "user"
    if settings.get("empty_masks") != "drop":
        oracles.coco_kept(root, case / "desk")
    else:
        oracles.read_truth(case / "desk", "train")
    _same_pictures(case, lambda part: oracles.strict_json(root / f"instances_{part}.json")["images"], root / "images")
    oracles.annotated(case / "desk", settings["kinds"])


def _check_lvis(case: Path, settings: dict[str, Any]) -> None:
    if settings.get("empty_masks") != "drop":
        oracles.coco_kept(case / "user", case / "desk", "lvis_v1")
    for part in ("train", "val"):
        given = {image["id"]: image for image in oracles.strict_json(case / f"user/lvis_v1_{part}.json")["images"]}
        for image in oracles.read_truth(case / "desk", part)["images"]:
            ask(image["neg_category_ids"] == sorted(set(given[image["id"]]["neg_category_ids"])), "negative classes")
    oracles.annotated(case / "desk", settings["kinds"])


def masks_by_name(desk: Path, part: str) -> dict[str, list[bytes]]:
    """File name without its ending -> the masks of an image's objects and crowds, sorted."""
    truth = oracles.read_truth(desk, part)
    found: dict[str, list[bytes]] = {}
    for image in truth["images"]:
        rows = [row for row in truth["annotations"] or truth.get("weak", []) if row["image_id"] == image["id"]]
        found[Path(image["file_name"]).stem] = sorted({oracles.mask_of(
            row["segmentation"], image["height"], image["width"]).tobytes() for row in rows
            if row.get("segmentation") is not None})
    return found


def _check_numbers(case: Path, settings: dict[str, Any], part: str, file: Callable[[str], Path],
                   counts: Callable[[int], bool]) -> None:
    """The truth's masks are the regions of equal numbers in the pictures of numbers that were given."""
    for stem, masks in masks_by_name(case / "desk", part).items():
        path = file(stem)
        if not path.is_file():
            continue
        with Image.open(path) as image:
            values = np.array(image).astype(np.int64)
        expected = sorted({(values == value).tobytes() for value in np.unique(values).tolist() if counts(value)})
        ask(masks == expected, f"{stem}: {len(masks)} masks, {len(expected)} were given in {path.name}")
    oracles.annotated(case / "desk", settings["kinds"])


def _spoil_pictures(random: Random, case: Path, labels: tuple[str, ...], texts: tuple[str, ...] = ()) -> str:
    """Spoil pictures, pictures of numbers (``labels``: endings, or parts of paths), tables and lists."""
    root, way = case / "user", random.random()
    if way < 0.08:
        return spoilers.spoil_name(random, root)
    found = sorted(path for path in root.rglob("*") if path.is_file())
    numbered = [path for path in found if path.suffix == ".png" and any(label in str(path) for label in labels)]
    listed = [path for path in found if path.suffix in texts]
    if listed and way < 0.4:
        path = random.choice(listed)
        if path.suffix == ".json":
            return spoilers.spoil_json(random, path, 0)
        return spoilers.spoil_text(random, path) if path.suffix in (".txt", ".csv") else spoilers.spoil_file(random,
                                                                                                             path)
    if numbered and way < 0.75:
        return spoilers.spoil_labels(random, random.choice(numbered))
    return spoilers.spoil_picture(random, spoilers.pick(random, root, *spoilers.PICTURES))


def _check_panoptic(case: Path, settings: dict[str, Any]) -> None:
    for part in ("train", "val"):
        given = oracles.strict_json(case / f"user/panoptic_{part}.json")
        names = {Path(image["file_name"]).stem: image["id"] for image in given["images"]}
        rows = {row["image_id"]: row for row in given["annotations"]}
        for stem, masks in masks_by_name(case / "desk", part).items():
            row = rows[names[stem]]
            with Image.open(case / f"user/panoptic_{part}" / row["file_name"]) as image:
                values = np.array(image).astype(np.int64) @ np.array([1, 256, 65536])
            ids = {segment["id"] for segment in row["segments_info"]}
            ask({*np.unique(values).tolist()} - {0} == ids, f"{stem}: ids")
            ask(masks == sorted((values == number).tobytes() for number in ids), f"{stem}: other masks")
    oracles.annotated(case / "desk", settings["kinds"])


def _check_folder(case: Path, settings: dict[str, Any]) -> None:
    with open(case / "user/labels.csv", encoding="utf-8-sig", newline="") as file:
        first, *rows = [row for row in csv.reader(file) if row]
    column = {name: place for place, name in enumerate(first)}
    ask(len(column) == len(first), "a column that is given twice was accepted")
    wanted = {row[column["file_name"]].strip(): {tag.strip() for tag in row[column["tags"]].split(";")} - {""}
              if len(row) > column["tags"] else set() for row in rows}
    found: dict[str, set[str]] = {}
    truths = [oracles.read_truth(case / "desk", part) for part in ("train", "val")]
    folder = case / "user/images"
    for truth in truths:
        names = {category["id"]: category["name"] for category in truth["categories"]}
        for image in truth["images"]:
            # Written names differ where a file was converted; the order of the ids is that of the names.
            found[str(image["id"])] = {names[tag] for tag in image["tags"]}
            source = sorted(wanted)[image["id"] - 1]
            ask(found[str(image["id"])] == wanted[source], f"{source}: other tags")
            oracles.same_picture(folder / source, case / "desk/data/dataset/images" / image["file_name"])
    ask(len(found) == len(wanted) == sum(len(truth["images"]) for truth in truths), "images of the table are lost")
    if settings["kinds"] == ["tags"]:
        oracles.annotated(case / "desk", ["tags"])


def _check_cityscapes(case: Path, settings: dict[str, Any]) -> None:
    """Things by number, stuff by class."""
    for part in ("train", "val"):
        for stem, masks in masks_by_name(case / "desk", part).items():
            stem = stem.removesuffix("_leftImg8bit")
            path = next((case / f"user/gtFine/{part}").glob(f"*/{stem}_gtFine_instanceIds.png"))
            with Image.open(path) as image:
                values = np.array(image).astype(np.int64)
            classes = np.where(values >= 1000, values // 1000, values)
            things = [value for value in np.unique(values).tolist() if (value // 1000 or value) in THINGS]
            stuff = {*np.unique(classes).tolist()} & {*STUFF}
            expected = {(values == value).tobytes() for value in things} | {(classes == kind).tobytes()
                                                                           for kind in stuff}
            ask(masks == sorted(expected), f"{stem}: other masks")
    oracles.annotated(case / "desk", settings["kinds"])


def _build(write: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda case: write(case / "user")


def _prepared(write: Callable[[Path], None], spoil: Callable[[Random, Path], str], check: Callable[[Path, Any], None],
              **settings: Any) -> Kind:
    return Kind(_build(write), spoil, partial(_run_prepare, **settings), check, _nothing_in_place, _WRITES)


KINDS: dict[str, Kind] = {
    "coco": _prepared(samples.coco, _spoil_coco, _check_coco, kind="coco"),
    "coco-weak": _prepared(partial(samples.coco, masks=False), _spoil_coco, _check_coco, kind="coco"),
    "lvis": _prepared(samples.lvis, _spoil_coco, _check_lvis, kind="lvis"),
    "panoptic": _prepared(samples.panoptic, partial(_spoil_pictures, labels=("panoptic_",), texts=(".json",)),
                          _check_panoptic, kind="panoptic"),
    "voc": _prepared(
        samples.voc, partial(_spoil_pictures, labels=("Segmentation",), texts=(".txt", ".mat")),
        lambda case, settings: _check_numbers(
            case, settings, "val", lambda stem: case / f"user/VOC2012/SegmentationObject/{stem}.png",
            lambda value: value not in (0, 255)), kind="voc"),
    "kitti": _prepared(
        samples.kitti, partial(_spoil_pictures, labels=("instance",), texts=(".txt",)),
        lambda case, settings: _check_numbers(
            case, settings, "val", lambda stem: case / f"user/semantics/instance/{stem}.png",
            lambda value: value // 256 in (24, 26)), kind="kitti", val_images="semantics/image_2", train="names.txt"),
    "cityscapes": _prepared(
        samples.cityscapes, partial(_spoil_pictures, labels=("instanceIds",)), _check_cityscapes,
        kind="cityscapes"),
    "folder": _prepared(
        samples.folder, partial(_spoil_pictures, labels=(), texts=(".csv",)), _check_folder, kind="folder", split=2),
}

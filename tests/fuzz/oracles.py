"""What must be true of what was accepted, found out by other means than the project's: NumPy, Pillow, pycocotools for
polygons, and a decoder of run lengths of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from tests.fuzz.server import Wrong

Entry = dict[str, Any]


def ask(condition: Any, message: str) -> None:
    """Raise :class:`Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(message)


def snapshot(folder: Path) -> dict[str, str]:
    """Digest, or target of a link, of everything below a folder."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*"))}


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def nothing_unfinished(desk: Path) -> None:
    """No temporary file outside the folder of unfinished work."""
    left = [path for path in desk.rglob("*") if path.name.startswith(".weakmask-")
            and ".work" not in path.relative_to(desk).parts]
    ask(not left, f"unfinished files: {left[:3]}")


def strict_json(path: Path) -> Any:
    """JSON; a key given twice or a number that is none is wrong, because it was to be refused."""

    def unique(pairs: list[tuple[str, Any]]) -> Entry:
        ask(len(dict(pairs)) == len(pairs), f"{path.name}: a key appears twice, and the file was accepted")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise Wrong(f"{path.name}: {name}, and the file was accepted")

    return json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)


def runs_of(counts: Any) -> list[int]:
    """Run lengths of an RLE's counts, a list or COCO's text."""
    if not isinstance(counts, str):
        return list(counts)
    runs: list[int] = []
    at = 0
    while at < len(counts):
        value = shift = 0
        while True:
            code = ord(counts[at]) - 48
            at += 1
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A segmentation of any form as a mask (H, W); it is wrong if it is none."""
    if isinstance(segmentation, Mapping):
        ask(list(segmentation["size"]) == [height, width], f"RLE of {segmentation['size']} in {[height, width]}")
        try:
            runs = runs_of(segmentation["counts"])
        except (IndexError, TypeError) as error:
            raise Wrong(f"RLE of broken counts was accepted: {error}") from None
        ask(all(type(run) is int and run >= 0 for run in runs), f"RLE with the runs {runs[:5]} was accepted")
        ask(sum(runs) == height * width, f"RLE covers {sum(runs)} of {height * width} pixels")
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape((height, width), order="F")
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        ask(len(polygon) % 2 == 0, "a polygon of an odd number of coordinates was accepted")
        ask(all(abs(value) <= 1e5 for value in polygon), f"a polygon with {polygon!r:.80} was accepted")
        if len(polygon) >= 6:
            mask |= coco_mask.decode(coco_mask.frPyObjects([[float(value) for value in polygon]], height, width)
                                     )[..., 0].astype(bool)
    return mask


def box_of(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]


def read_truth(desk: Path, part: str) -> Entry:
    """A truth file that holds together: ids, sizes, masks with their areas and boxes, images that are there."""
    content = strict_json(desk / f"data/dataset/{part}_truth.json")
    images = {image["id"]: image for image in content["images"]}
    ask(len(images) == len(content["images"]) > 0, f"{part}: image ids")
    for image in images.values():
        with Image.open(desk / "data/dataset/images" / image["file_name"]) as picture:
            ask(picture.size == (image["width"], image["height"]), f"{image['file_name']}: {picture.size} in truth "
                                                                    f"{image['width']} x {image['height']}")
            ask(picture.mode == "RGB", f"{image['file_name']}: mode {picture.mode}")
            picture.load()
        if "void" in image:
            mask_of(image["void"], image["height"], image["width"])
    rows = content["annotations"] or content.get("weak", [])
    ask(len({row["id"] for row in rows}) == len(rows), f"{part}: annotation ids")
    known = {category["id"] for category in content["categories"]}
    for row in rows:
        ask(row["category_id"] in known, f"{part}: category {row['category_id']}")
        image = images[row["image_id"]]
        if row.get("segmentation") is not None:
            mask = mask_of(row["segmentation"], image["height"], image["width"])
            ask(mask.any(), f"{part}: annotation {row['id']} is empty")
            if "area" in row:
                ask(row["area"] == int(mask.sum()) and row["bbox"] == box_of(mask),
                    f"{part}: annotation {row['id']} has area {row['area']}, box {row['bbox']}; the mask {mask.sum()}, "
                    f"{box_of(mask)}")
        else:
            ask(not content["annotations"], f"{part}: truth without a mask")
    return content


def same_picture(source: Path, written: Path) -> None:
    """The written picture shows what Pillow makes of the source, as stored or turned upright."""
    with Image.open(source) as first, Image.open(written) as second:
        if first.mode not in ("RGB", "L", "CMYK") or "transparency" in first.info:
            return
        stored, shown = first.convert("RGB"), ImageOps.exif_transpose(first).convert("RGB")
        found = np.asarray(second)
        ask(any(picture.size == second.size and (np.asarray(picture) == found).all() for picture in (stored, shown)),
            f"{written.name} shows something else than {source.name}")


def annotated(desk: Path, kinds: list[str]) -> None:
    """The weak labels against masks and labels of the truth."""
    for part in ("train", "val"):
        truth, weak = read_truth(desk, part), strict_json(desk / f"data/annotations/{part}_weak.json")
        ask([image["id"] for image in weak["images"]] == [image["id"] for image in truth["images"]], f"{part}: images")
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        rows = truth["annotations"] or truth.get("weak", [])
        things = {category["id"] for category in truth["categories"] if category.get("isthing", 1)}
        single = [row for row in rows if not row["iscrowd"] and row["category_id"] in things]
        if {*kinds} - {"tags", "masks"}:
            found = [row for row in weak["annotations"] if not row["iscrowd"] and row["category_id"] in things]
            ask(len(found) == len(single), f"{part}: {len(found)} of {len(single)} objects have labels")
            if weak["info"]["source"] == "truth":
                for row, source in zip(found, sorted(single, key=lambda row: row["id"]), strict=True):
                    _labels(row, mask_of(source["segmentation"], *sizes[row["image_id"]]))
        if "tags" in kinds and weak["info"]["source"] == "truth":
            for image, own in zip(weak["images"], truth["images"], strict=True):
                shown = {row["category_id"] for row in rows if row["image_id"] == image["id"] and not row["iscrowd"]}
                ask(image["tags"] == sorted(shown | {*own.get("tags", ())}), f"image {image['id']}: tags")


def _labels(row: Entry, mask: np.ndarray) -> None:
    where = f"annotation {row['id']}"
    if "bbox" in row:
        ask(row["bbox"] == box_of(mask), f"{where}: bbox")
    if "point" in row:
        ask(mask[round(row["point"][1]), round(row["point"][0])], f"{where}: the point lies outside its object")
    if "extreme_points" in row:
        x, y, w, h = box_of(mask)
        top, left, bottom, right = row["extreme_points"]
        ask(all(mask[py, px] for px, py in row["extreme_points"]), f"{where}: an extreme point outside its object")
        ask((top[1], left[0], bottom[1], right[0]) == (y, x, y + h - 1, x + w - 1), f"{where}: not extreme")


def coco_kept(root: Path, desk: Path, prefix: str = "instances") -> None:
    """Every image and annotation of COCO files is in the truth, with its own mask; or it may be left out by rule."""
    for part in ("train", "val"):
        given, truth = strict_json(root / f"{prefix}_{part}.json"), read_truth(desk, part)
        images = {image["id"]: image for image in truth["images"]}
        ask(sorted(images) == sorted(image["id"] for image in given["images"]), f"{part}: images of {prefix}")
        named = {category["id"]: (category["name"], category.get("isthing", 1)) for category in given["categories"]}
        kept = {category["id"]: (category["name"], category.get("isthing", 1)) for category in truth["categories"]}
        ask(named.items() <= kept.items(), f"{part}: categories")
        rows = {row["input"]["id"]: row for row in truth["annotations"] or truth.get("weak", [])}
        for source in given["annotations"]:
            image, where = images[source["image_id"]], f"{part}: annotation {source['id']}"
            size = image["height"], image["width"]
            mask = mask_of(source["segmentation"], *size) if source.get("segmentation") not in (None, []) else None
            row = rows.pop(source["id"], None)
            if row is None:
                ask(source.get("iscrowd") and mask is None, f"{where} is lost")
                continue
            ask((row["image_id"], row["category_id"], row["iscrowd"]) == (
                source["image_id"], source["category_id"], source.get("iscrowd", 0)), f"{where}: other ids")
            if mask is not None:
                ask((mask_of(row["segmentation"], *size) == mask).all(), f"{where}: another mask")
        ask(not rows, f"{part}: annotations from nowhere: {sorted(rows)[:3]}")


def finite(value: Any, where: str = "") -> None:
    """A tree of metrics holds finite numbers and texts only."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            finite(item, where)
    elif isinstance(value, float):
        ask(np.isfinite(value), f"{where} is {value}")

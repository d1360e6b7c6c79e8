"""Give train and val the weak labels that the methods learn from: data/annotations/{train,val}_weak.json.

They are derived from the truth, or are those that the data set itself carries. Settings: section `annotations` of
params.yaml. An image has `tags`, an object the labels of the chosen kinds. A crowd gives no tag (a tag of an image
always means at least one single object), no point and no extreme points; where boxes are asked for it keeps class and
box, marked by `iscrowd: 1`, so that nothing of its class need be believed outside all boxes. With
`annotations.tag_crops` an image has tags per crop too (`stages.labels.tag_crops`).

An image that is labelled in full (`annotations.masked_images`) is marked by `fully_labelled: 1` and carries the masks
of its things, crowds and stuff, stuff as annotations of its categories with nothing but an RLE: so one file holds a mix
of weak and full labels, read in one way. What nobody labelled is `void`, an RLE, where the data set says so; every
other pixel without a mask is background where the data set has things only, and void where it has stuff.
`stages.labels.given` makes labels of that. `coarse: 1` marks images whose outlines are coarse.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry, image_entries, is_thing, label_problems, read_coco, validate_coco
from stages.labels.given import FULL
from stages.labels.tag_crops import TagCrop, crop_grid, to_json
from stages.prepare import weak
from stages.prepare.chunks import map_chunks
from stages.prepare.settings import AnnotationSettings, TagCropSettings
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import write_json
from stages.runtime.seeds import generator
from stages.runtime.settings import RuntimeSettings, load_settings, nearest
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

KEYS = {"points": "point", "boxes": "bbox", "extreme_points": "extreme_points", "masks": "segmentation"}
"""Kind of supervision -> key of an annotation, in the order of the keys."""


EXTREME = {"longest_run": weak.extreme_points, "extremenet": weak.middle_extreme_points}
"""Where the extreme points of a mask lie, by ``annotations.extreme_points``."""


@dataclass(frozen=True)
class Task:
    """One image: its objects, crowds and stuff, which labels they get, and from where ("truth" or "input").

    ``whole`` says whether every object of the data set has a mask, so that an image without any has no object.
    """

    image: Entry
    objects: list[Entry]
    things: frozenset[int]
    kinds: tuple[str, ...]
    source: str
    whole: bool
    crops: TagCropSettings | None = None
    extreme: Literal["longest_run", "extremenet"] = "longest_run"

    @property
    def name(self) -> str:
        return f"image {self.image['id']} ({self.image['file_name']})"


def main(params: Path) -> None:
    """Run the stage."""
    settings = load_settings(params, annotations=AnnotationSettings, runtime=RuntimeSettings)
    annotate(settings.annotations, settings.runtime)


def annotate(annotations: AnnotationSettings, runtime: RuntimeSettings) -> None:
    """Write the weak labels of train and val.

    Raises:
        UserError: labels that the data set does not carry; nothing is in place then.
    """
    with Work(__file__, list(layout.TRUTH.values()), annotations) as work:
        for part, path in layout.TRUTH.items():
            truth = read_coco(path)
            source = _source(truth, annotations.source, path)
            tasks = _tasks(truth, annotations, source, part)
            results = map_chunks(label_image, tasks, [[] for _ in tasks], work, part, runtime)
            problems = [problem for result in results for problem in result["problems"]]
            if problems:
                raise UserError(summarise(problems, f"{path}: {len(problems)} problem(s) with the data set's labels:"))
            content = _content(truth, results, annotations.kinds, source)
            _check_masks(content, annotations, part, path)
            validate_coco(content, path)
            write_json(work.path(f"{part}_weak.json"), content)
            print(f"annotate: {part}: {len(content['images'])} images, {', '.join(annotations.kinds)} for "
                  f"{len(content['annotations'])} objects, from the {source}", file=sys.stderr)
        work.publish({f"{part}_weak.json": layout.WEAK[part] for part in layout.TRUTH})


def label_image(task: Task) -> Entry:
    """The weak labels of one image.

    Returns:
        ``image`` (sorted ``tags`` and the other keys that the image gets, see above), ``annotations`` (without ids)
        and ``problems``.
    """
    asked = [kind for kind in KEYS if kind in task.kinds]
    full = "masks" in asked and (task.source == "truth" or task.whole or _has_all_masks(task))
    annotations, problems = [], []
    for item in task.objects:
        crowd = item.get("iscrowd", 0)
        if crowd or item["category_id"] not in task.things:
            labels = _of_region(item, asked if crowd else [], full, task.source)
        elif not asked:
            continue
        elif task.source == "truth":
            labels = _from_mask(item, asked, task.extreme)
        else:
            labels, missing = _from_input(item, asked, task.image)
            problems += [f"{task.name}, annotation {item['input']['id']}: {problem}" for problem in missing]
        if labels:  # an entry without a label would give away how many objects there are
            annotations.append({"image_id": task.image["id"], "category_id": item["category_id"], "iscrowd": crowd,
                                **labels})
    crops, problem = _tag_crops(task)
    shown = {item["category_id"] for item in task.objects if not item.get("iscrowd", 0)}
    # What the data set says of an image counts beside its masks: other images of its file may be the ones with masks.
    shown |= set(task.image.get("tags", ()))
    if task.source == "input":
        shown |= {tag for crop in crops for tag in crop["tags"]}
    # Labels of objects give their classes away; stuff has no labels but tags, and masks where all is labelled.
    tags = shown if "tags" in task.kinds or full else shown & task.things
    image: Entry = {"tags": sorted(tags), **({"tag_crops": crops} if crops else {})}
    if full:
        image |= {FULL: 1, **({"void": task.image["void"]} if "void" in task.image else {})}
    if task.image.get("coarse"):
        image["coarse"] = 1
    return {"image": image, "annotations": annotations, "problems": [*problems, *problem]}


def _has_all_masks(task: Task) -> bool:
    """Whether the objects of an image all have masks, and there are some: a data set may have masks for some images."""
    single = [item for item in task.objects if not item.get("iscrowd", 0)]
    return bool(single) and all(item.get("segmentation") is not None for item in single)


def _of_region(item: Entry, kinds: Sequence[str], full: bool, source: str) -> Entry:
    """What a crowd or a class of stuff carries: its mask where all is labelled, and a crowd's box where boxes are."""
    labels: Entry = {}
    if "boxes" in kinds:
        carried = item.get("input", {}).get("bbox") if source == "input" else None
        labels["bbox"] = carried or rle_codec.bbox(item["segmentation"])
    if full and item.get("segmentation") is not None:
        labels["segmentation"] = item["segmentation"]
    return labels


def _tag_crops(task: Task) -> tuple[list[Entry], list[str]]:
    """The tags per crop of an image, from its masks or as the data set carries them; and what is wrong."""
    if "tags" not in task.kinds:
        return [], []
    if task.source == "input" and "tag_crops" in task.image:
        return [{"bbox": crop["bbox"], "tags": crop["tags"]} for crop in task.image["tag_crops"]], []
    if task.crops is None:
        return [], []
    if not task.whole:
        return [], [f"{task.name}: tags per crop are drawn from masks, and not every object has one; give the image "
                    f"tag_crops in the data set, or remove annotations.tag_crops"]
    height, width = task.image["height"], task.image["width"]
    try:
        windows = crop_grid((height, width), task.crops.rows, task.crops.columns, task.crops.height, task.crops.width)
    except ValueError as error:
        return [], [f"{task.name}: annotations.tag_crops: {error}; take more or larger crops"]
    tags: list[set[int]] = [set() for _ in windows]
    for item in task.objects:
        mask = rle_codec.decode(item["segmentation"])
        for found, (left, top, right, bottom) in zip(tags, windows, strict=True):
            if item["category_id"] not in found and mask[top:bottom, left:right].any():
                found.add(item["category_id"])
    return [to_json(TagCrop(window, sorted(found))) for window, found in zip(windows, tags, strict=True)], []


def _from_mask(item: Entry, kinds: Sequence[str], extreme: str = "longest_run") -> Entry:
    labels: Entry = {}
    mask = rle_codec.decode(item["segmentation"])
    if "points" in kinds:
        labels["point"] = weak.deepest_point(mask)
    if "boxes" in kinds:
        labels["bbox"] = weak.bounding_box(mask)
    if "extreme_points" in kinds:
        labels["extreme_points"] = EXTREME[extreme](mask)
    if "masks" in kinds:
        labels["segmentation"] = item["segmentation"]
    return labels


def _from_input(item: Entry, kinds: Sequence[str], image: Entry) -> tuple[Entry, list[str]]:
    """The labels that the data set carries for one object, and what is missing or wrong.

    Extreme points hold a box: it is taken from them where there is none. Their pixels belong to the object, so the box
    is one pixel wider than the distance of the points. Masks may be missing: a semi-supervised mix has some.
    """
    carried = {**item.get("input", {}), "segmentation": item.get("segmentation")}
    if "bbox" not in carried and "extreme_points" in carried:
        top, left, bottom, right = carried["extreme_points"]
        carried["bbox"] = [left[0], top[1], right[0] - left[0] + 1, bottom[1] - top[1] + 1]
    wanted = {KEYS[kind]: carried.get(KEYS[kind]) for kind in kinds}
    labels = {key: value for key, value in wanted.items() if value is not None}
    missing = [key for key in wanted if key not in labels and key != "segmentation"]
    if missing:
        return {}, [f"has no {' and no '.join(missing)}; add it to the data set, or ask for what it has in "
                    f"annotations.kinds"]
    return labels, label_problems(labels, image["width"], image["height"])


def _source(truth: Entry, asked: str, path: Path) -> str:
    """Where the labels of a file come from."""
    info = truth.get("info", {})
    masks = info.get("truth") == "masks"
    if asked == "auto":
        return "truth" if masks else "input"
    if asked == "truth" and not masks:
        reason = info.get("reason", "there are no masks")
        raise UserError(f"{path}: annotations.source is truth, but {reason}; use input or auto")
    return asked


def _check_masks(content: Entry, annotations: AnnotationSettings, part: str, path: Path) -> None:
    """Masks that were asked for and are nowhere are a mistake."""
    asked = part == "train" and "masks" in annotations.kinds and annotations.masked_images not in (0, [])
    if asked and not any("segmentation" in row for row in content["annotations"]):
        raise UserError(f"{path}: annotations.kinds asks for masks, and no object of the training images has one; "
                        f"remove masks from it")


def _tasks(truth: Entry, annotations: AnnotationSettings, source: str, part: str) -> list[Task]:
    objects: dict[int, list[Entry]] = {image["id"]: [] for image in truth["images"]}
    for item in truth["annotations"] or truth.get("weak", []):
        objects[item["image_id"]].append(item)
    things = frozenset(category["id"] for category in truth["categories"] if is_thing(category))
    images = truth["images"]
    masked = set(range(len(images)))
    if part == "train" and "masks" in annotations.kinds:
        masked = _masked(images, annotations)
    whole = truth.get("info", {}).get("truth") == "masks"
    return [Task(image, objects[image["id"]], things,
                 tuple(kind for kind in annotations.kinds if kind != "masks" or index in masked), source, whole,
                 annotations.tag_crops, annotations.extreme_points)
            for index, image in enumerate(images)]


def _masked(images: Sequence[Entry], annotations: AnnotationSettings) -> set[int]:
    """Places of the training images that are labelled in full.

    Raises:
        UserError: the list names an image that is not there.
    """
    chosen = annotations.masked_images
    if not isinstance(chosen, list):
        order = generator(annotations.seed, "masked_images").permutation(len(images))
        return set(order[:round(chosen * len(images))].tolist())
    places: dict[int | str, int] = {image["id"]: index for index, image in enumerate(images)}
    places |= {image["file_name"]: index for index, image in enumerate(images)}
    unknown = [name for name in chosen if name not in places]
    if unknown:
        raise UserError(f"annotations.masked_images: {unknown[0]!r} is neither the id nor the file_name of a training "
                        f"image{nearest(str(unknown[0]), [str(name) for name in places])}; data/dataset/"
                        f"train_truth.json lists them")
    return {places[name] for name in chosen}


def _content(truth: Entry, results: Sequence[Entry], kinds: Sequence[str], source: str) -> Entry:
    """The weak file: the truth's images and categories, with the chosen labels and nothing else."""
    images = [image | result["image"]
              for image, result in zip(image_entries(truth["images"]), results, strict=True)]
    rows = [row for result in results for row in result["annotations"]]
    return {"info": {"kinds": list(kinds), "source": source}, "images": images,
            "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
            "categories": truth["categories"]}


if __name__ == "__main__":
    run_stage(main, __doc__)

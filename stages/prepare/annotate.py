"""Give train and val the weak labels that the methods learn from: data/annotations/{train,val}_weak.json.

They are derived from the truth, or are those that the data set itself carries. Settings: section `annotations` of
params.yaml. Crowds get no labels of any kind, tags included: a tag then always means at least one single object.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry, image_entries, is_thing, label_problems, read_coco, validate_coco
from stages.prepare import weak
from stages.prepare.chunks import map_chunks
from stages.prepare.settings import AnnotationSettings
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import write_json
from stages.runtime.seeds import generator
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

KEYS = {"points": "point", "boxes": "bbox", "extreme_points": "extreme_points", "masks": "segmentation"}
"""Kind of supervision -> key of an annotation, in the order of the keys."""


@dataclass(frozen=True)
class Task:
    """One image: its objects, which labels they get, and from where ("truth" or "input")."""

    image: Entry
    objects: list[Entry]
    things: frozenset[int]
    kinds: tuple[str, ...]
    source: str


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
        ``tags`` (sorted category ids), ``annotations`` (without ids) and ``problems``.
    """
    asked = [kind for kind in KEYS if kind in task.kinds]
    annotations, problems = [], []
    for item in task.objects:
        if item["category_id"] not in task.things or not asked:
            continue
        if task.source == "truth":
            labels = _from_mask(item, asked)
        else:
            labels, missing = _from_input(item, asked, task.image)
            problems += [f"image {task.image['id']} ({task.image['file_name']}), annotation {item['input']['id']}: "
                         f"{problem}" for problem in missing]
        if labels:  # an entry without a label would give away how many objects there are
            annotations.append({"image_id": task.image["id"], "category_id": item["category_id"], "iscrowd": 0,
                                **labels})
    shown = {item["category_id"] for item in task.objects}
    if task.source == "input":
        shown |= set(task.image.get("tags", ()))
    # Labels of objects give their classes away; stuff has no labels but tags.
    tags = shown if "tags" in task.kinds else shown & task.things
    return {"tags": sorted(tags), "annotations": annotations, "problems": problems}


def _from_mask(item: Entry, kinds: Sequence[str]) -> Entry:
    labels: Entry = {}
    mask = rle_codec.decode(item["segmentation"])
    if "points" in kinds:
        labels["point"] = weak.deepest_point(mask)
    if "boxes" in kinds:
        labels["bbox"] = weak.bounding_box(mask)
    if "extreme_points" in kinds:
        labels["extreme_points"] = weak.extreme_points(mask)
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
    asked = part == "train" and "masks" in annotations.kinds and annotations.masked_images > 0
    if asked and not any("segmentation" in row for row in content["annotations"]):
        raise UserError(f"{path}: annotations.kinds asks for masks, and no object of the training images has one; "
                        f"remove masks from it")


def _tasks(truth: Entry, annotations: AnnotationSettings, source: str, part: str) -> list[Task]:
    objects: dict[int, list[Entry]] = {image["id"]: [] for image in truth["images"]}
    for item in truth["annotations"] or truth.get("weak", []):
        if not item.get("iscrowd", 0):
            objects[item["image_id"]].append(item)
    things = frozenset(category["id"] for category in truth["categories"] if is_thing(category))
    images = truth["images"]
    masked = set(range(len(images)))
    if part == "train" and "masks" in annotations.kinds and annotations.masked_images < 1:
        order = generator(annotations.seed, "masked_images").permutation(len(images))
        masked = set(order[:round(annotations.masked_images * len(images))].tolist())
    return [Task(image, objects[image["id"]], things,
                 tuple(kind for kind in annotations.kinds if kind != "masks" or index in masked), source)
            for index, image in enumerate(images)]


def _content(truth: Entry, results: Sequence[Entry], kinds: Sequence[str], source: str) -> Entry:
    """The weak file: the truth's images and categories, with the chosen labels and nothing else."""
    images = [image | {"tags": result["tags"]}
              for image, result in zip(image_entries(truth["images"]), results, strict=True)]
    rows = [row for result in results for row in result["annotations"]]
    return {"info": {"kinds": list(kinds), "source": source}, "images": images,
            "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
            "categories": truth["categories"]}


if __name__ == "__main__":
    run_stage(main, __doc__)

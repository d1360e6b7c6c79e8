"""Bring a data set into data/dataset: plain RGB images, and the truth of train and val as COCO JSON.

Everything is checked before anything is put into place. Settings: section `dataset` of params.yaml; with
`dataset.budget_seconds` also `method`, `annotations` and `evaluate`, which say what the labels of an image cost (DVC
knows of it by data/code/prepare).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stages.labels.coco import Entry, write_instances
from stages.labels.images import Header
from stages.prepare import images, kinds
from stages.prepare.budget import Budget, budget_of
from stages.prepare.chunks import map_chunks
from stages.prepare.records import Task, make_record, shown_categories
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, check_classes, select
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import write_json
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

LARGEST_ID = 65534
"""Of a category: semantic pictures of 16 bits hold it, beside 0 for background and 65,535 for what is undecided."""


def main(params: Path) -> None:
    """Run the stage."""
    settings = load_settings(params, dataset=DatasetSettings, runtime=RuntimeSettings)
    budget = None
    if settings.dataset.budget_seconds is not None:
        others = load_settings(params, method=str, annotations=dict, evaluate=dict)
        budget = budget_of(settings.dataset, others.method, others.annotations, others.evaluate)
    prepare(settings.dataset, settings.runtime, budget)


def prepare(dataset: DatasetSettings, runtime: RuntimeSettings, budget: Budget | None = None) -> None:
    """Write ``data/dataset``: images/, train_truth.json, val_truth.json.

    Args:
        dataset: what is wanted.
        runtime: workers.
        budget: how many training images are drawn, if not all are taken.

    Raises:
        UserError: anything wrong with the data set; nothing is in place then.
    """
    if dataset.kind != "shapes" and not Path(dataset.root).is_dir():
        raise UserError(f"dataset.root: {dataset.root} is not a folder; give the folder of the data set")
    found = kinds.read(dataset)
    source = select(found, dataset, None if budget is None else budget.images)
    if budget is not None:
        _report(budget.sentence(len(select(found, dataset.model_copy(update={"limit": None})).parts["train"])))
    if any(category["id"] == 0 for category in source.categories):
        raise UserError(f"{source.origin['train']}: a category has id 0, which means background in semantic label "
                        f"pictures; number the categories from 1 on")
    beyond = [category for category in source.categories if category["id"] > LARGEST_ID]
    if beyond:
        raise UserError(f"{source.origin['train']}: category {beyond[0]['id']} ({beyond[0]['name']!r}) does not fit "
                        f"into semantic label pictures, which hold 16 bits; number the categories from 1 to "
                        f"{LARGEST_ID}")
    _check_tags(source, dataset)
    placements = _plan_images(source, dataset, runtime)
    with Work(__file__, source.files, [dataset, budget and budget.images]) as work:
        folder_of_images = work.subfolder("images")
        kept = tuple(category["id"] for category in source.categories)
        truths = {}
        for part, items in source.parts.items():
            tasks = [Task(item, placement, folder_of_images, kept, dataset)
                     for item, placement in zip(items, placements[part], strict=True)]
            records = map_chunks(make_record, tasks, [task.files for task in tasks], work, part, runtime)
            problems = [problem for record in records for problem in record["problems"]]
            if problems:
                raise UserError(summarise(problems, f"{source.origin[part]}: {len(problems)} problem(s):"))
            truths[part] = records
        tags = [shown_categories(record["image"], record["objects"]) for record in truths["train"]]
        _report(check_classes(source.categories, tags, dataset, source.origin["train"]))
        for part, records in truths.items():
            _write_truth(work.path(f"{part}_truth.json"), records, source.categories, source.origin[part], part)
        work.publish({"images": layout.IMAGES, **{f"{part}_truth.json": layout.TRUTH[part] for part in truths}})


def _check_tags(source: Source, dataset: DatasetSettings) -> None:
    """Find classes without images before any image is decoded, where the data set says so much in advance."""
    if dataset.kind in ("coco", "lvis", "folder"):
        tags = [shown_categories({"tags": image.tags or (), "tag_crops": image.tag_crops or ()}, image.objects)
                for image in source.parts["train"]]
        check_classes(source.categories, tags, dataset, source.origin["train"])


def _plan_images(source: Source, dataset: DatasetSettings, runtime: RuntimeSettings) -> \
        dict[str, Sequence[images.Placement | None]]:
    """Read all headers, so that missing files and wrong sizes show within seconds, and name the files."""
    if dataset.kind == "shapes":
        return {part: [None] * len(items) for part, items in source.parts.items()}
    headers: dict[str, list[Header]] = {}
    upright: dict[str, list[bool]] = {}
    for part, items in source.parts.items():
        found = parallel_map(partial(images.inspect, max_pixels=dataset.max_pixels), items, runtime,
                             f"headers of {part}", part)
        problems = [item for item in found if isinstance(item, str)]
        headers[part] = [item for item in found if isinstance(item, Header)]
        if not problems:
            upright[part], problems = images.decide_upright(items, headers[part])
        if problems:
            raise UserError(summarise(problems, f"{source.origin[part]}: {len(problems)} problem(s) with the images:"))
    placements, problems = images.place_names(source.parts, headers, upright)
    if problems:
        raise UserError(summarise(problems, f"{dataset.root}: {len(problems)} problem(s) with the images:"))
    shared = {image.path for image in source.parts["train"]} & {image.path for image in source.parts["val"]}
    if shared:
        _report(f"{len(shared)} image(s) are in both train and val (first: {min(shared)}): figures on val are biased")
    return {**placements}


def _write_truth(path: Path, records: list[Entry], categories: list[Entry], origin: Path,
                 part: str) -> None:
    """Write one truth file.

    Where every object has a mask, they are ``annotations``. Otherwise the masks are no truth to measure against:
    ``annotations`` is empty, ``info`` gives the reason, and ``weak`` lists the objects and crowds with the labels that
    they carry.
    """
    entries = [record["image"] for record in records]
    objects = [{"image_id": record["image"]["id"], **item} for record in records for item in record["objects"]]
    reason = _no_truth(entries, objects, origin)
    if reason is None:
        write_instances(path, entries, categories, objects, {"truth": "masks"})
    else:
        weak = [{key: value for key, value in item.items() if value is not None} for item in objects]
        write_json(path, {"info": {"truth": "none", "reason": reason}, "images": entries, "annotations": [],
                          "weak": [{"id": number, **item} for number, item in enumerate(weak, start=1)],
                          "categories": categories})
    crowds = sum(item["iscrowd"] for item in objects)
    _report(f"{part}: {len(entries)} images, {len(objects) - crowds} objects, {crowds} crowds"
            + (f"; no truth: {reason}" if reason else ""))


def _no_truth(entries: list[Entry], objects: list[Entry], origin: Path) -> str | None:
    """Why there is nothing to measure against, or None."""
    single = [item for item in objects if not item["iscrowd"]]
    if not single:
        what = "tags only" if any(entry.get("tags") for entry in entries) else "no objects"
        return f"{origin} has {what}, no masks"
    without = [item for item in single if item["segmentation"] is None]
    if not without:
        return None
    if len(without) == len(single):
        return f"{origin} has no masks"
    return (f"{origin} has masks for {len(single) - len(without)} of {len(single)} objects only (annotation "
            f"{without[0]['input']['id']} has none)")


def _report(message: str | None) -> None:
    if message:
        print(f"prepare: {message}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main, __doc__)

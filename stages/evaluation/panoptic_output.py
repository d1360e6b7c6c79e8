"""A method's panoptic output against the truth: PQ of things, stuff and all, and AP by several rankings (table 6 of the
panoptic paper).

Void and crowds are treated as panopticapi does. The count that the paper's figures were obtained with calls predictions
that lie in void false; here nothing is held against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.evaluation.average_precision import VOLUME_THRESHOLDS, voc_average_precision, voc_hits
from stages.evaluation.inputs import Truth
from stages.evaluation.matching import Matches, by_image, match
from stages.evaluation.painting import by_size, segment_map
from stages.evaluation.panoptic_quality import panoptic_counts, panoptic_quality, void_mask
from stages.evaluation.records import Metrics, Record
from stages.labels import rle
from stages.labels.panoptic import png_folder, read_panoptic
from stages.labels.segments import join_stuff, read_segments
from stages.runtime.errors import UserError
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoU thresholds of AP: .5 to .95 in steps of .05, the paper's AP_vol on Cityscapes."""
ORACLE = "oracle"
"""Name of the ranking that puts right segments before wrong ones: the best AP that these segments can have."""
PER_TASK = 16


@dataclass(frozen=True)
class _Task:
    """Some images: the image, its truth, and its annotation of the panoptic file, or None."""

    images: list[tuple[Record, list[Record], Record | None]]
    folder: Path
    things: frozenset[int]
    whole: bool


def measure_panoptic(path: Path, truth: Truth, runtime: RuntimeSettings, ranked: bool = True) -> Metrics:
    """Compare a panoptic file with the truth of the same images.

    Args:
        path: its JSON; the method may have made none.
        truth: with at least one object; images that the file leaves out have no segment.
        runtime: workers.
        ranked: whether to rank the segments for AP.

    Returns:
        ``available``; or ``reason``. ``all``, ``things`` and ``stuff`` with ``PQ``, ``SQ``, ``DQ`` in percent, means
        over the classes that truth or output show. ``ranked``: name of a score -> ``things``, ``stuff`` -> ``AP50``,
        ``AP`` (.5 to .95) and ``AP_vol`` (.1 to .9) by the VOC protocol; the names are those of the segments'
        ``scores``, ``score`` where they have one, and ``oracle``.

    Raises:
        UserError: a file that is not COCO panoptic, or does not fit the truth.
    """
    if not path.exists():
        return {"available": 0, "reason": f"there is no {path}: the method makes no panoptic output"}
    content = read_panoptic(path)
    _check(path, content, truth)
    rows = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    stuff = set(truth.stuff)
    annotations: list[Record] = [*join_stuff([dict(item) for item in truth.annotations], stuff)]
    groups = by_image(annotations)
    images = [(image, groups.get(image["id"], []), rows.get(image["id"])) for image in truth.images]
    whole = any(item["category_id"] in stuff for item in annotations)
    tasks = [_Task(images[start:start + PER_TASK], png_folder(path), frozenset(truth.things), whole)
             for start in range(0, len(images), PER_TASK)]
    counts: dict[int, np.ndarray] = {}
    segments: list[Record] = []
    for table, found in parallel_map(_measure_images, tasks, runtime, "comparing segments", truth.part,
                                     images=len(images)):
        segments += found
        for category, value in table.items():
            counts[category] = counts.get(category, 0) + value
    quality = panoptic_quality(counts, invented=True)
    groups_of_classes = {"all": {*truth.things, *stuff}, "things": {*truth.things}, "stuff": stuff}
    result: Metrics = {"available": 1, **{
        name: _means([figures for category, figures in quality.items() if category in classes])
        for name, classes in groups_of_classes.items()}}
    if ranked:
        result["ranked"] = _rankings(annotations, segments, {"things": truth.things, "stuff": truth.stuff})
    return {name: value for name, value in result.items() if value != {}}


def _check(path: Path, content: Record, truth: Truth) -> None:
    """Refuse a panoptic file of other images or categories."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth.images}
    for image in content["images"]:
        size = (image["height"], image["width"])
        if sizes.get(image["id"]) != size:
            raise UserError(f"{path}: image {image['id']} of {size} [height, width] is not in {truth.path}; run "
                            f"`dvc repro` to make it anew")
    known = {category["id"] for category in truth.categories}
    unknown = sorted({segment["category_id"] for annotation in content["annotations"]
                      for segment in annotation["segments_info"]} - known)
    if unknown:
        raise UserError(f"{path}: category {unknown[0]} is not in {truth.path}; run `dvc repro` to make it anew")


def _measure_images(task: _Task) -> tuple[dict[int, np.ndarray], list[Record]]:
    """Counts of segments, and the segments with their masks (module level: it is pickled for the workers)."""
    counts: dict[int, np.ndarray] = {}
    segments: list[Record] = []
    for image, truth, annotation in task.images:
        size = image["height"], image["width"]
        info = [] if annotation is None else annotation["segments_info"]
        predicted = np.zeros(size, np.int32) if annotation is None else read_segments(
            task.folder / annotation["file_name"], size, info)
        ordered = by_size(truth, set(task.things))
        found = panoptic_counts(segment_map(ordered, *size), ordered, predicted, info, task.whole, void_mask(image))
        for category, value in found.items():
            counts[category] = counts.get(category, 0) + value
        segments += [{"image_id": image["id"], "category_id": segment["category_id"],
                      "segmentation": rle.encode(predicted == place),
                      "scores": {**segment.get("scores", {}),
                                 **({"score": segment["score"]} if "score" in segment else {})}}
                     for place, segment in enumerate(info, start=1)]
    return counts, segments


def _means(quality: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over classes in percent; nothing without classes."""
    return {name: _percent(float(np.mean([figures[name] for figures in quality])))
            for name in ("PQ", "SQ", "DQ") if quality}


def _percent(value: float) -> float:
    return round(100.0 * value, 3)


def _rankings(annotations: Sequence[Record], segments: Sequence[Record],
              groups: Mapping[str, Sequence[int]]) -> Metrics:
    """AP of the segments in the order of each of their scores, and in the best order (table 6), for groups of classes.
    """
    found = match(annotations, segments)
    # ``match`` orders by image; a stable sort by image id gives the segments in its order.
    ordered = sorted(segments, key=lambda segment: segment["image_id"])
    names = sorted({name for segment in segments for name in segment["scores"]})
    result: Metrics = {}
    for name in names:
        scores = np.array([segment["scores"].get(name, 1.0) for segment in ordered], np.float64)
        result[name] = {group: _average_precision(replace(found, score=scores), classes)
                        for group, classes in groups.items()}
    result[ORACLE] = {group: _average_precision(found, classes, oracle=True) for group, classes in groups.items()}
    return {name: {group: figures for group, figures in value.items() if figures} for name, value in result.items()}


def _average_precision(matches: Matches, classes: Sequence[int], oracle: bool = False) -> dict[str, float]:
    """AP at .5, over .5 to .95 and over .1 to .9, means over the classes that the truth shows."""
    thresholds = sorted({*COCO_THRESHOLDS, *VOLUME_THRESHOLDS})
    by_threshold = {threshold: _oracle(matches, classes, threshold) if oracle else
                    voc_average_precision(matches, classes, threshold) for threshold in thresholds}
    if not by_threshold[0.5]:
        return {}
    mean = {threshold: float(np.mean(list(values.values()))) for threshold, values in by_threshold.items()}
    return {"AP50": _percent(mean[0.5]),
            "AP": _percent(float(np.mean([mean[threshold] for threshold in COCO_THRESHOLDS]))),
            "AP_vol": _percent(float(np.mean([mean[threshold] for threshold in VOLUME_THRESHOLDS])))}


def _oracle(matches: Matches, classes: Sequence[int], threshold: float) -> dict[int, float]:
    """The AP of segments that are ranked right ones first: precision is 1 up to their recall, so it is their recall."""
    result = {}
    for category in classes:
        hits, objects = voc_hits(matches, category, threshold)
        if objects:
            result[category] = float(hits.sum()) / objects
    return result

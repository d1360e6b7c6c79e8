"""All figures of one set of labels against its truth, as the nested mapping that the metrics files hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.evaluation.average_precision import VOLUME_THRESHOLDS, voc_average_precision
from stages.evaluation.coco_ap import coco_average_precision
from stages.evaluation.coverage import mean_coverage
from stages.evaluation.inputs import Truth
from stages.evaluation.lvis_ap import federated_average_precision
from stages.evaluation.matching import by_image, match
from stages.evaluation.objects import coverage, coverage_by_size, coverage_of_separated
from stages.evaluation.painting import by_score, by_size, class_map, segment_map
from stages.evaluation.panoptic_quality import panoptic_counts, panoptic_quality, void_mask
from stages.evaluation.records import Metrics, Record
from stages.evaluation.semantic import UNDECIDED, class_iou, confusion, read_semantic
from stages.evaluation.settings import MeasureSettings
from stages.labels.coco import is_thing
from stages.runtime import layout
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings

THRESHOLDS = {"AP25": 0.25, "AP50": 0.5, "AP70": 0.7, "AP75": 0.75}
SHARES = {"mean_iou", "class_mean_iou", "recall50", "mwcov", "mucov"}
PER_TASK = 32


def percent(value: float | np.floating) -> float:
    """A share in 0..1 as a percentage with three decimals."""
    return round(100.0 * float(value), 3)


def measure(truth: Truth, labels: Sequence[Record], settings: MeasureSettings, min_score: float,
            runtime: RuntimeSettings, semantic: Path | None = None) -> Metrics:
    """Compare labels or detections with the truth of the same images.

    Args:
        truth: with at least one object.
        labels: COCO annotations or results with ``score``; crowd regions among them are undecided areas.
        settings: size limits and the like.
        min_score: labels below it count in AP only.
        runtime: workers for the work on pixels.
        semantic: folder of semantic PNGs, one per image, if the method wrote one.

    Returns:
        Nested mapping of numbers without NaN; AP, PQ, IoU and recall in percent. ``classes`` is keyed by name; what
        cannot be measured (no truth of that class or size) is absent and left out of every mean. On a federated truth
        there is ``lvis`` too; all other figures take what is not labelled there for background.
    """
    things = set(truth.things)
    objects = [item for item in truth.annotations if item["category_id"] in things]
    masks = [item for item in labels if item["category_id"] in things and not item.get("iscrowd", 0)]
    drawn = [item for item in labels if not item.get("iscrowd", 0) and item.get("score", 1.0) >= min_score]
    undecided = [item for item in labels if item.get("iscrowd", 0)]

    average_precision, classes = _average_precision(truth, objects, masks, settings)
    matches = match(objects, [item for item in drawn if item["category_id"] in things])
    counts = _paint(truth, drawn + undecided, settings, runtime, semantic)
    pixels, pixel_classes = _pixel_figures(truth, counts)
    names = truth.names()
    for category in truth.things:
        rows = matches.truth_category == category
        if rows.any():
            classes[category] |= _as_percent(coverage(matches.truth_iou[rows]))
            classes[category]["labels"] = int((matches.category == category).sum())
    for category, figures in pixel_classes.items():
        if category in things:
            classes.setdefault(category, {}).update(figures)
    with_labels = {item["image_id"] for item in drawn if item["category_id"] in things}
    covered = mean_coverage(objects, [item for item in drawn if item["category_id"] in things]) \
        if settings.coverage else None
    return {
        **average_precision,
        "objects": _as_percent(coverage(matches.truth_iou, matches.truth_category)) | {
            "labels": len(matches.category), "crowds": matches.crowds, "undecided_regions": len(undecided),
            "images": len(truth.images), "images_without_labels": len(truth.images) - len(with_labels)},
        "size": {name: _as_percent(figures) for name, figures in coverage_by_size(
            matches, settings.medium_from, settings.large_from).items()},
        "separated": _as_percent(coverage_of_separated(matches, objects, settings.medium_from)),
        **({"coverage": _as_percent(covered)} if covered else {}),
        **pixels,
        "classes": {names[category]: figures for category, figures in sorted(classes.items()) if figures},
    }


def _as_percent(figures: Record) -> Metrics:
    return {name: _as_percent(value) if isinstance(value, Mapping) else percent(value) if name in SHARES else int(value)
            for name, value in figures.items()}


def _average_precision(truth: Truth, objects: Sequence[Record], masks: Sequence[Record],
                       settings: MeasureSettings) -> tuple[Metrics, dict[int, dict[str, float]]]:
    """``voc``, ``coco`` and perhaps ``lvis`` figures over all classes, and per class by category id."""
    matches = match(objects, masks)
    by_threshold = {threshold: voc_average_precision(matches, truth.things, threshold)
                    for threshold in {*THRESHOLDS.values(), *VOLUME_THRESHOLDS}}
    present = sorted(by_threshold[0.5])
    classes: dict[int, dict[str, float]] = {category: {
        **{name: percent(by_threshold[threshold][category]) for name, threshold in THRESHOLDS.items()},
        "AP_vol": percent(np.mean([by_threshold[threshold][category] for threshold in VOLUME_THRESHOLDS])),
    } for category in present}
    voc = {name: percent(np.mean(list(by_threshold[threshold].values()))) for name, threshold in THRESHOLDS.items()
           if present}
    if present:
        voc["AP_vol"] = percent(np.mean([list(by_threshold[threshold].values()) for threshold in VOLUME_THRESHOLDS]))
    coco = coco_average_precision(truth.images, objects, masks, truth.things, settings.max_detections,
                                  settings.medium_from, settings.large_from)
    for category, figures in coco.per_class.items():
        classes.setdefault(category, {})["coco_AP"] = percent(figures["AP"])
    result = {"voc": voc, "coco": {name: percent(value) for name, value in coco.mean.items()}}
    if truth.federated:
        lvis = federated_average_precision(
            truth.images, objects, masks, [item for item in truth.categories if is_thing(item)],
            settings.lvis_max_detections, settings.medium_from, settings.large_from)
        result["lvis"] = {name: percent(value) for name, value in lvis.mean.items()}
        for category, value in lvis.per_class.items():
            classes.setdefault(category, {})["lvis_AP"] = percent(value)
    return result, classes


@dataclass(frozen=True)
class _Pixels:
    """What one worker needs to compare some images pixel by pixel."""

    images: list[tuple[Record, list[Record], list[Record]]]
    things: frozenset[int]
    places: Mapping[int, int]
    with_stuff: bool
    keep_visible: float
    semantic: Path | None


@dataclass
class _Counts:
    """Sums over images.

    Attributes:
        segments: ``things``, and ``everything`` where there is stuff -> category id -> counts of segments, as
            :func:`panoptic_counts` gives them.
        pixels: ``painted``, and ``semantic`` and ``semantic_with_stuff`` where there are semantic maps -> confusion,
            as :func:`confusion` gives it.
    """

    segments: dict[str, dict[int, np.ndarray]] = field(default_factory=lambda: {"things": {}})
    pixels: dict[str, np.ndarray] = field(default_factory=dict)

    def add_segments(self, name: str, counts: Mapping[int, np.ndarray]) -> None:
        table = self.segments.setdefault(name, {})
        for category, value in counts.items():
            table[category] = table.get(category, 0) + value

    def add_pixels(self, name: str, counts: np.ndarray) -> None:
        self.pixels[name] = self.pixels.get(name, 0) + counts


def _paint(truth: Truth, labels: Sequence[Record], settings: MeasureSettings, runtime: RuntimeSettings,
           semantic: Path | None) -> _Counts:
    """Sums over all images of what :func:`_count_pixels` gives."""
    truth_groups, label_groups = by_image(truth.annotations), by_image(labels)
    images = [(image, truth_groups.get(image["id"], []), label_groups.get(image["id"], [])) for image in truth.images]
    stuff = set(truth.stuff)
    with_stuff = any(item["category_id"] in stuff for item in labels)
    # Background is 0 and classes count from 1, whatever their ids: a category id may be 0 or above 255.
    places = {category: number for number, category in enumerate([*truth.things, *truth.stuff], start=1)}
    tasks = [_Pixels(images[start:start + PER_TASK], frozenset(truth.things), places, with_stuff,
                     settings.keep_visible, semantic)
             for start in range(0, len(images), PER_TASK)]
    total = _Counts()
    for part in parallel_map(_count_pixels, tasks, runtime, "comparing pixels", truth.part, images=len(images)):
        for name, table in part.segments.items():
            total.add_segments(name, table)
        for name, counts in part.pixels.items():
            total.add_pixels(name, counts)
    return total


def _count_pixels(task: _Pixels) -> _Counts:
    """Panoptic counts and confusions of some images (module level: it is pickled for the workers)."""
    total = _Counts()
    for image, truth, labels in task.images:
        size = image["height"], image["width"]
        ordered_truth, painted = by_size(truth, set(task.things)), by_score(
            [item for item in labels if not item.get("iscrowd", 0)], set(task.things))
        truth_things = [item for item in ordered_truth if item["category_id"] in task.things]
        painted_things = [item for item in painted if item["category_id"] in task.things]
        truth_segments = segment_map(truth_things, *size)
        segments = segment_map(painted_things, *size, keep_visible=task.keep_visible)
        void = void_mask(image)
        total.add_segments("things", panoptic_counts(truth_segments, truth_things, segments, painted_things, void=void))
        all_truth = segment_map(ordered_truth, *size)
        if task.with_stuff:
            all_segments = segment_map(painted, *size, keep_visible=task.keep_visible)
            total.add_segments("everything", panoptic_counts(all_truth, ordered_truth, all_segments, painted, True))

        true_things, predicted = (class_map(truth_segments, truth_things, task.places),
                                  class_map(segments, painted_things, task.places))
        undecided = segment_map([item for item in labels if item.get("iscrowd", 0)], *size) > 0
        predicted[(predicted == 0) & undecided] = UNDECIDED
        ignored = np.array([False, *(bool(item.get("iscrowd", 0)) for item in truth_things)])[truth_segments]
        if void is not None:
            ignored |= void
        things = range(len(task.things) + 1)
        total.add_pixels("painted", confusion(true_things, predicted, things, ignored))
        if task.semantic is not None:
            written = read_semantic(task.semantic / f"{layout.image_key(image)}.png", *size, task.places)
            true_all = class_map(all_truth, ordered_truth, task.places)
            total.add_pixels("semantic", confusion(true_things, written, things, ignored))
            total.add_pixels("semantic_with_stuff", confusion(true_all, written, range(len(task.places) + 1), ignored))
    return total


def _pixel_figures(truth: Truth, counts: _Counts) -> tuple[Metrics, dict[int, dict[str, float]]]:
    """``panoptic`` and ``semantic`` figures, and per class by category id."""
    quality = panoptic_quality(counts.segments["things"])
    classes: dict[int, dict[str, float]] = {
        category: {name: percent(value) for name, value in figures.items()} for category, figures in quality.items()}
    panoptic: Metrics = _means(quality)
    if "everything" in counts.segments:
        everything = panoptic_quality(counts.segments["everything"])
        stuff = set(truth.stuff)
        panoptic["with_stuff"] = _means(everything)
        panoptic["stuff"] = _means({category: figures for category, figures in everything.items() if category in stuff})
    result = {"panoptic": panoptic, "painted": _semantic_figures(counts.pixels["painted"])}
    for category, iou in zip(truth.things, class_iou(counts.pixels["painted"])[1:], strict=True):
        if math.isfinite(iou):
            classes.setdefault(category, {})["IoU"] = percent(iou)
    if "semantic" in counts.pixels:
        result["semantic"] = _semantic_figures(counts.pixels["semantic"])
        for category, iou in zip(truth.things, class_iou(counts.pixels["semantic"])[1:], strict=True):
            if math.isfinite(iou):
                classes.setdefault(category, {})["semantic_IoU"] = percent(iou)
        with_stuff = counts.pixels["semantic_with_stuff"]
        if with_stuff[:, 1 + len(truth.things):-1].any():
            result["semantic"]["mIoU_with_stuff"] = percent(float(np.nanmean(class_iou(with_stuff))))
    return result, classes


def _means(quality: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    return {name: percent(np.mean([figures[name] for figures in quality.values()]))
            for name in ("PQ", "SQ", "DQ") if quality}


def _semantic_figures(counts: np.ndarray) -> dict[str, float]:
    """mIoU with background, the background's IoU, and the share of undecided pixels."""
    iou = class_iou(counts)
    figures = {"mIoU": percent(float(np.nanmean(iou))), "undecided_pixels": percent(counts[:, -1].sum() / counts.sum())}
    if math.isfinite(iou[0]):
        figures["background_IoU"] = percent(iou[0])
    return figures

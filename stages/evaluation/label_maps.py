"""Label maps that a method keeps on its way, cues and rounds of refinement, against the truth of its training images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.evaluation.inputs import Truth
from stages.evaluation.matching import by_image
from stages.evaluation.painting import by_size, class_map, segment_map
from stages.evaluation.panoptic_output import measure_panoptic
from stages.evaluation.panoptic_quality import void_mask
from stages.evaluation.records import Metrics, Record
from stages.evaluation.semantic import class_iou, confusion, read_semantic
from stages.labels.map_list import LabelMap, read_map_list
from stages.runtime import layout
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings

FIGURES = ("precision", "recall", "IoU")
QUALITY = {"PQ": "all", "PQ_things": "things", "PQ_stuff": "stuff"}
COLUMNS = [*(f"{group}_{figure}" for group in ("things", "stuff") for figure in FIGURES), *QUALITY]
"""Keys of a row of ``metrics/plots/rounds.json``, beside ``round``."""
PER_TASK = 16


@dataclass(frozen=True)
class _Task:
    """Some images with their truth, and the folders of PNGs."""

    images: list[tuple[Record, list[Record]]]
    folders: list[Path]
    things: frozenset[int]
    places: Mapping[int, int]
    whole: bool


def measure_maps(path: Path, truth: Truth, runtime: RuntimeSettings) -> Metrics:
    """Compare every listed map with the truth.

    Args:
        path: data/<method>/maps.json.
        truth: of the training images.
        runtime: workers.

    Returns:
        Name of a map -> ``things``, ``stuff`` and ``all`` (with background, where the truth has some), each
        ``precision``, ``recall``, ``IoU``; ``decided_pixels``; ``round`` where it is one; and PQ where it has
        instances. In percent, means over the classes that have true pixels; precision over those of them that the map
        shows. Undecided pixels are missed for their true class and false alarms for none; void and crowds do not count.

    Raises:
        UserError: a list or maps that are not as they should be.
    """
    maps = read_map_list(path)
    semantic = [item for item in maps if item.folder is not None]
    counts = _count(semantic, path.parent, truth, runtime)
    result: Metrics = {}
    for item in maps:
        figures: Metrics = {} if item.round is None else {"round": item.round}
        if item.folder is not None:
            figures |= _figures(counts[item.name], truth)
        if item.panoptic is not None:
            quality = measure_panoptic(path.parent / item.panoptic, truth, runtime, ranked=False)
            figures |= {name: quality[group]["PQ"] for name, group in QUALITY.items() if group in quality}
        result[item.name] = figures
    return result


def round_rows(maps: Mapping[str, Metrics]) -> list[dict[str, float | None]]:
    """A row per round in their order, for the lines of ``dvc plots``; what was not measured is null."""
    rows = []
    for figures in sorted((figures for figures in maps.values() if "round" in figures), key=lambda item: item["round"]):
        flat = {f"{group}_{name}": value for group in ("things", "stuff")
                for name, value in figures.get(group, {}).items()} | figures
        rows.append({"round": figures["round"], **{column: flat.get(column) for column in COLUMNS}})
    return rows


def _count(maps: Sequence[LabelMap], folder: Path, truth: Truth, runtime: RuntimeSettings) -> dict[str, np.ndarray]:
    """Name of a map -> confusion over all images, background, things and stuff by undecided besides."""
    if not maps:
        return {}
    stuff, groups = set(truth.stuff), by_image(truth.annotations)
    places = {category: number for number, category in enumerate([*truth.things, *truth.stuff], start=1)}
    whole = any(item["category_id"] in stuff for item in truth.annotations)
    images = [(image, groups.get(image["id"], [])) for image in truth.images]
    tasks = [_Task(images[start:start + PER_TASK], [folder / str(item.folder) for item in maps],
                   frozenset(truth.things), places, whole) for start in range(0, len(images), PER_TASK)]
    total = sum(parallel_map(_count_images, tasks, runtime, "comparing label maps", truth.part, images=len(images)))
    return {item.name: counts for item, counts in zip(maps, np.asarray(total), strict=True)}


def _count_images(task: _Task) -> np.ndarray:
    """(maps, K, K + 1) confusions of some images (module level: it is pickled for the workers)."""
    classes = len(task.places) + 1
    total = np.zeros((len(task.folders), classes, classes + 1), np.int64)
    for image, truth in task.images:
        size = image["height"], image["width"]
        ordered = by_size(truth, set(task.things))
        segments = segment_map(ordered, *size)
        true = class_map(segments, ordered, task.places)
        ignored = np.array([task.whole, *(bool(item.get("iscrowd", 0)) for item in ordered)])[segments]
        void = void_mask(image)
        if void is not None:
            ignored |= void
        for number, folder in enumerate(task.folders):
            found = read_semantic(folder / f"{layout.image_key(image)}.png", *size, task.places)
            total[number] += confusion(true, found, range(classes), ignored)
    return total


def _figures(counts: np.ndarray, truth: Truth) -> Metrics:
    """Precision, recall and IoU of one map."""
    hits = np.diagonal(counts[:, :-1]).astype(np.float64)
    true, shown = counts.sum(axis=1), counts[:, :-1].sum(axis=0)
    recall = np.where(true > 0, hits / np.maximum(true, 1), np.nan)
    precision = np.where((true > 0) & (shown > 0), hits / np.maximum(shown, 1), np.nan)
    values = dict(zip(FIGURES, (precision, recall, class_iou(counts)), strict=True))
    things = slice(1, 1 + len(truth.things))
    groups = {"things": things, "stuff": slice(things.stop, None), "all": slice(None)}
    result: Metrics = {}
    for group, part in groups.items():
        means = {name: round(100.0 * float(np.nanmean(value[part])), 3) for name, value in values.items()
                 if np.isfinite(value[part]).any()}
        result |= {group: means} if means else {}
    decided = counts[:, :-1].sum() / max(counts.sum(), 1)
    return {**result, "decided_pixels": round(100.0 * float(decided), 3)}

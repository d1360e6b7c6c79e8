"""All figures of a method's label files against the truth, file by file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stages.evaluation.inputs import read_labels, read_truth
from stages.evaluation.label_maps import measure_maps
from stages.evaluation.measure import measure
from stages.evaluation.oracle import carry_points, locations, oracle_labels
from stages.evaluation.panoptic_output import measure_panoptic
from stages.evaluation.points import measure_points
from stages.evaluation.records import Metrics
from stages.evaluation.semantic import covers
from stages.evaluation.settings import ScoreSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings

SPLITS = {"train": "train", "val": "val", "val_points": "val"}
"""Files of labels, by the names of their figures -> the images that they label. ``val_points`` are those that a method
makes of val with the annotated points in the place of its own locations."""


def score_files(labels: Mapping[str, Path], data: Path, settings: ScoreSettings, runtime: RuntimeSettings) -> Metrics:
    """Measure every label file; only that of the training images must exist.

    Args:
        labels: a name of ``SPLITS`` -> COCO instances.
        data: the method's folder; its sub-folders semantic/ and points/<split>/, its panoptic output and the label maps
            that its maps.json lists are measured too if they exist.
        settings: what counts.
        runtime: workers.

    Returns:
        ``available`` (0 or 1) and by name what :func:`measure` gives; ``<name>_reason``, or ``reason`` if there is
        nothing at all, where there is no truth.
    """
    figures: Metrics = {}
    reasons: dict[str, str] = {}
    for name, path in labels.items():
        if name != "train" and not path.exists():
            continue
        split = SPLITS[name]
        truth = read_truth(layout.TRUTH[split])
        found = read_labels(path, truth)
        if truth.reason:
            reasons[name] = truth.reason
            continue
        semantic = data / "semantic" if name == split and covers(data / "semantic", truth.images) else None
        figures[name] = measure(truth, found, settings, settings.min_score, runtime, semantic)
        if name != split:
            continue
        if (data / "points" / split).exists():
            figures[name]["points"] = measure_points(data / "points" / split, truth.images, truth.annotations)
        figures[name]["panoptic_output"] = measure_panoptic(
            data / layout.panoptic(data.name, split).name, truth, runtime)
        maps = measure_maps(data / layout.label_maps(data.name).name, truth, runtime) if split == "train" else {}
        if maps:
            figures[name]["maps"] = maps
    if not figures:
        return {"available": 0, "reason": reasons["train"]}
    return {"available": 1, **figures, **{f"{name}_reason": reason for name, reason in reasons.items()}}


def score_oracles(path: Path, proposals: Path | None, settings: ScoreSettings, runtime: RuntimeSettings) -> Metrics:
    """Measure what the truth would make of a method's locations on val, and of all objects.

    Args:
        path: the method's labels of val.
        proposals: folder of its proposals, for the row "proposal".
        settings: which rows, and what counts.
        runtime: workers.

    Returns:
        ``val.<row>``, where the labels carry the points that they started from, and ``objects.<row>``, where every
        true object is located: what :func:`measure` gives; nothing where nothing is asked for or there is no truth.
    """
    if not settings.oracle:
        return {}
    truth = read_truth(layout.TRUTH["val"])
    if truth.reason:
        return {}
    labels = read_labels(path, truth) if path.exists() else None
    places = {"objects": locations(truth, None)}
    if labels is not None and carry_points(labels):
        places = {"val": locations(truth, labels), **places}
    return {name: {row: measure(truth, oracle_labels(row, found, proposals, runtime), settings, settings.min_score,
                                runtime) for row in settings.oracle} for name, found in places.items()}

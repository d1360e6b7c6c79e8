"""All figures of a method's label files against the truth, split by split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stages.evaluation.inputs import read_labels, read_truth
from stages.evaluation.label_maps import measure_maps
from stages.evaluation.measure import measure
from stages.evaluation.panoptic_output import measure_panoptic
from stages.evaluation.points import measure_points
from stages.evaluation.records import Metrics
from stages.evaluation.semantic import covers
from stages.evaluation.settings import ScoreSettings
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings


def score_files(labels: Mapping[str, Path], data: Path, settings: ScoreSettings, runtime: RuntimeSettings) -> Metrics:
    """Measure the label file of each split; only the training split's must exist.

    Args:
        labels: split -> COCO instances.
        data: the method's folder; its sub-folders semantic/ and points/<split>/, its panoptic output and the label maps
            that its maps.json lists are measured too if they exist.
        settings: what counts.
        runtime: workers.

    Returns:
        ``available`` (0 or 1) and by split what :func:`measure` gives; ``<split>_reason``, or ``reason`` if there is
        nothing at all, where there is no truth.
    """
    splits: Metrics = {}
    reasons: dict[str, str] = {}
    for split, path in labels.items():
        if split != "train" and not path.exists():
            continue
        truth = read_truth(layout.TRUTH[split])
        found = read_labels(path, truth)
        if truth.reason:
            reasons[split] = truth.reason
            continue
        folder = data / "semantic" if covers(data / "semantic", truth.images) else None
        splits[split] = measure(truth, found, settings, settings.min_score, runtime, folder)
        if (data / "points" / split).exists():
            splits[split]["points"] = measure_points(data / "points" / split, truth.images, truth.annotations)
        splits[split]["panoptic_output"] = measure_panoptic(
            data / layout.panoptic(data.name, split).name, truth, runtime)
        maps = measure_maps(data / layout.label_maps(data.name).name, truth, runtime) if split == "train" else {}
        if maps:
            splits[split]["maps"] = maps
    if not splits:
        return {"available": 0, "reason": reasons["train"]}
    return {"available": 1, **splits, **{f"{split}_reason": reason for split, reason in reasons.items()}}

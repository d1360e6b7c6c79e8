"""Compare the detector's masks with the truth of the validation images: metrics/evaluate.json.

AP, PQ, IoU, recall and retention are in percent, annotation time in seconds per image. A run with `method: masks` notes
its AP in metrics/reference.json, against which other methods' retention is measured. Without truth the file holds the
reason in place of the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.runtime import layout
from stages.runtime.stage import run_stage

REFERENCE = layout.METRICS / "reference.json"
FULL_SUPERVISION = "masks"


def main(params: Path) -> None:
    """Read settings, predictions and truth; write the metrics."""
    from stages.evaluation.settings import EvaluateSettings
    from stages.evaluation.table import print_headline
    from stages.runtime.files import write_json
    from stages.runtime.settings import RuntimeSettings, load_settings

    settings = load_settings(params, method=str, evaluate=EvaluateSettings, runtime=RuntimeSettings,
                             dataset=dict, detector=dict, annotations=dict)
    metrics = evaluate_file(layout.predictions(settings.method), settings)
    write_json(layout.METRICS / "evaluate.json", metrics, indent=2)
    print_headline("evaluate", metrics)


def evaluate_file(predictions: Path, settings: Any) -> dict[str, Any]:
    """Measure the predictions and add what the labels cost and keep."""
    from stages.evaluation.cost import annotation_cost, reference_key, remember_reference, retention
    from stages.evaluation.inputs import read_predictions, read_truth
    from stages.evaluation.measure import measure

    full = settings.method == FULL_SUPERVISION
    cost = annotation_cost(*supervision(settings), settings.evaluate.seconds)
    truth = read_truth(layout.TRUTH["val"])
    detections = read_predictions(predictions, truth)
    if truth.reason:
        return {"available": 0, "reason": truth.reason, "annotation": cost}
    metrics = {"available": 1, **measure(truth, detections, settings.evaluate, settings.evaluate.min_score,
                                         settings.runtime)}
    key = reference_key(layout.TRUTH["val"], {"dataset": settings.dataset, "detector": used(settings.detector)})
    if full:
        remember_reference(REFERENCE, key, metrics)
    return {**metrics, "annotation": cost, "retention": retention(REFERENCE, key, metrics)}


def supervision(settings: Any) -> tuple[list[str], float]:
    """The kinds of annotation that the method was given, and the share of images with masks."""
    if settings.method == FULL_SUPERVISION:
        return ["masks"], 1.0
    if settings.evaluate.supervision != "auto":
        return [settings.evaluate.supervision], 1.0
    return settings.annotations.get("kinds", ["tags"]), settings.annotations.get("masked_images", 1.0)


def used(detector: dict[str, Any]) -> dict[str, Any]:
    """The detector's settings without those of the engine that does not run."""
    engines = {"detectron2", "torchvision"} - {detector.get("engine", "detectron2")}
    return {key: value for key, value in detector.items() if key not in engines}


if __name__ == "__main__":
    run_stage(main, __doc__)

"""Compare the detector's masks with the truth of the validation images.

Writes metrics/evaluate.json (the headline that DVC compares), metrics/detail/evaluate.json (all figures) and
metrics/plots/detector_by_class.json (bars per class); docs/metrics.md explains every key. AP, PQ, IoU, recall and
retention are in percent, annotation time in seconds per image. A run with `method: masks` notes its AP in
metrics/reference.json, against which other methods' retention is measured. Who made a method's segment proposals, and
whether from masks, stands beside the annotation time (data/<method>/figures.json says so). Without truth the files hold
the reason in place of the numbers.
"""

from __future__ import annotations

from pathlib import Path

from stages.evaluation.cost import reference_key, remember_reference, retention, said_of_proposals, used
from stages.evaluation.headline import bars, headline_of_detector
from stages.evaluation.inputs import read_predictions, read_truth
from stages.evaluation.measure import measure
from stages.evaluation.records import Metrics
from stages.evaluation.settings import EvaluateSettings
from stages.evaluation.table import DETAIL, print_figures
from stages.labels.annotation_cost import FULL_SUPERVISION, annotation_cost, count_labels, supervision
from stages.labels.coco import read_coco
from stages.labels.figures import figures_path, read_figures
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage

REFERENCE = layout.METRICS / "reference.json"


def main(params: Path) -> None:
    """Read settings, predictions and truth; write the metrics and what the labels cost and keep."""
    settings = load_settings(params, method=str, evaluate=EvaluateSettings, runtime=RuntimeSettings,
                             dataset=dict, detector=dict, annotations=dict)
    counts = count_labels(read_coco(layout.WEAK["train"]))
    kinds, masked = supervision(settings.method, settings.evaluate.supervision, settings.annotations, counts)
    cost = annotation_cost(kinds, masked, settings.evaluate.seconds, counts) | said_of_proposals(
        read_figures(figures_path(settings.method)).of_proposals())
    truth = read_truth(layout.TRUTH["val"])
    detections = read_predictions(layout.predictions(settings.method), truth)
    if truth.reason:
        metrics: Metrics = {"available": 0, "reason": truth.reason, "annotation": cost}
    else:
        measured = measure(truth, detections, settings.evaluate, settings.evaluate.min_score, settings.runtime)
        key = reference_key(layout.TRUTH["val"], {"dataset": settings.dataset, "detector": used(settings.detector)})
        if settings.method == FULL_SUPERVISION:
            remember_reference(REFERENCE, key, measured)
        metrics = {"available": 1, **measured, "annotation": cost, "retention": retention(REFERENCE, key, measured)}
    write_json(layout.METRICS / "evaluate.json", headline_of_detector(metrics), indent=2)
    write_json(DETAIL / "evaluate.json", metrics, indent=2)
    write_json(layout.METRICS / "plots" / "detector_by_class.json", bars(metrics), indent=2)
    print_figures("evaluate", metrics)


if __name__ == "__main__":
    run_stage(main, __doc__)

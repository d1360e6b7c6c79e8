"""Compare the method's pseudo-labels with the truth of the training images: metrics/score.json.

A method that also writes data/<method>/pseudo_labels_val.json or the folders semantic/ or points/ there has them
measured too. AP, PQ, IoU and recall are in percent. Without truth the file holds the reason in place of the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.runtime import layout
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Read settings, labels and truth; write the metrics."""
    from stages.evaluation.settings import ScoreSettings
    from stages.evaluation.table import print_headline
    from stages.runtime.files import write_json
    from stages.runtime.settings import RuntimeSettings, load_settings

    settings = load_settings(params, method=str, score=ScoreSettings, runtime=RuntimeSettings)
    labels = {"train": layout.pseudo_labels(settings.method),
              "val": layout.method_data(settings.method) / "pseudo_labels_val.json"}
    metrics = score_files(labels, layout.method_data(settings.method), settings.score, settings.runtime)
    write_json(layout.METRICS / "score.json", metrics, indent=2)
    print_headline("score", metrics)


def score_files(labels: dict[str, Path], data: Path, settings: Any, runtime: Any) -> dict[str, Any]:
    """Measure the label file of each split; only the training split's must exist. ``data`` is the method's folder."""
    from stages.evaluation.inputs import read_labels, read_truth
    from stages.evaluation.measure import measure
    from stages.evaluation.points import measure_points
    from stages.evaluation.semantic import covers

    splits: dict[str, Any] = {}
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
    if not splits:
        return {"available": 0, "reason": reasons["train"]}
    return {"available": 1, **splits, **{f"{split}_reason": reason for split, reason in reasons.items()}}


if __name__ == "__main__":
    run_stage(main, __doc__)

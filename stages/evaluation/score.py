"""Compare the method's pseudo-labels with the truth of the training images.

Writes metrics/score.json (the headline that DVC compares), metrics/detail/score.json (all figures) and
metrics/plots/labels_by_class.json (bars per class), and moments.json and rounds.json beside it (lines over a training,
and over rounds of refinement); docs/metrics.md explains every key. A method that also writes
data/<method>/pseudo_labels_val.json (and pseudo_labels_val_points.json), moments.json, maps.json (a list of label
maps), panoptic.json or panoptic_val.json or the folders semantic/ or points/ there has them measured too, and what it
says in data/<method>/figures.json joins the headline. With `score.oracle: [proposal]` the proposals are read that this
file names; its digest of them makes DVC run this again when they change. AP, PQ, IoU and recall are in percent.
Without truth the files hold the reason in place of the numbers.
"""

from __future__ import annotations

from pathlib import Path

from stages.evaluation.headline import bars, headline_of_labels
from stages.evaluation.inputs import read_truth
from stages.evaluation.label_maps import round_rows
from stages.evaluation.label_scores import SPLITS, score_files, score_oracles
from stages.evaluation.moments import measure_moments
from stages.evaluation.oracle import check_proposals
from stages.evaluation.settings import ScoreSettings
from stages.evaluation.table import DETAIL, print_figures
from stages.labels.figures import figures_path, read_figures
from stages.runtime import layout
from stages.runtime.files import write_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage


def main(params: Path) -> None:
    """Read settings, labels and truth; write the metrics."""
    settings = load_settings(params, method=str, score=ScoreSettings, runtime=RuntimeSettings)
    data = layout.method_data(settings.method)
    labels = {name: layout.pseudo_labels(settings.method, name) for name in SPLITS}
    own = read_figures(figures_path(settings.method))
    folder = None
    if "proposal" in settings.score.oracle:
        folder = check_proposals(own.proposals, settings.method, read_truth(layout.TRUTH["val"]).images)
    metrics = score_files(labels, data, settings.score, settings.runtime)
    oracles = score_oracles(labels["val"], folder, settings.score, settings.runtime)
    said = {"method": own.all, "proposals": own.of_proposals(), "oracle": oracles}
    metrics |= {name: figures for name, figures in said.items() if figures}
    write_json(layout.METRICS / "score.json", headline_of_labels(metrics, own), indent=2)
    write_json(DETAIL / "score.json", metrics, indent=2)
    write_json(layout.METRICS / "plots" / "labels_by_class.json", bars(metrics.get("train", {})), indent=2)
    write_json(layout.METRICS / "plots" / "moments.json", measure_moments(data / "moments.json"), indent=2)
    write_json(layout.METRICS / "plots" / "rounds.json", round_rows(metrics.get("train", {}).get("maps", {})), indent=2)
    print_figures("score", metrics)


if __name__ == "__main__":
    run_stage(main, __doc__)

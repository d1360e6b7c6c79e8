"""Print the figures that matter most as a small table, from metrics/detail/score.json and evaluate.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from stages.evaluation.records import Record, look_up
from stages.evaluation.tables import made_by
from stages.runtime import layout
from stages.runtime.files import read_json

DETAIL = layout.METRICS / "detail"
"""Where `score` and `evaluate` write all figures; docs/metrics.md explains them."""
LINES = {
    "AP^r 25 / 50 / 70 / 75": ("voc.AP25", "voc.AP50", "voc.AP70", "voc.AP75"),
    "AP_vol": ("voc.AP_vol",),
    "COCO AP / AP50 / AP75": ("coco.AP", "coco.AP50", "coco.AP75"),
    "LVIS AP / APr / APc / APf": ("lvis.AP", "lvis.APr", "lvis.APc", "lvis.APf"),
    "PQ / SQ / DQ": ("panoptic.PQ", "panoptic.SQ", "panoptic.DQ"),
    "PQ all / things / stuff": ("panoptic_output.all.PQ", "panoptic_output.things.PQ", "panoptic_output.stuff.PQ"),
    "mIoU (masks, painted)": ("painted.mIoU",),
    "mIoU (semantic labels)": ("semantic.mIoU",),
    "mean IoU per object": ("objects.mean_iou",),
    "recall at IoU .5": ("objects.recall50",),
    "objects / labels": ("objects.objects", "objects.labels"),
    "retention of AP50 / AP": ("retention.voc.AP50", "retention.coco.AP"),
    "annotation, s per image": ("annotation.seconds_per_image",),
    "MWCov / MUCov": ("coverage.mwcov", "coverage.mucov"),
}
ORACLES = {"proposal": "the best proposal", "mask": "the true mask"}
PLACES = {"val": "what the method located on val", "objects": "every object of val"}


def shown(value: float | None) -> str:
    """A number for reading: counts whole, the rest with one decimal; a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def lines(title: str, metrics: Record) -> str:
    """The figures of one metrics mapping, one line each; the reason where there are none."""
    if not metrics.get("available"):
        return f"{title}: no numbers ({metrics.get('reason', 'not measured')})"
    rows = [title]
    for label, paths in LINES.items():
        values = [look_up(metrics, path) for path in paths]
        if any(value is not None for value in values):
            rows.append(f"  {label:<26}" + " / ".join(shown(value) for value in values))
    return "\n".join(rows)


def print_figures(stage: str, metrics: Record) -> None:
    """Print the most important of a stage's figures, those of ``score`` split by split."""
    titles = {"train": "pseudo-labels against the truth of the training images, in percent",
              "val": "pseudo-labels against the truth of the validation images, in percent",
              "val_points": "pseudo-labels from the annotated points of the validation images, in percent"}
    splits = [split for split in titles if split in metrics]
    for split in splits:
        print(lines(titles[split], {"available": 1, **metrics[split]}))
    for place, rows in metrics.get("oracle", {}).items():
        for row, figures in rows.items():
            print(lines(f"oracle: {ORACLES[row]} in the place of {PLACES[place]}, in percent",
                        {"available": 1, **figures}))
    if "proposals" in metrics:
        print(made_by(metrics["proposals"]))
    if not splits:
        name = "pseudo-labels" if stage == "score" else "the detector against the truth of the validation images"
        print(lines(f"{name}, in percent" if metrics.get("available") else name, metrics))


def main() -> None:
    """``python -m stages.evaluation.table [--metrics metrics]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, default=layout.METRICS, help="folder (default: %(default)s)")
    folder = parser.parse_args().metrics
    for stage in ("score", "evaluate"):
        path = folder / DETAIL.name / f"{stage}.json"
        if path.exists():
            print_figures(stage, read_json(path))


if __name__ == "__main__":
    main()

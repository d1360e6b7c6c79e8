"""The few numbers that DVC tracks as metrics, taken out of all figures. docs/metrics.md says what each one means.

A reviewer reads them in ``dvc metrics diff``: at most 25 over both files, by the names that people say.
"""

from __future__ import annotations

from stages.evaluation.records import Metrics, Record, look_up, pick
from stages.labels.figures import Figures

LABELS = {"AP25": "voc.AP25", "AP50": "voc.AP50", "AP": "coco.AP", "object_mIoU": "objects.mean_iou",
          "recall": "objects.recall50", "separated_mIoU": "separated.mean_iou", "semantic_mIoU": "semantic.mIoU"}
"""Names and places of the figures of pseudo-labels."""
PANOPTIC = {"PQ": "all.PQ", "PQ_things": "things.PQ", "PQ_stuff": "stuff.PQ"}
"""Names and places of the figures of a panoptic output; they take the room of :data:`LESS` in the headline."""
LESS = ("AP25", "separated_mIoU")
DETECTOR = {"AP25": "voc.AP25", "AP50": "voc.AP50", "AP": "coco.AP", "LVIS_AP": "lvis.AP", "PQ": "panoptic.PQ"}
RETENTION = {"AP50": "retention.voc.AP50", "AP": "retention.coco.AP"}
ANNOTATION = ("seconds_per_image", "proposals", "proposals_trained_on_masks")
NO_REFERENCE = "unknown before a run with method: masks"

BARS = {"AP50": "AP50", "AP": "coco_AP", "object_mIoU": "mean_iou"}
"""Names and places of what is drawn for each class."""


def headline_of_labels(detail: Record, own: Figures) -> Metrics:
    """``labels``, ``labels_val`` if the method makes those, ``panoptic`` (or ``panoptic_val``, where the method makes
    that) if it has a panoptic output, ``method`` with the method's own figures, and ``proposals``: who made them, and
    whether from masks, if it uses any.

    Args:
        detail: all figures, as metrics/detail/score.json holds them.
        own: what the method says of itself.
    """
    result: Metrics = {}
    output = next(((name, detail[split]["panoptic_output"])
                   for name, split in (("panoptic_val", "val"), ("panoptic", "train"))
                   if look_up(detail, f"{split}.panoptic_output.available")), None)
    wanted = {name: place for name, place in LABELS.items() if output is None or name not in LESS}
    for name, split in (("labels", "train"), ("labels_val", "val")):
        reason = detail.get(f"{split}_reason", detail.get("reason") if split == "train" else None)
        if split in detail:
            result[name] = pick(detail[split], wanted)
        elif reason is not None:
            result[name] = f"no truth: {reason}"
    if output is not None:
        result[output[0]] = pick(output[1], PANOPTIC)
    if own.headline:
        result["method"] = dict(own.headline)
    if own.proposals is not None:
        result["proposals"] = {name: own.proposals[name] for name in ("provider", "trained_on_masks")}
    return result


def headline_of_detector(detail: Record) -> Metrics:
    """``detector``, ``retention`` and ``annotation`` out of all figures, as metrics/detail/evaluate.json holds them."""
    # Who made the proposals belongs here: masks that they were trained on are annotation, too.
    annotation = {name: detail["annotation"][name] for name in ANNOTATION if name in detail["annotation"]}
    if not detail["available"]:
        return {"detector": f"no truth: {detail['reason']}", "annotation": annotation}
    known = look_up(detail, "retention.available")
    return {"detector": pick(detail, DETECTOR), "retention": pick(detail, RETENTION) if known else NO_REFERENCE,
            "annotation": annotation}


def bars(metrics: Record) -> list[dict[str, str | float]]:
    """A row per class that has objects, for the bars of ``dvc plots``; none where nothing was measured."""
    rows = ((name, pick(values, BARS)) for name, values in metrics.get("classes", {}).items())
    return [{"class": name, **values} for name, values in rows if len(values) == len(BARS)]

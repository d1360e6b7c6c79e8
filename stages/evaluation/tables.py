"""The numbers of the metrics files, arranged for reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from stages.evaluation.records import Record, look_up

DASH = "–"

ROWS: dict[str, dict[str, tuple[str, str]]] = {
    "AP by the VOC protocol": {
        "IoU .25": ("voc.AP25", ""), "IoU .5": ("voc.AP50", ""), "IoU .7": ("voc.AP70", ""),
        "IoU .75": ("voc.AP75", ""), "AP_vol": ("voc.AP_vol", "IoU .1 to .9")},
    "AP by the COCO protocol": {
        "AP": ("coco.AP", "IoU .5 to .95"), "AP50": ("coco.AP50", ""), "AP75": ("coco.AP75", ""),
        "Small objects": ("coco.AP_small", ""), "Medium objects": ("coco.AP_medium", ""),
        "Large objects": ("coco.AP_large", "")},
    "AP by the LVIS protocol": {
        "AP": ("lvis.AP", "IoU .5 to .95"), "AP50": ("lvis.AP50", ""), "AP75": ("lvis.AP75", ""),
        "Rare classes": ("lvis.APr", ""), "Common classes": ("lvis.APc", ""), "Frequent classes": ("lvis.APf", ""),
        "Small objects": ("lvis.APs", ""), "Medium objects": ("lvis.APm", ""), "Large objects": ("lvis.APl", "")},
    "Masks and pixels": {
        "PQ": ("panoptic.PQ", "things"), "SQ": ("panoptic.SQ", "things"), "DQ": ("panoptic.DQ", "things"),
        "PQ with stuff": ("panoptic.with_stuff.PQ", ""),
        "PQ, panoptic output": ("panoptic_output.all.PQ", "things and stuff"),
        "PQ of things": ("panoptic_output.things.PQ", "panoptic output"),
        "PQ of stuff": ("panoptic_output.stuff.PQ", "panoptic output"),
        "Mean IoU per object": ("objects.mean_iou", "0 without a label"), "Recall at IoU .5": ("objects.recall50", ""),
        "mIoU, masks painted": ("painted.mIoU", "with background"),
        "mIoU, semantic labels": ("semantic.mIoU", "with background"),
        "Coverage weighted by area": ("coverage.mwcov", "MWCov"), "Coverage": ("coverage.mucov", "MUCov")},
    "Counts": {
        "Objects": ("objects.objects", ""), "Labels": ("objects.labels", ""),
        "Undecided regions": ("objects.undecided_regions", ""), "Images": ("objects.images", ""),
        "Images without labels": ("objects.images_without_labels", "")},
}

CLASS_COLUMNS = {"Objects": "objects", "Labels": "labels", "AP50": "AP50", "AP75": "AP75", "COCO AP": "coco_AP",
                 "Mean IoU": "mean_iou", "Recall": "recall50", "PQ": "PQ", "IoU": "IoU"}
"""Columns of the table per class: heading and key."""


@dataclass(frozen=True)
class Cell:
    """A number as text; ``share`` (0..100) draws a bar behind percentages, None draws none."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A heading, column headings and rows of (name, note, cells)."""

    title: str
    columns: list[str]
    rows: list[tuple[str, str, list[Cell]]]


def cell(value: object, bar: bool = False) -> Cell:
    """Counts whole, percentages with one decimal, a dash for what was not measured."""
    if not isinstance(value, (int, float)):
        return Cell(DASH)
    if isinstance(value, int):
        return Cell(f"{value:,}".replace(",", "\u202f"))
    return Cell(f"{value:.1f}", min(100.0, max(0.0, value)) if bar else None)


def columns(score: Record, evaluate: Record) -> dict[str, Record]:
    """What was measured, by column heading."""
    found = {"Pseudo-labels, train": score.get("train"), "Pseudo-labels, val": score.get("val"),
             "Pseudo-labels, val, annotated points": score.get("val_points"),
             "Detector, val": evaluate if evaluate.get("available") else None}
    return {heading: metrics for heading, metrics in found.items() if metrics}


def oracles(score: Record) -> dict[str, Record]:
    """What the truth makes of val, where that was asked for, by column heading."""
    return {f"Oracle {row}, {'objects' if place == 'objects' else 'locations'} of val": metrics
            for place, rows in score.get("oracle", {}).items() for row, metrics in rows.items()}


def reasons(score: Record, evaluate: Record) -> list[str]:
    """Why numbers are missing, if any are."""
    found = [(f"Pseudo-labels of the {'training' if split == 'train' else 'validation'} images", score.get(key))
             for split, key in (("train", "train_reason"), ("val", "val_reason"))]
    found += [(name, metrics.get("reason")) for name, metrics in
              (("Pseudo-labels", score), ("Detector", evaluate)) if not metrics.get("available")]
    sentences = [f"{name}: no numbers, because {reason}." for name, reason in found if reason]
    if look_up(evaluate, "retention.reason"):
        sentences.append(f"Retention: {look_up(evaluate, 'retention.reason')}.")
    return sentences


def cards(score: Record, evaluate: Record) -> list[tuple[str, str, str]]:
    """The few numbers that say most: (label, value, note)."""
    wanted = [
        ("Pseudo-label AP50", score, "train.voc.AP50", "training images, VOC protocol"),
        ("Mean IoU per object", score, "train.objects.mean_iou", "training images"),
        ("Panoptic PQ", score, "val.panoptic_output.all.PQ", "validation images, things and stuff"),
        ("Detector AP50", evaluate, "voc.AP50", "validation images, VOC protocol"),
        ("Detector AP", evaluate, "coco.AP", "validation images, COCO protocol"),
        ("Detector LVIS AP", evaluate, "lvis.AP", "validation images, LVIS protocol"),
        ("Detector PQ", evaluate, "panoptic.PQ", "validation images, things"),
        ("Retention of AP50", evaluate, "retention.voc.AP50", "of the same detector trained on masks"),
        ("Annotation", evaluate, "annotation.seconds_per_image", "seconds per image"),
        ("Proposals trained on masks", score, "proposals.trained_on_masks",
         f"by {look_up(score, 'proposals.provider')}; 0: no, 1: yes"),
    ]
    found = [(label, cell(look_up(metrics, path)).text, note) for label, metrics, path, note in wanted]
    return [card for card in found if card[1] != DASH]


def figures(score: Record, evaluate: Record) -> list[Table]:
    """All figures over all classes, side by side for labels and detector."""
    measured = columns(score, evaluate) | oracles(score)
    tables = []
    for title, lines in ROWS.items():
        rows = [(name, note, [cell(look_up(metrics, path)) for metrics in measured.values()])
                for name, (path, note) in lines.items()]
        rows = [row for row in rows if any(item.text != DASH for item in row[2])]
        tables += [Table(title, list(measured), rows)] if rows else []
    return tables


def classes(score: Record, evaluate: Record) -> list[Table]:
    """One table per column of :func:`figures`, a row per class."""
    tables = []
    for heading, metrics in columns(score, evaluate).items():
        rows = [(name, "", [cell(values.get(key), bar=True) for key in CLASS_COLUMNS.values()])
                for name, values in metrics["classes"].items()]
        tables.append(Table(heading, list(CLASS_COLUMNS), rows))
    return tables


def groups(score: Record, evaluate: Record) -> list[Table]:
    """Objects by size, and those in several parts."""
    tables = []
    for heading, metrics in columns(score, evaluate).items():
        parts = {name.capitalize(): values for name, values in metrics["size"].items()}
        parts["In several parts"] = metrics["separated"]
        rows = [(name, "", [cell(values.get(key), bar=True) for key in ("objects", "mean_iou", "recall50")])
                for name, values in parts.items()]
        tables.append(Table(heading, ["Objects", "Mean IoU", "Recall"], rows))
    return tables


def flat(metrics: object, prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, text) pairs."""
    if isinstance(metrics, Mapping):
        return [pair for key, value in metrics.items() for pair in flat(value, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, f"{metrics:.4g}" if isinstance(metrics, float) else str(metrics))]


def made_by(proposals: Record) -> str:
    """Who made a method's proposals, and whether from masks: a clause for the reader."""
    trained = "trained on masks" if proposals["trained_on_masks"] else "not trained on masks"
    tuned = proposals["tuned_on_masks"] and not proposals["trained_on_masks"]
    return f"proposals by {proposals['provider']}, {trained}" + ", a few weights chosen with masks" * bool(tuned)


def summary(params: Record, facts: Record, proposals: Record | None = None) -> str:
    """One line about the data, and about the proposals where the method uses any."""
    dataset = params.get("dataset") or {}
    kinds = (params.get("annotations") or {}).get("kinds") or ["tags"]
    stuff = f" and {facts['stuff']} of stuff" if facts.get("stuff") else ""
    budget = f" for {dataset['budget_seconds']:g} s" if dataset.get("budget_seconds") else ""
    return (f"{dataset.get('kind', 'shapes')}: {facts.get('train', 0)} training and {facts.get('val', 0)} validation "
            f"images, {facts.get('things', 0)} classes of things{stuff}; annotated with "
            f"{', '.join(str(kind).replace('_', ' ') for kind in kinds)}{budget}"
            + (f"; {made_by(proposals)}" if proposals else ""))


def sections(params: Record) -> list[tuple[str, str]]:
    """The top-level sections of params.yaml as YAML text."""
    return [(name, yaml.safe_dump(value, sort_keys=False, allow_unicode=True).removesuffix("...\n").rstrip())
            for name, value in params.items()]

"""The page that shows a run: everything that the report holds, put together as HTML."""

from __future__ import annotations

from stages.evaluation import gallery, tables
from stages.evaluation.curves import read_curves, svg
from stages.evaluation.inputs import read_labels, read_predictions, read_truth
from stages.evaluation.matching import by_image
from stages.evaluation.records import Metrics, Record
from stages.evaluation.settings import ReportSettings
from stages.evaluation.table import DETAIL
from stages.evaluation.templates import fill
from stages.labels.coco import read_coco
from stages.labels.figures import figures_path, read_figures
from stages.runtime import layout
from stages.runtime.files import read_json

LOADED_BY_NAME = ("stages/evaluation/report.html.j2",)
"""A file that is no module and of which the page is made; a change of it reruns the report."""


def render(method: str, settings: ReportSettings, params: Record) -> str:
    """The page as HTML; ``params`` is the content of params.yaml."""
    score, evaluate = metrics_of("score"), metrics_of("evaluate")
    trainings: dict[str, list[tuple[str, str]]] = {}
    for curve in read_curves(layout.method_models(method)):
        trainings.setdefault(curve.training, []).append((curve.name, svg(curve)))
    entries, facts = galleries(method, settings)
    return fill(
        "report.html.j2", method=method, params=tables.sections(params),
        summary=tables.summary(params, facts, score.get("proposals")),
        cards=tables.cards(score, evaluate), reasons=tables.reasons(score, evaluate),
        figures=tables.figures(score, evaluate), classes=tables.classes(score, evaluate),
        groups=tables.groups(score, evaluate), further=further_metrics(method), trainings=trainings, galleries=entries)


def metrics_of(stage: str) -> Metrics:
    """All figures of a stage; where the stage has not run, the reason."""
    path = DETAIL / f"{stage}.json"
    return read_json(path) if path.exists() else {"available": 0, "reason": f"the stage {stage} has not run"}


def further_metrics(method: str) -> dict[str, list[tuple[str, str]]]:
    """What the method says of itself (figures.json)."""
    own = tables.flat(read_figures(figures_path(method)).all)
    return {"figures of the method": own} if own else {}


def galleries(method: str, settings: ReportSettings) -> tuple[dict[str, list[gallery.Entry]], dict[str, int]]:
    """Gallery entries by heading, and what the page's first line says of the data."""
    folder = layout.method_data(method) / "gallery"
    every_panel = gallery.read_panels(folder)
    result: dict[str, list[gallery.Entry]] = {}
    facts: dict[str, int] = {}
    for split, heading, limit in (("train", "Training images", settings.gallery_images),
                                  ("val", "Validation images", settings.validation_images)):
        weak, truth = read_coco(layout.WEAK[split]), read_truth(layout.TRUTH[split])
        labels, predictions = layout.pseudo_labels(method, split), layout.predictions(method)
        has_predictions = split == "val" and predictions.exists()
        sources = gallery.Sources(
            # Tags alone stand beside the title; a picture of them would be the image again.
            weak=by_image(weak["annotations"]) or None,
            labels=by_image(read_labels(labels, truth)) if labels.exists() else None,
            truth=None if truth.reason else by_image(truth.annotations),
            predictions=by_image(read_predictions(predictions, truth)) if has_predictions else None,
            names=truth.names(), things=frozenset(truth.things))
        panels = [panel for panel in every_panel if panel.get("split", "train") == split]
        chosen = gallery.choose(weak["images"], [panel["image_id"] for panel in panels], limit)
        result[heading] = [gallery.entry(
            image, sources, [panel for panel in panels if panel["image_id"] == image["id"]], folder,
            settings.picture_width, settings.min_score) for image in chosen]
        facts[split] = len(weak["images"])
        facts["things"], facts["stuff"] = len(truth.things), len(truth.stuff)
    return {heading: entries for heading, entries in result.items() if entries}, facts

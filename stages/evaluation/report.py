"""Write metrics/report/index.html: settings, numbers, training curves and a gallery of this run, on one page.

The page is one file without scripts and without anything from elsewhere: open it, mail it, attach it to a review.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.runtime import layout
from stages.runtime.stage import run_stage

REPORT = layout.METRICS / "report"


def main(params: Path) -> None:
    """Read what the run left and write the page."""
    from stages.evaluation.settings import ReportSettings
    from stages.runtime.files import write_text
    from stages.runtime.settings import load_settings, read_yaml

    settings = load_settings(params, method=str, report=ReportSettings)
    page = render(settings.method, settings.report, read_yaml(params))
    write_text(REPORT / "index.html", page)
    print(f"{REPORT / 'index.html'}: {len(page) / 1e6:.1f} MB")


def render(method: str, settings: Any, params: Mapping[str, Any]) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from stages.evaluation import tables
    from stages.evaluation.curves import read_curves, svg

    score, evaluate = metrics_of("score"), metrics_of("evaluate")
    trainings: dict[str, list[tuple[str, str]]] = {}
    for curve in read_curves(layout.method_models(method)):
        trainings.setdefault(curve.training, []).append((curve.name, svg(curve)))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    entries, names = galleries(method, settings)
    return environment.get_template("report.html.j2").render(
        method=method, params=tables.sections(params), summary=tables.summary(params, names),
        cards=tables.cards(score, evaluate), reasons=tables.reasons(score, evaluate),
        figures=tables.figures(score, evaluate), classes=tables.classes(score, evaluate),
        groups=tables.groups(score, evaluate), further=further_metrics(method), trainings=trainings, galleries=entries)


def metrics_of(stage: str) -> dict[str, Any]:
    """A stage's metrics; where the stage has not run, the reason."""
    from stages.runtime.files import read_json

    path = layout.METRICS / f"{stage}.json"
    return read_json(path) if path.exists() else {"available": 0, "reason": f"the stage {stage} has not run"}


def further_metrics(method: str) -> dict[str, list[tuple[str, str]]]:
    """What the method's own stages measured (metrics/<method>_<name>.json), flat."""
    from stages.evaluation.tables import flat
    from stages.runtime.files import read_json

    return {path.stem.removeprefix(f"{method}_"): flat(read_json(path))
            for path in sorted(layout.METRICS.glob(f"{method}_*.json"))}


def galleries(method: str, settings: Any) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Gallery entries by heading, and what the page's first line says of the data."""
    from stages.evaluation import gallery
    from stages.evaluation.inputs import read_predictions, read_truth
    from stages.evaluation.matching import by_image
    from stages.labels.coco import read_coco

    folder = layout.method_data(method) / "gallery"
    every_panel = gallery.read_panels(folder)
    result: dict[str, list[Any]] = {}
    facts: dict[str, Any] = {}
    for split, heading, limit in (("train", "Training images", settings.gallery_images),
                                  ("val", "Validation images", settings.validation_images)):
        weak, truth = read_coco(layout.WEAK[split]), read_truth(layout.TRUTH[split])
        labels, predictions = layout.pseudo_labels(method), layout.predictions(method)
        has_labels, has_predictions = split == "train" and labels.exists(), split == "val" and predictions.exists()
        sources = gallery.Sources(
            # Tags alone stand beside the title; a picture of them would be the image again.
            weak=by_image(weak["annotations"]) or None,
            labels=by_image(read_coco(labels)["annotations"]) if has_labels else None,
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


if __name__ == "__main__":
    run_stage(main, __doc__)

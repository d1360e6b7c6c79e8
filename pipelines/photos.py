"""Run a method on a folder of photographs, from weak labels to an evaluated detector:
`make photos METHOD=irnet ROOT=... WEIGHTS=...`.

ROOT holds instances_train.json, instances_val.json and images/. Where there is a pipelines/<method>/photos.yaml, its
rows are run as well, up to the labels' score: what the method is to be compared with. Writes
metrics/photos/<method>.json; works in a workspace of its own and leaves params.yaml, dvc.lock and data/ alone.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipelines.ablation_plan import known
from pipelines.settings import METHODS, with_method
from pipelines.workspace import ROOT, Tree, Workspace, changed, end_with_descendants, look_up, provenance
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.runtime.settings import nearest, read_yaml
from stages.runtime.stage import errors_as_lines


def _of_large_objects(place: str) -> tuple[str, dict[str, str]]:
    """Figures of labels of val at a place in the detail: AP of all objects, and AP and mean IoU of those of at least
    32 x 32 px."""
    return ("metrics/detail/score.json", {
        "ap50": f"{place}.voc.AP50", "coco_ap": f"{place}.coco.AP",
        "ap50_large": f"{place}.coco.AP50_medium_and_large", "coco_ap_large": f"{place}.coco.AP_medium_and_large",
        "mean_iou_per_object": f"{place}.size.medium_and_large.mean_iou",
        "objects": f"{place}.size.medium_and_large.objects",
        "mean_iou_separated": f"{place}.separated.medium_and_large.mean_iou",
        "separated": f"{place}.separated.medium_and_large.objects"})


FIGURES: dict[str, tuple[str, dict[str, str]]] = {
    "labels_train": ("metrics/detail/score.json", {
        "ap25": "train.voc.AP25", "ap50": "train.voc.AP50", "coco_ap": "train.coco.AP", "miou": "train.semantic.mIoU",
        "mean_iou_per_object": "train.objects.mean_iou", "recall50": "train.objects.recall50",
        "mean_iou_separated": "train.separated.mean_iou", "separated": "train.separated.objects",
        "labels": "train.objects.labels", "objects": "train.objects.objects",
        # Of IRNet alone: eq. 5 of its field, of each axis, and of a field of zeros.
        "displacement_error": "method.displacement_error",
        "displacement_error_dy": "method.displacement_error_dy",
        "displacement_error_dx": "method.displacement_error_dx",
        "displacement_error_of_zeros": "method.displacement_error_of_zeros"}),
    # What the same generator makes of images that it never saw, of some methods also from the annotated points.
    "labels_val": _of_large_objects("val"),
    "labels_val_points": _of_large_objects("val_points"),
    # The best proposal of every object, where a row has score.oracle: [proposal].
    "oracle_val": _of_large_objects("oracle.objects.proposal"),
    "detector_val": ("metrics/detail/evaluate.json", {
        "ap25": "voc.AP25", "ap50": "voc.AP50", "coco_ap": "coco.AP", "miou": "painted.mIoU", "pq": "panoptic.PQ"}),
}


def run(method: str, root: Path, weights: str | None, preset: Path, changes: Tree,
        chosen: Sequence[str] | None = None) -> Tree:
    """Run the chain, before it the rows of the method's photos.yaml, or the chosen ones, and collect the figures.

    The rows come first, so that the workspace and its report are left as the chain itself makes them; what they share
    with it is made once.
    """
    if method not in METHODS:
        raise UserError(f"METHOD={method}: unknown method{nearest(method, list(METHODS))} "
                        f"(allowed: {', '.join(METHODS)})")
    params = changed(with_method(read_yaml(preset), method), {"dataset.root": str(root.resolve()), **changes})
    shown = changed(params, {"dataset.root": root.name})
    file = Path(weights) if weights is not None else None
    if file is not None and not file.is_file():
        raise UserError(f"WEIGHTS={weights}: no such file")
    params = _with_weights(params, str(file.resolve()) if file else "imagenet")
    shown = _with_weights(shown, file.name if file else "imagenet")
    plan = ROOT / "pipelines" / method / "photos.yaml"
    rows = read_yaml(plan)["rows"] if plan.exists() else {}
    known("ROWS", list(chosen or ()), list(rows))
    rows = {name: row for name, row in rows.items() if chosen is None or name in chosen}
    workspace = Workspace(f"photos-{method}")
    seconds, ran = 0.0, 0
    found: Tree = {}
    for row, change in rows.items():
        done = workspace.reproduce(changed(params, change["set"]), "score")
        seconds, ran = seconds + done.seconds, ran + len(done.ran)
        found |= {f"{group}_{row}": _figures(workspace, group) for group in FIGURES if group != "detector_val"}
    done = workspace.reproduce(params, "report")
    seconds, ran = seconds + done.seconds, ran + len(done.ran)
    found |= {group: _figures(workspace, group) for group in FIGURES}
    found |= {f"maps_train_{name}": figures["things"] for name, figures in _maps(workspace).items()}
    found = {row: figures for row, figures in found.items() if figures}
    score = workspace.read("metrics/detail/score.json")
    found |= {"method": score["method"]} if score.get("method") else {}
    found["all"] = {"seconds": round(seconds, 1), "stages": ran}
    print(f"report: {workspace.folder / 'metrics/report/index.html'}")
    proposals = score.get("proposals")
    return {**found, "run": {**provenance(shown), **({"rows": rows} if rows else {}),
                             **({"proposals": proposals} if proposals else {})}}


def _maps(workspace: Workspace) -> dict[str, Tree]:
    """The label maps that a method keeps on its way, as far as `score` compared their things with the truth."""
    maps = workspace.read("metrics/detail/score.json").get("train", {}).get("maps", {})
    return {name: figures for name, figures in maps.items() if "things" in figures}


def _figures(workspace: Workspace, group: str) -> dict[str, float]:
    """One group of FIGURES, as the workspace's metrics have it now."""
    path, figures = FIGURES[group]
    content = workspace.read(path)
    values = {name: look_up(content, place) for name, place in figures.items()}
    return {name: value for name, value in values.items() if value is not None}


def _with_weights(params: Tree, weights: str) -> Tree:
    """Every `weights: FILE` of the preset becomes the given file."""
    return {key: _with_weights(value, weights) if isinstance(value, dict)
            else weights if key == "weights" and value == "FILE" else value for key, value in params.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="folder below pipelines/")
    parser.add_argument("root", type=Path, help="folder with instances_train.json, instances_val.json and images/")
    parser.add_argument("--weights", help="file that takes the place of FILE in the preset (default: what timm "
                                          "downloads)")
    parser.add_argument("--preset", type=Path, default=ROOT / "pipelines/presets/photos.yaml")
    parser.add_argument("--rows", nargs="*", help="only these rows beside the method; the file then holds no others")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further changes of params.yaml")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    signal.signal(signal.SIGTERM, end_with_descendants)
    print(f"photographs by {arguments.method}; `check` says how long the method itself may take", flush=True)
    with errors_as_lines():
        results = run(arguments.method, arguments.root, arguments.weights, arguments.preset, changes, arguments.rows)
        path = ROOT / "metrics" / "photos" / f"{arguments.method}.json"
        write_json(path, results, indent=2)
    for row, figures in results.items():
        if row != "run":
            print(row, {name: value for name, value in figures.items() if not isinstance(value, dict)})
    print(f"-> {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""Refuse what cannot work, before anything runs, and say what will run: stages, device, rough time and disk.

Reads params.yaml as a whole and all code; writes data/check, whose content never changes, so that other stages run
again only where their own settings changed, and data/code, what code and settings each stage runs with.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.code import check_dependencies, write_fingerprints
from pipelines.panoptic.settings import box_detector
from pipelines.settings import IRNET_FIELDS, SEMANTIC_MAPS, load_params, maps_maker, methods_run, taken, wants_proposals
from stages.detector import costs as detector_costs
from stages.detector import engines
from stages.prepare.budget import budget_of
from stages.prepare.counts import training_images
from stages.prepare.kinds import needed_paths
from stages.proposals import costs as proposal_costs
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_text
from stages.runtime.machine import Machine
from stages.runtime.parallel import worker_count
from stages.runtime.settings import nearest, read_yaml
from stages.runtime.stage import run_stage

OUTPUT = Path("data/check")
_PIXELS = {"coco": 640.0 * 480, "lvis": 640.0 * 480, "panoptic": 640.0 * 480, "cityscapes": 2048.0 * 1024,
           "kitti": 1242.0 * 375}
# What full supervision reached, for retention: `evaluate` of the method masks writes it, those of the others depend on
# it. It is nobody's output, because it outlives the runs of any one method.
REFERENCE = Path("metrics/reference.json")


def main(params: Path) -> None:
    """Check and describe."""
    settings = load_params(params)
    check_dependencies()
    check_dataset(settings)
    check_maps(settings)
    check_proposals(settings)
    check_weights(settings)
    check_machine(settings)
    check_engine(settings)
    # Here, because it imports torch and timm: a mistyped path is refused at once.
    from pipelines.networks import check_downloads, check_networks

    warnings = check_downloads(settings)
    check_networks(settings)
    for line in [*describe(settings), *(f"warning   {line}" for line in warnings)]:
        print(line)
    if not REFERENCE.exists():
        write_text(REFERENCE, "{}\n")
    write_fingerprints(settings)
    write_text(OUTPUT, "checked\n")


def check_dataset(settings: SimpleNamespace) -> None:
    """Files and folders that `prepare` cannot do without."""
    for path in needed_paths(settings.dataset):
        if not path.exists():
            raise UserError(f"dataset: {path} does not exist (dataset.kind: {settings.dataset.kind}, "
                            f"dataset.root: {settings.dataset.root}); correct dataset.root or the paths below it")


def check_maps(settings: SimpleNamespace) -> None:
    """Semantic maps that the chosen method takes from elsewhere; those of other methods are made on the way."""
    folder = Path(settings.bestie.maps.folder)
    if settings.method != "bestie" or maps_maker(settings.method, folder):
        return
    if not folder.is_dir():
        made = [str(path) for path in SEMANTIC_MAPS]
        raise UserError(f"bestie.maps.folder: there is no folder {folder}{nearest(str(folder), made)}; put one PNG of "
                        f"category ids per training image there, or write {' or '.join(made)}, which other methods of "
                        f"this project make on the way")
    if not any(path.suffix == ".png" for path in folder.iterdir()):
        raise UserError(f"bestie.maps.folder: {folder} holds no PNG; put one of category ids per training image there, "
                        f"named by its id in twelve digits")


def check_proposals(settings: SimpleNamespace) -> None:
    """The file of proposals, if the chosen method wants one; and nothing is to be said of them if it wants none."""
    chosen = settings.proposals
    if "proposal" in settings.score.oracle and not wants_proposals(settings.method):
        raise UserError(f"score.oracle: proposal needs a method that uses proposals, {settings.method} uses none; "
                        f"remove it")
    wanted = any(wants_proposals(method) for method in methods_run(settings))
    if chosen.provider == "file" and wanted and not Path(chosen.source).exists():
        raise UserError(f"proposals.source: there is no {chosen.source}; name a file of COCO results, or a folder of "
                        f"such files, or set proposals.provider: hierarchy and proposals.source: {layout.IMAGES}")
    for kind, folder in chosen.maps.folders().items() if wanted else ():
        made = [str(IRNET_FIELDS)] if kind == "boundary" else []
        if not folder.is_dir() and str(folder) not in made:
            either = f", or {made[0]}, which this project's IRNet makes on the way" if made else ""
            raise UserError(f"proposals.maps.{kind}: there is no folder {folder}{nearest(str(folder), made)}; put one "
                            f".npz per image there, or write {layout.IMAGES}, which stands for none{either}")


def weights_of(value: object, where: str) -> list[tuple[str, str]]:
    """(key, value) of every `weights` setting below a model."""
    found = []
    for name in getattr(type(value), "model_fields", {}):
        item = getattr(value, name)
        if name == "weights":
            found.append((f"{where}.{name}", str(item)))
        else:
            found += weights_of(item, f"{where}.{name}")
    return found


def check_weights(settings: SimpleNamespace) -> None:
    """Weights that are files must exist; the chosen method's and engine's only."""
    used = [*(found for method in methods_run(settings)
              for found in weights_of(getattr(settings, method, None), method)),
            *weights_of(getattr(settings.detector, settings.detector.engine), f"detector.{settings.detector.engine}")]
    for key, value in used:
        if value not in ("imagenet", "none") and not Path(value).is_file():
            raise UserError(f"{key}: no such weights file: {value}; give a file, 'imagenet' or 'none'")


def check_machine(settings: SimpleNamespace) -> None:
    """Write access, and a device for each training process."""
    for folder in (Path(), Path("data"), Path("metrics"), Path("models")):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder.resolve()}: this user may not write there; change the folder's owner or rights, "
                            f"or work in a copy of the project")
    from stages.runtime import devices

    device, processes = devices.resolve(settings.runtime.device), settings.runtime.processes
    if device.type == "cuda":
        devices.check_count(processes)
    elif processes > (os.cpu_count() or 1):
        raise UserError(f"runtime.processes: {processes} training processes on {os.cpu_count()} cores; use at most one "
                        f"for each core")


def check_engine(settings: SimpleNamespace) -> None:
    """The chosen engine must be installed, and able to make the network, and the panoptic method's box detector."""
    engines.check(settings.detector)
    if settings.method == "panoptic":
        engines.check(box_detector(settings.panoptic.detector, settings.detector), "panoptic.detector")


def count_images(settings: SimpleNamespace) -> tuple[int, float]:
    """About how many training images there are, and how many pixels each has."""
    dataset = settings.dataset
    shapes = float(dataset.shapes.width * dataset.shapes.height)
    count, pixels = training_images(dataset), {"shapes": shapes, **_PIXELS}.get(dataset.kind, 500.0 * 375)
    budget = budget_of(dataset, settings.method, settings.annotations.model_dump(), settings.evaluate.model_dump())
    count = min(count, budget.images if budget else count)
    return min(count, dataset.limit or count), pixels


def stages_for(stages: Mapping[str, Any], wanted: Sequence[Path]) -> list[str]:
    """The stages of a dvc.yaml that lead to some of their outputs, in the file's order."""
    paths, names = {str(path) for path in wanted}, set[str]()
    while True:
        more = {name for name, stage in stages.items() if paths & set(map(str, stage.get("outs", [])))} - names
        if not more:
            return [name for name in stages if name in names]
        names |= more
        paths |= {dep for name in more for dep in stages[name]["deps"]}


def describe(settings: SimpleNamespace) -> list[str]:
    """What will run, where, and roughly for how long."""
    from pipelines.rehearsal.quote import quote
    from stages.runtime import devices

    device = devices.resolve(settings.runtime.device)
    workers = worker_count(settings.runtime.workers)
    machine = Machine(device.type, workers, settings.runtime.processes, settings.runtime.precision)
    images, pixels = count_images(settings)
    others = taken(settings)
    seconds, size, chain = 0.0, images * pixels * 0.5, list[str]()
    for method in [*others, settings.method]:
        own = read_yaml(Path("pipelines") / method / "dvc.yaml")["stages"]
        if wants_proposals(method):
            took, kept = proposal_costs.estimate(settings.proposals, images, pixels, workers)
            seconds, size, chain = seconds + took, size + kept, [*chain, "propose"]
        # What the chosen one needs of another, and no pictures.
        chain += [f"{method}'s {name}" for name in stages_for(own, others[method])] if method in others else list(own)
        if (Path("pipelines") / method / "costs.py").exists():
            costs = importlib.import_module(f"pipelines.{method}.costs")
            took, kept = costs.estimate(getattr(settings, method), images, pixels, machine)
            seconds, size = seconds + took, size + kept
    took, kept = detector_costs.estimate(settings.detector, machine)
    seconds, size = seconds + took, size + kept
    free = shutil.disk_usage(".").free
    stages = ["prepare", "annotate", *chain, "score", "train", "predict", "evaluate", "report"]
    said = f"{_duration(seconds)}, {size / 1e9:.1f} GB of results (within a factor of three)"
    rehearsed = quote(settings, device, images)
    if rehearsed is not None:
        said = (f"{_duration(rehearsed.seconds)}, {rehearsed.bytes / 1e9:.1f} GB of results (at the pace of the "
                f"rehearsal in {rehearsed.path})")
        size = rehearsed.bytes
    lines = [
        f"method    {settings.method}: {' -> '.join(stages)}",
        f"data      {settings.dataset.kind} ({settings.dataset.root}), about {images} training images; "
        f"labels: {', '.join(settings.annotations.kinds)}",
        f"device    {device}, {workers} workers ({settings.runtime.backend}), "
        f"{settings.runtime.processes} training process(es), detector engine {settings.detector.engine}",
        f"estimate  {said}; {free / 1e9:.0f} GB are free here",
    ]
    if settings.detector.engine == "detectron2" and device.type != "cuda" and settings.runtime.precision != "32-true":
        lines.append(f"warning   runtime.precision {settings.runtime.precision}: Detectron2 has it on CUDA alone, and "
                     f"trains in 32-true here")
    if size > free:
        lines.append("warning   this disk may be too small")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    run_stage(main, __doc__)

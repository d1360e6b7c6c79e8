"""A rehearsal: the chain of a preset, watched, and what comes of it (see ``pipelines/rehearse.py``)."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from pipelines import memory
from pipelines.rehearsal import BUSY, CPU_BATCH, MEMORY, miniatures, projection
from pipelines.rehearsal.quote import code, device_name
from pipelines.rehearsal.shortened import STEPS, Planned, missing_weights, shortened, trainings
from pipelines.rehearsal.watch import Watch
from pipelines.settings import METHODS, checked_params, methods_run, with_method
from pipelines.workspace import ROOT, Tree, Workspace, changed, provenance
from stages.prepare import kinds
from stages.prepare.budget import budget_of
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import select
from stages.runtime import devices, layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.memory import step_memory
from stages.runtime.settings import nearest, read_yaml

LEAST_IMAGES = 3
DISK_OF_TRAINING = 2e9
"""Bytes that a training leaves at most: weights, a checkpoint with the optimizer's state, and their copies."""
LONG = 3.0
"""Seconds of a stage that is long enough for the share of other work in it to be told."""
_OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|out of memory|DefaultCPUAllocator: can't allocate", re.IGNORECASE)


@dataclass
class Rehearsal:
    """One preset and method.

    Args:
        preset: its file.
        method: to rehearse.
        root: folder of the real data set, or none: a miniature is written.
        batch: most samples of a step (None: on a CPU ``CPU_BATCH``, else the preset's).
        memory: bytes that a stage's processes may take (None: on a CPU ``MEMORY``, else any).
        offline: take ``weights: none`` wherever the preset downloads.

    Raises:
        UserError: an unknown preset or method, or settings that are wrong.
    """

    preset: Path
    method: str
    root: Path | None = None
    batch: int | None = None
    memory: float | None = None
    offline: bool = False
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"METHOD={self.method}: unknown method{nearest(self.method, list(METHODS))} "
                            f"(allowed: {', '.join(METHODS)})")
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"ROOT={self.root}: no such folder")
        params = with_method(read_yaml(self.preset), self.method)
        self.params = params if self.root is None else changed(params, {"dataset.root": str(self.root.resolve())})
        self.settings = checked_params(self.preset, self.params)
        self.device = devices.resolve(self.settings.runtime.device)
        self.trainings = trainings(self.settings)
        on_cpu = self.device.type == "cpu"
        if self.memory is None:
            self.memory = min(MEMORY, 0.8 * psutil.virtual_memory().total) if on_cpu else math.inf
        cap = self.batch or (CPU_BATCH if on_cpu else 10 ** 9)
        self.most = {plan.key: min(plan.batch, cap) for plan in self.trainings}
        if any(plan.batch > cap for plan in self.trainings):
            why = "as was asked for" if self.batch else "as on a CPU the preset's own would take hours"
            self.words.append(f"batches of at most {cap}, {why}")
        own = [self.most[plan.key] for plan in self.trainings if not plan.steps]
        self.images = max([LEAST_IMAGES, *own])

    @property
    def name(self) -> str:
        """Of the file and the workspace."""
        return f"{self.preset.stem}-{self.method}"

    @property
    def limit(self) -> float:
        """Bytes that the processes of a stage may take together."""
        return math.inf if self.memory is None else self.memory

    def announce(self) -> str:
        """What will run, and about how long it takes."""
        data = "a miniature of its data set" if self.root is None else f"the first images of {self.root}"
        return (f"rehearsal of {self.preset.stem} with {self.method} on {device_name(self.device)}: {self.images} "
                f"images of {data}, {STEPS} steps per training; 2 to 20 minutes on two cores")

    def run(self) -> Tree:
        """Run the chain.

        Returns:
            Content of metrics/rehearsal/<preset>-<method>.json.

        Raises:
            UserError: a stage that failed, or that takes too much memory with single samples; a full disk.
        """
        folder = ROOT / ".work" / "workspaces" / f"rehearsal-{self.name}"
        shutil.rmtree(folder, ignore_errors=True)
        self.check_disk(folder.parent)
        place = Workspace(folder.name, own_cache=True)
        changes = self.changes()
        if "dataset.root" in changes:
            root = place.folder / changes["dataset.root"]
            miniatures.write(self.settings.dataset.model_copy(update={"root": str(root)}), root, self.images)
        log = folder.parent / f"{folder.name}.log"
        log.unlink(missing_ok=True)
        print(f"the stages' own messages: {log.relative_to(ROOT)}", flush=True)
        watch = Watch(place.folder / ".work" / "pace.jsonl", self.limit)
        while True:
            try:
                place.reproduce(changed(self.params, changes), "report", log=log, watcher=watch)
                break
            except UserError as error:
                self.lower(watch, error)
                changes = self.changes()
        results = self.results(place, watch, changes)
        for left in (".dvc/cache", ".work", "models"):  # networks that have learnt nothing
            shutil.rmtree(place.folder / left, ignore_errors=True)
        return results

    def changes(self) -> Tree:
        """What the rehearsal changes in the preset, by dotted path."""
        lost = missing_weights(self.settings, self.offline)
        self.words = [word for word in self.words if not word.startswith("weights")]
        if lost:
            self.words.append("weights: none in the place of what cannot be downloaded here: " + ", ".join(lost))
        changes = shortened(self.settings, self.images, self.most, lost, self.device.type)
        if self.root is None and self.settings.dataset.kind != "shapes":
            changes["dataset.root"] = "miniature/set"
        return changes

    def lower(self, watch: Watch, error: UserError) -> None:
        """Halve the batch of the training that took too much memory.

        Raises:
            UserError: it failed for another reason, or no smaller batch is left.
        """
        stage = watch.last or ""
        full = watch.exceeded == stage or _OUT_OF_MEMORY.search(str(error)) is not None
        if not full:
            raise error
        plans = [plan for plan in planned_of(stage, self.trainings) if self.most[plan.key] > 1]
        limit = f"{self.limit / 1e9:.0f} GB of memory" if watch.exceeded else "the device's memory"
        if not plans or not re.search(r":?(train|refine|retrain)", stage):
            raise UserError(f"{stage}: needs more than {limit}, and no smaller batch is left; rehearse on a larger "
                            f"machine, or with MEMORY=...") from None
        for plan in plans:
            self.most[plan.key] //= 2
            word = f"{plan.key}.batch_size: {self.most[plan.key]}, as {stage} needs more than {limit} with more"
            self.words.append(word)
            print(word, flush=True)

    def check_disk(self, folder: Path) -> None:
        """Refuse to begin where the rehearsal's own networks cannot be kept.

        Raises:
            UserError: too little room.
        """
        folder.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(folder).free, DISK_OF_TRAINING * len(self.trainings)
        if free < needed:
            raise UserError(f"{folder}: {free / 1e9:.1f} GB are free, and the {len(self.trainings)} trainings of a "
                            f"rehearsal of {self.name} need about {needed / 1e9:.0f} GB; make room there")

    def results(self, place: Workspace, watch: Watch, changes: Tree) -> Tree:
        """What the file holds: a row for each stage, ``all``, ``full`` and ``run``."""
        truths = {part: read_json(place.folder / f"data/dataset/{part}_truth.json") for part in ("train", "val")}
        here = projection.Counts(*(len(truths[part]["images"]) for part in ("train", "val")))
        full = self.counts()
        scale = None if full is None else projection.Scale(here, full)
        kept = outputs(place.folder)
        rows: Tree = {}
        for stage, measured in watch.stages.items():
            plans = planned_of(stage, self.trainings)
            row: Tree = {"seconds": round(measured.seconds, 1), "peak_mb": round(measured.peak / 1e6)}
            taken = [loop["gpu_bytes"] for loop in measured.loops if "gpu_bytes" in loop]
            row |= {"gpu_peak_mb": round(max(taken) / 1e6)} if taken else {}
            steps = [loop for loop in measured.loops if "batch" in loop]
            if steps:
                row |= {"batch": steps[0]["batch"], "seconds_per_step": round(steps[-1]["each"], 3)}
            left = kept.get(stage, {})
            row["disk_mb"] = round(sum(left.values()) / 1e6, 1)
            if scale is not None:
                row["full_hours"] = round(projection.full_seconds(measured, plans, scale) / 3600, 3)
                size = projection.full_bytes(left, measured, plans, scale)
                images = projection.image_bytes(self.settings.dataset.kind, scale) if self.root is None else None
                if images is not None and str(layout.IMAGES) in left:
                    drawn = {str(layout.IMAGES): left[str(layout.IMAGES)]}
                    size += images - projection.full_bytes(drawn, measured, plans, scale)
                row["full_disk_mb"] = round(size / 1e6, 1)
            rows[row_name(stage)] = row
        for name, counted in self.counted().items():
            rows.setdefault(name, {}).update(counted)
        total = {"seconds": round(sum(row.get("seconds", 0.0) for row in rows.values()), 1),
                 "peak_mb": max(row.get("peak_mb", 0) for row in rows.values()),
                 "images": here.train + here.val}
        # Of a short stage the share says little.
        busy = max((measured.busy for measured in watch.stages.values() if measured.seconds >= LONG), default=0.0)
        if busy > BUSY:
            self.words.append(f"other work kept the cores busy ({100 * busy:.0f} % during a stage): seconds and hours "
                              f"are too long, and `check` does not quote them")
        return {**rows, "all": total, "full": {} if full is None else self.full_run(rows, full),
                "run": {**self.provenance(changes), "busy": round(busy, 2)}}

    def full_run(self, rows: Mapping[str, Tree], full: projection.Counts) -> Tree:
        """Images, epochs, hours and disk of the full run."""
        return {"train_images": full.train, "val_images": full.val,
                **({} if full.objects is None else {"objects_per_image": full.objects}),
                "epochs": {plan.key: plan.epochs for plan in self.trainings if not plan.steps},
                "steps": {plan.key: plan.steps for plan in self.trainings if plan.steps},
                "hours": round(sum(row.get("full_hours", 0.0) for row in rows.values()), 2),
                # DVC's cache holds everything once more.
                "disk_gb": round(2 * sum(row.get("full_disk_mb", 0.0) for row in rows.values()) / 1e3, 2)}

    def counted(self) -> Tree:
        """What a step of the preset's own batch and precision holds in a GPU's memory, counted (``pipelines.memory``):
        row -> ``counted_batch``, ``counted_peak_mb``, ``counted_activations_mb``."""
        found: Tree = {}
        if self.settings.dataset.kind not in memory.DATA:
            return found
        data = memory.data_of(self.settings)
        for method in methods_run(self.settings):
            # The detector's, the last one, is that of torchvision's engine.
            steps = memory.preset_steps(self.settings, method, data) if method in memory.METHODS else []
            for step in steps if self.settings.detector.engine == "torchvision" else steps[:-1]:
                taken = step_memory(step, self.settings.runtime.precision)
                name = step.name if step is steps[-1] else f"{method}/{step.name}"
                found[name] = {"counted_batch": step.batch, "counted_peak_mb": round(taken.peak / 1e6),
                               "counted_activations_mb": round(taken.activations / 1e6)}
        return found

    def counts(self) -> projection.Counts | None:
        """Images of the full run: those of the folder that was given, or those that the data set is known to have."""
        dataset: DatasetSettings = self.settings.dataset
        if self.root is None:
            found = projection.published(dataset)
        else:
            parts = select(kinds.read(dataset), dataset).parts
            found = projection.Counts(len(parts["train"]), len(parts["val"]))
        budget = budget_of(dataset, self.method, self.settings.annotations.model_dump(),
                           self.settings.evaluate.model_dump())
        most = min(dataset.limit or sys.maxsize, budget.images if budget else sys.maxsize)
        return found and replace(found, train=min(found.train, most), val=min(found.val, dataset.limit or found.val))

    def provenance(self, changes: Tree) -> Tree:
        """Device, what was changed, and what it was made with; no paths of this machine."""
        shown = self.params if self.root is None else changed(self.params, {"dataset.root": self.root.name})
        given = {**changes, **({"dataset.root": "the miniature"} if "dataset.root" in changes else {})}
        return {"device": device_name(self.device), "code": code(), "changed": given,
                "words": list(dict.fromkeys(self.words)), **provenance(shown)}


def row_name(stage: str) -> str:
    """Of a stage, as DVC names it."""
    return stage.removeprefix("pipelines/").replace("/dvc.yaml:", "/")


def planned_of(stage: str, plans: list[Planned]) -> list[Planned]:
    """The trainings whose settings a stage depends on, by its dvc.yaml."""
    path, _, name = stage.rpartition(":")
    params = read_yaml(ROOT / (path or "dvc.yaml"))["stages"][name].get("params", [])
    return [plan for plan in plans if any(f"{plan.key}.".startswith(f"{entry}.") for entry in params)]


def outputs(folder: Path) -> dict[str, dict[str, int]]:
    """Stage, as DVC names it -> path -> bytes of its outputs, by the dvc.lock files of a workspace."""
    found: dict[str, dict[str, int]] = {}
    for path in [folder / "dvc.lock", *sorted((folder / "pipelines").glob("*/dvc.lock"))]:
        if not path.exists():
            continue
        where = "" if path.parent == folder else f"{path.relative_to(folder).with_suffix('.yaml').as_posix()}:"
        for name, stage in read_yaml(path)["stages"].items():
            found[f"{where}{name}"] = {out["path"]: out["size"] for out in stage.get("outs", [])}
    return found


def table(results: Tree) -> str:
    """The stages as text, the full run below."""
    columns = ["seconds", "peak_mb", "gpu_peak_mb", "batch", "seconds_per_step", "full_hours", "full_disk_mb",
               "counted_batch", "counted_peak_mb"]
    rows = {name: row for name, row in results.items() if name not in ("full", "run")}
    columns = [column for column in columns if any(column in row for row in rows.values())]
    lines = [["", *columns], *([name, *(str(row.get(column, "")) for column in columns)] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:],
                                                                                         strict=True))])
            for first, *cells in lines]
    full = results["full"]
    if full:
        text.append(f"the full run, {full['train_images']} + {full['val_images']} images, on "
                    f"{results['run']['device']}: about {full['hours']:.1f} h, {full['disk_gb']:.1f} GB")
    else:
        text.append("the full run: how many images it has is not known; rehearse with ROOT=...")
    return "\n".join([*text, *results["run"]["words"]])

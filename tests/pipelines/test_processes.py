"""Every training of every method in several processes, on a CPU: it ends, all ranks have learnt the same, and the
stages after it read what it leaves.

Slow: the stages of each method run one after the other, those that train by ``torchrun``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from chain import digests
from ranks import run_shared

from pipelines.settings import with_method
from pipelines.workspace import ROOT, changed
from stages.labels import rle
from stages.runtime import layout
from stages.runtime.settings import read_yaml

pytestmark = pytest.mark.slow

SMALL = {
    "runtime": {"device": "cpu", "workers": 1, "threads": 1}, "seed": 3,
    "dataset.shapes": {"train": 8, "val": 4, "width": 64, "height": 48}, "dataset.allow_empty_classes": True,
    "annotations.kinds": ["tags", "points", "boxes", "extreme_points"],
    "annotations.tag_crops": {"columns": 2, "rows": 2, "width": 40, "height": 30},
    "proposals.limit": 50, "proposals.hierarchy.regions": 60,
    "exits.crops.side": 32, "exits.crops.random.min_area": 64, "exits.propagation.cells": 8,
    "wise.cues.source": "peaks", "wise.peaks.side": 64, "wise.cues.peak": -100.0,
    "report.gallery_images": 2, "report.validation_images": 1,
    "bestie.maps.folder": "maps", "bestie.retraining.iterations": 1, "bestie.network.moments": 2,
    "bestie.network.moment_images": 2, "irnet.relations.crf.iterations": 1, "irnet.propagation.refinements": 10,
    "panoptic.rounds.rounds": 2, "panoptic.detector.predict.score_threshold": 0.0,
}
# Wherever they stand in the settings.
EVERYWHERE: dict[str, Any] = {"epochs": 1, "batch_size": 4, "crop": 48, "min_sides": [48], "max_side": 64}
MOBILE = {"name": "mobilenetv2_035", "arguments": {}}
"""Beside the preset's ResNet: a network whose last layer no pyramid uses."""


def small(value: Any, backbone: dict[str, Any]) -> Any:
    """Settings with ``EVERYWHERE`` and, in every encoder, ``backbone``."""
    if not isinstance(value, dict):
        return value
    found = {key: EVERYWHERE.get(key, small(item, backbone)) for key, item in value.items()}
    return {**found, **backbone} if "stride" in found and "name" in found else found


def settings(method: str, backbone: dict[str, Any], processes: int,
             changes: dict[str, Any] | None = None) -> dict[str, Any]:
    params = small(with_method(read_yaml(ROOT / "pipelines/presets/shapes.yaml"), method), backbone)
    own: dict[str, Any] = {}
    for place in ("detector", "panoptic.detector"):
        own |= {f"{place}.train.steps": 3, f"{place}.train.warmup_steps": 1}
        if backbone:
            own |= {f"{place}.torchvision.backbone": backbone["name"], f"{place}.torchvision.backbone_arguments": {}}
    return changed(params, {**SMALL, **own, "runtime.processes": processes, **(changes or {})})


def run_alone(module: str, folder: Path) -> None:
    """A stage in one process."""
    params = folder / "params.yaml"
    before = params.read_text()
    params.write_text(yaml.safe_dump(changed(yaml.safe_load(before), {"runtime.processes": 1})))
    try:
        run_shared(module, folder, 1)
    finally:
        params.write_text(before)


def stages_of(method: str) -> dict[str, dict[str, Any]]:
    return read_yaml(ROOT / "pipelines" / method / "dvc.yaml")["stages"]


def trains(stage: dict[str, Any]) -> bool:
    return any(path.startswith("models/") for path in stage["outs"])


def module_of(stage: dict[str, Any]) -> str:
    return stage["cmd"].split()[-1]


def workspace(folder: Path, params: dict[str, Any]) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for module in ("stages.prepare.prepare", "stages.prepare.annotate"):
        run_alone(module, folder)
    return folder


def semantic_maps(folder: Path) -> None:
    """Those of the truth, which a test may know."""
    truth = json.loads((folder / "data/dataset/train_truth.json").read_text())
    (folder / "maps").mkdir()
    things = {category["id"] for category in truth["categories"] if category["isthing"]}
    for image in truth["images"]:
        semantic = np.zeros((image["height"], image["width"]), np.uint8)
        for item in truth["annotations"]:
            if item["image_id"] == image["id"] and item["category_id"] in things:
                semantic[rle.decode(item["segmentation"]) > 0] = item["category_id"]
        cv2.imwrite(str(folder / f"maps/{layout.image_key(image)}.png"), semantic)


CASES = [("irnet", {}, 2), ("irnet", MOBILE, 4)] + [
    (method, backbone, 2) for method in ("exits", "wise", "panoptic", "bestie") for backbone in ({}, MOBILE)]


@pytest.mark.parametrize(("method", "backbone", "processes"), CASES, ids=[
    f"{method}-{backbone.get('name', 'preset')}-{processes}" for method, backbone, processes in CASES])
def test_trainings_of_a_method(tmp_path, method, backbone, processes):
    folder = workspace(tmp_path, settings(method, backbone, processes))
    if method in ("wise", "panoptic"):
        run_alone("stages.proposals.propose", folder)
    if method == "bestie":
        semantic_maps(folder)
    for name, stage in stages_of(method).items():
        if trains(stage):
            learnt = run_shared(module_of(stage), folder, processes)
            assert learnt[0] and all(one == learnt[0] for one in learnt), f"{name}: the ranks have learnt other things"
        else:  # a stage that reads what the trainings have left, in one process
            run_alone(module_of(stage), folder)
        assert all((folder / path).exists() for path in stage["outs"]), name


@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_training_of_the_detector(tmp_path, engine):
    if engine == "detectron2":
        pytest.importorskip("detectron2", reason="Detectron2 is not installed")
        import_module("stages.detector.detectron2_engine")
    folder = workspace(tmp_path, settings("masks", MOBILE, 2, {"detector.engine": engine}))
    run_alone("pipelines.masks.take_masks", folder)
    learnt = run_shared("stages.detector.train", folder, 2)
    assert len(learnt[0]) == 1 and learnt[0] == learnt[1]
    run_alone("stages.detector.predict", folder)
    assert (folder / layout.predictions("masks")).exists()


def test_the_command_of_a_stage_starts_its_processes(tmp_path):
    """By `torchrun`, and they train what the forked ones do."""
    folder = workspace(tmp_path, settings("irnet", {}, 2))
    weights = folder / "models/irnet/classifier/weights.pt"
    run_shared("pipelines.irnet.train_classifier", folder, 2)
    forked = weights.read_bytes()
    weights.unlink()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    result = subprocess.run([sys.executable, "-m", "pipelines.irnet.train_classifier"], cwd=folder, env=environment,
                            capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert weights.read_bytes() == forked


def test_killed_trainings_go_on(tmp_path):
    """Of all processes at once; the same bytes in the end."""
    folder = workspace(tmp_path, settings("irnet", {}, 2, {"irnet.classifier.epochs": 6}))
    result = folder / "models/irnet/classifier"
    stage = "pipelines.irnet.train_classifier"
    run_shared(stage, folder, 2)
    whole = digests(result)
    shutil.rmtree(result)
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(changed(read_yaml(params), {"runtime.checkpoint_seconds": 1e-9})))
    run_shared(stage, folder, 2, until=lambda: any(folder.glob(".work/irnet-train_classifier-*/checkpoint.pt")))
    (checkpoint,) = folder.glob(".work/irnet-train_classifier-*/checkpoint.pt")
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 12 and not result.exists()
    run_shared(stage, folder, 2)
    assert digests(result) == whole

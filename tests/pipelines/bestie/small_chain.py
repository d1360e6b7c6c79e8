"""A BESTIE chain so small that a stage takes a second: its settings, its data, its stages' own entries."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from chain import working_in

from stages.labels import rle

WIDTH, HEIGHT = 64, 48
STAGES = ("train_classifier", "infer_cues", "train_segmenter", "infer_semantic", "train_refiner", "retrain",
          "synthesize", "illustrate")
AUGMENT = {"crop": 48, "long_side": None, "scale": [0.9, 1.2]}
BACKBONE = {"name": "resnet10t", "weights": "none", "stride": 8,
            "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
SMALL = {"window": 9, "offset": 1.5, "merge": 25.0}
TRAINING = {"epochs": 2, "batch_size": 3, "optimizer": "adam", "learning_rate": 0.01, "warmup_steps": 0}
BESTIE = {
    "classifier": {"backbone": BACKBONE, "width": 16, "side": 0, "augment": AUGMENT, **TRAINING},
    "cues": {"side": 0, "window": 9, "threshold": 0.3},
    "maps": {"folder": "maps", "segmenter": {
        "architecture": "deeplabv3plus", "backbone": BACKBONE, "decoder_channels": 16, "dilate": False,
        "atrous_rates": [1, 2, 3], "augment": AUGMENT, **TRAINING}, "source": "folder"},
    "transfer": {"smallest": 9, "sigma": 2.0},
    "network": {"backbone": BACKBONE, "semantic_width": 16, "instance_width": 16, "offset_width": 8,
                "augment": AUGMENT, "refinement": {"centres": {**SMALL, "threshold": -1.0}, "most": 50},
                **TRAINING, "moments": 4, "moment_images": 3},
    "inference": {"smallest": 9, "centres": {**SMALL, "threshold": 0.05}},
}
PARAMS = {
    "method": "bestie", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 6, "val": 3, "width": WIDTH, "height": HEIGHT},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["tags", "points"]}, "report": {"gallery_images": 2},
}

POINTS = {"cues": {"source": "points"}}
# Every maximum is a centre: networks of a few steps find many instances, and each of them others.
MANY = {"inference": {"centres": {**SMALL, "threshold": -1.0}}}


def run(module: str, folder: Path, **bestie) -> None:
    """A stage's ``main`` in ``folder``, as DVC calls it, with other sections of the method if wanted."""
    params = folder / "params.yaml"
    sections = {name: {**BESTIE.get(name, {}), **bestie.get(name, {})} for name in {*BESTIE, *bestie}}
    params.write_text(yaml.safe_dump({**PARAMS, "bestie": sections}))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()):
        import_module(module).main(params)


def prepare(folder: Path) -> None:
    """Images, weak labels, and as semantic maps the truth: a test may know it."""
    for module in ("stages.prepare.prepare", "stages.prepare.annotate"):
        run(module, folder)
    truth = json.loads((folder / "data/dataset/train_truth.json").read_text())
    (folder / "maps").mkdir()
    things = {category["id"] for category in truth["categories"] if category["isthing"]}
    for image in truth["images"]:
        semantic = np.zeros((HEIGHT, WIDTH), np.uint8)
        for annotation in truth["annotations"]:
            if annotation["image_id"] == image["id"] and annotation["category_id"] in things:
                semantic[rle.decode(annotation["segmentation"]) > 0] = annotation["category_id"]
        cv2.imwrite(str(folder / f"maps/{image['id']:012d}.png"), semantic)


def read(path: Path):
    return json.loads(path.read_text())


def copy(folder: Path, target: Path) -> None:
    """All that the stages after ``train_refiner`` want."""
    for name in ("data/dataset", "data/annotations", "data/bestie/cues", "data/bestie/semantic", "models/bestie"):
        shutil.copytree(folder / name, target / name)


def see_no_background(network: Path) -> None:
    """Let a network in its folder take nothing for background: a few steps teach it no foreground."""
    state = torch.load(network / "weights.pt", weights_only=True)
    state["semantic.1.bias"][0] = -100
    torch.save(state, network / "weights.pt")

"""The panoptic chain on nine tiny scenes: its settings, its stages' own entries, and what they leave."""

from __future__ import annotations

import contextlib
import io
import json
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import yaml
from chain import working_in

from pipelines.panoptic.cues import read_maps
from pipelines.panoptic.supervision import classes_of

WIDTH, HEIGHT = 64, 48
STAGES = ("segment_boxes", "train_classifier", "infer_stuff", "join_cues", "refine", "train_detector", "detect",
          "train_instances", "synthesize", "illustrate")
AUGMENT = {"crop": 48, "long_side": None, "scale": [0.9, 1.2]}
BACKBONE = {"name": "resnet10t", "weights": "none", "stride": 8,
            "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
TRAINING = {"epochs": 1, "batch_size": 3, "optimizer": "adam", "learning_rate": 0.01}
PANOPTIC = {
    "classifier": {"architecture": "plain", "backbone": BACKBONE, "dilate": False, "steps": 0, **TRAINING,
                   "batch_size": 8},
    "stuff": {"grid": 2},
    "network": {"backbone": BACKBONE, "decoder_channels": 8, "augment": AUGMENT, **TRAINING},
    "rounds": {"rounds": 2, "steps": 0, "confidence": 0.2, "merged": 1,
               "crf": {"iterations": 2, "bilateral_xy": 5, "gaussian_xy": 1}},
    "detector": {
        "train": {"steps": 3, "batch_size": 2, "min_sides": [48], "max_side": 64, "learning_rate": 0.001},
        "predict": {"min_side": 48, "max_side": 64, "score_threshold": 0.0, "detections_per_image": 5},
        "torchvision": {"backbone": "resnet10t", "weights": "none", "batch_norm": "train", "levels": [8, 16],
                        "backbone_arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}, "extra_level": False,
                        "fpn_channels": 16, "anchor_sizes": [16, 32], "box_head_channels": 16,
                        "mask_head_channels": [8], "proposals": 20, "roi_samples": 8, "rpn_samples": 8},
    },
    "instances": {"steps": 2, "augment": AUGMENT, "head": {"bilateral_xy": 5, "gaussian_xy": 1}, **TRAINING},
}
PARAMS = {
    "method": "panoptic", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 6, "val": 3, "width": WIDTH, "height": HEIGHT},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["boxes", "tags"], "tag_crops": {"columns": 2, "rows": 2, "width": 40, "height": 30}},
    "proposals": {"limit": 50, "hierarchy": {"regions": 60}},
    "detector": {"engine": "torchvision"}, "score": {}, "report": {"gallery_images": 2, "validation_images": 1},
}


def run(module: str, folder: Path, annotations=None, **panoptic) -> None:
    """A stage's ``main`` in ``folder``, as DVC calls it, with other sections of the method if wanted."""
    params = folder / "params.yaml"
    sections = {name: {**PANOPTIC.get(name, {}), **panoptic.get(name, {})} for name in {*PANOPTIC, *panoptic}}
    params.write_text(yaml.safe_dump({**PARAMS, "annotations": {**PARAMS["annotations"], **(annotations or {})},
                                      "panoptic": sections}))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        import_module(module).main(params)


def prepare(folder: Path, annotations=None) -> None:
    for module in ("stages.prepare.prepare", "stages.prepare.annotate", "stages.proposals.propose"):
        run(module, folder, annotations)


def read(path: Path):
    return json.loads(path.read_text())


def labels_of(folder: Path, place: str, image) -> np.ndarray:
    found = cv2.imread(str(folder / f"data/panoptic/{place}/{image['id']:012d}.png"), cv2.IMREAD_UNCHANGED)
    assert found is not None and found.shape == (HEIGHT, WIDTH)
    return found


def instances_in(folder: Path, number: str, image) -> np.ndarray:
    weak = read(folder / "data/annotations/train_weak.json")
    return read_maps(folder / f"data/panoptic/rounds/{number}", image, classes_of(weak["categories"]))[1]


def box_pixels(boxes) -> np.ndarray:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, w, h in boxes:
        inside[round(y):round(y + h), round(x):round(x + w)] = True
    return inside

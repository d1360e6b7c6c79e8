"""The preset kitti on a miniature of its data: boxes for train, instance PNGs for val, coverage at the end."""

from __future__ import annotations

import contextlib
import io
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from chain import working_in
from PIL import Image

from pipelines.settings import load_params
from pipelines.workspace import ROOT, changed
from stages.evaluation.coverage import mean_coverage
from stages.runtime import layout
from stages.runtime.settings import read_yaml

WIDTH, HEIGHT = 96, 40
BACKBONE = {"name": "resnet10t", "weights": "none", "stride": 16,
            "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
SMALL = {"runtime": {"device": "cpu", "workers": 1}, "proposals.hierarchy.regions": 40, "proposals.limit": 30,
         "wise.network.backbone": BACKBONE, "wise.network.strides": [16, 8], "wise.network.dimensions": 8,
         "wise.network.epochs": 1, "wise.network.optimizer": "adamw", "wise.network.learning_rate": 0.002,
         "detector.engine": "torchvision", "detector.torchvision": {}, "score.oracle": ["proposal", "mask"]}
STAGES = ("prepare.prepare", "prepare.annotate", "proposals.propose", "wise.find_points", "wise.train_wise",
          "wise.infer_maps", "wise.synthesize", "evaluation.score")


def street(path: Path, cars: list[tuple[int, int, int, int]]) -> np.ndarray:
    """A picture with dark boxes on a bright road, and their instance numbers."""
    rng = np.random.default_rng(len(cars))
    pixels = rng.integers(190, 220, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    instances = np.full((HEIGHT, WIDTH), 7 * 256, np.uint16)
    for number, (x, y, w, h) in enumerate(cars, start=1):
        pixels[y:y + h, x:x + w] = (30 * number, 40, 90)
        instances[y:y + h, x:x + w] = 26 * 256 + number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return instances


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("kitti")
    names = ["000000", "000003", "000007"]
    for number, name in enumerate(names):
        cars = [(8, 12, 24, 14), (50, 8 + number, 30, 20)][:number + 1]
        street(base / f"training/image_2/{name}.png", cars)
        (base / "training/label_2").mkdir(exist_ok=True)
        (base / f"training/label_2/{name}.txt").write_text("".join(
            f"{kind} 0.00 0 1.5 {x} {y} {x + w} {y + h} 1 1 1 1 1 1 0\n"
            for kind, (x, y, w, h) in zip(("Car", "Pedestrian"), cars, strict=False)))
    (base / "train.txt").write_text("\n".join(names) + "\n")
    for number in range(2):
        folder = base / "data_semantics/training"
        instances = street(folder / f"image_2/00000{number}_10.png", [(10, 10, 30, 20), (60, 14, 16, 12)][:2 - number])
        (folder / "instance").mkdir(exist_ok=True)
        Image.fromarray(instances).save(folder / f"instance/00000{number}_10.png")
    return base


@pytest.fixture(scope="module")
def workspace(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(changed(read_yaml(ROOT / "pipelines/presets/kitti.yaml"),
                                             {"dataset.root": str(root), **SMALL})))
    load_params(params)
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for stage in STAGES:
            package = "pipelines" if stage.startswith("wise") else "stages"
            import_module(f"{package}.{stage}").main(params)
        # The labels of val stand for a detector's masks.
        labels = json.loads(layout.pseudo_labels("wise", "val_points").read_text())["annotations"]
        layout.predictions("wise").write_text(json.dumps(labels))
        import_module("stages.evaluation.evaluate").main(params)
    return folder


def test_points_and_labels(workspace):
    weak = json.loads((workspace / layout.WEAK["train"]).read_text())
    assert len(weak["images"]) == 3 and weak["info"]["source"] == "input"
    assert weak["annotations"][0]["point"] == [20, 19], "the middle of the box"
    labels = json.loads((workspace / layout.pseudo_labels("wise")).read_text())["annotations"]
    assert [item["point"] for item in labels] == [item["point"] for item in weak["annotations"]]
    val = json.loads((workspace / layout.WEAK["val"]).read_text())
    assert val["info"]["source"] == "truth" and len(val["annotations"]) == 3


def test_what_is_measured(workspace):
    detail = json.loads((workspace / "metrics/detail/score.json").read_text())
    assert detail["train_reason"].endswith("train.txt has no masks")
    assert {"val", "val_points", "oracle", "method", "proposals"} <= set(detail)
    assert detail["oracle"]["objects"]["mask"]["coverage"] == {"mwcov": 100, "mucov": 100, "images": 2}
    assert detail["oracle"]["objects"]["proposal"]["coverage"]["mucov"] > 80, "boxes on a plain road are easy to find"
    found = json.loads((workspace / "metrics/detail/evaluate.json").read_text())
    truth = json.loads((workspace / layout.TRUTH["val"]).read_text())["annotations"]
    labels = json.loads((workspace / layout.pseudo_labels("wise", "val_points")).read_text())["annotations"]
    expected = mean_coverage(truth, [item for item in labels if item["score"] >= 0.5])
    assert found["coverage"] == {"mwcov": pytest.approx(100 * expected["mwcov"], abs=1e-3),
                                 "mucov": pytest.approx(100 * expected["mucov"], abs=1e-3), "images": 2}
    assert found["annotation"]["seconds_per_image"] == 22.1 and found["annotation"]["proposals"] == "hierarchy"
    short = json.loads((workspace / "metrics/score.json").read_text())
    assert short["labels"].startswith("no truth: ") and set(short["labels_val"]) > {"AP50"}

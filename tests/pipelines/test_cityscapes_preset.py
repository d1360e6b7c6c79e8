"""The Cityscapes preset from its settings to weak labels, on a miniature of the data set."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import yaml
from chain import working_in

from pipelines import check
from pipelines.workspace import ROOT, changed
from stages.evaluation.settings import EvaluateSettings
from stages.labels.annotation_cost import annotation_cost, count_labels
from stages.prepare import annotate, prepare
from stages.prepare.cityscapes_scenes import write_cityscapes
from stages.runtime import layout
from stages.runtime.settings import read_yaml

PRESET = read_yaml(ROOT / "pipelines/presets/cityscapes.yaml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Images of a quarter of the size, so with crops of a quarter; rare classes show in none of so few images."""
    folder = tmp_path_factory.mktemp("cityscapes")
    write_cityscapes(folder / "cityscapes", size=(256, 512))
    for name in ("pipelines", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    crops = {key: value // 4 if key in ("width", "height") else value
             for key, value in PRESET["annotations"]["tag_crops"].items()}
    params = changed(PRESET, {"dataset.root": "cityscapes", "dataset.train": "train+train_extra",
                              "dataset.allow_empty_classes": True, "annotations.tag_crops": crops,
                              "runtime.workers": 1, "panoptic.network.backbone.weights": "none",
                              "panoptic.classifier.backbone.weights": "none", "detector.engine": "torchvision"})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for stage in (check, prepare, annotate):
            stage.main(Path("params.yaml"))
    return folder


def test_weak_labels_of_the_preset(workspace):
    weak = {split: json.loads((workspace / path).read_text()) for split, path in layout.WEAK.items()}
    assert [len(content["images"]) for content in weak.values()] == [6, 2]
    for content in weak.values():
        assert len(content["categories"]) == 19
        assert all(len(image["tag_crops"]) == 15 and image["tags"] for image in content["images"])
        assert all("bbox" in item and "segmentation" not in item for item in content["annotations"])
        assert any(item["iscrowd"] for item in content["annotations"])
    assert sum(image.get("coarse", 0) for image in weak["train"]["images"]) == 2
    xs = [crop["bbox"][0] for crop in weak["train"]["images"][0]["tag_crops"][:5]]
    assert xs == [0, 96, 193, 290, 387], "a quarter of the steps of 387 px"


def test_what_its_labels_cost(workspace):
    weak = json.loads((workspace / layout.WEAK["train"]).read_text())
    seconds = EvaluateSettings.model_validate(PRESET["evaluate"]).seconds
    found = annotation_cost(PRESET["annotations"]["kinds"], 0.0, seconds, count_labels(weak))
    boxes = sum("bbox" in item for item in weak["annotations"])
    stuff = sum(tag < 24 for image in weak["images"] for crop in image["tag_crops"] for tag in crop["tags"])
    assert found["seconds_per_image"] == pytest.approx((7 * boxes + stuff) / 6, abs=1e-3)
    assert annotation_cost(["masks"], 1.0, seconds)["seconds_per_image"] == 5400


def test_it_trains_its_detector_as_the_model_zoo_does():
    pytest.importorskip("detectron2", reason="Detectron2 is not installed: its configurations are not looked up")
    from detectron2 import model_zoo

    from stages.detector import detectron2_engine
    from stages.detector.settings import DetectorSettings

    ours = detectron2_engine.config(DetectorSettings.model_validate(PRESET["detector"]), 8, "cpu")
    theirs = model_zoo.get_config("Cityscapes/mask_rcnn_R_50_FPN.yaml")
    for key in ("MAX_ITER", "BASE_LR", "IMS_PER_BATCH", "STEPS"):
        assert ours.SOLVER[key] == theirs.SOLVER[key], key
    for key in ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST"):
        assert ours.INPUT[key] == theirs.INPUT[key], key
    assert "ImageNetPretrained" in ours.MODEL.WEIGHTS and "COCO" in theirs.MODEL.WEIGHTS

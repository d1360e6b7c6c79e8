"""Masks without learning, through the stages' own entries."""

from __future__ import annotations

import contextlib
import io
import json
from importlib import import_module
from pathlib import Path

import cv2
import pytest
import yaml
from chain import assert_given, mixed, working_in
from pydantic import ValidationError

from pipelines.baseline.settings import BaselineSettings
from pipelines.workspace import changed
from stages.labels import rle
from stages.runtime import layout
from stages.runtime.errors import UserError

PARAMS = {
    "method": "baseline", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 4, "val": 2, "width": 64, "height": 48},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["extreme_points"]}, "baseline": {}, "score": {}, "report": {"gallery_images": 2},
}


def run(*modules: str, changes: dict | None = None) -> None:
    params = Path("params.yaml")
    settings = yaml.safe_load(params.read_text()) if params.exists() else PARAMS
    params.write_text(yaml.safe_dump(changed(settings, changes or {})))
    for module in modules:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            import_module(module).main(params)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run("stages.prepare.prepare", "stages.prepare.annotate")
    return tmp_path


def labels(split: str = "train") -> list[dict]:
    path = layout.pseudo_labels("baseline")
    path = path if split == "train" else path.with_name("pseudo_labels_val.json")
    return json.loads(path.read_text())["annotations"]


def objects(split: str = "train") -> dict[int, dict]:
    weak = json.loads(layout.WEAK[split].read_text())
    things = {category["id"] for category in weak["categories"] if category["isthing"]}
    return {item["id"]: item for item in weak["annotations"] if item["category_id"] in things}


@pytest.mark.parametrize("masks", ["box", "ellipse", "grabcut", "grabcut_points"])
def test_every_object_has_one_label_inside_its_box(workspace, masks):
    run("pipelines.baseline.synthesize", changes={"baseline.masks": masks})
    for split in ("train", "val"):
        items = objects(split)
        assert sorted(row["weak_id"] for row in labels(split)) == sorted(items)
        for row in labels(split):
            top, left, bottom, right = items[row["weak_id"]]["extreme_points"]
            x, y, width, height = row["bbox"]
            assert left[0] <= x <= x + width <= right[0] + 1
            assert top[1] <= y <= y + height <= bottom[1] + 1
            assert row["area"] > 0
            assert row["score"] == 1
            if masks == "box":
                assert row["area"] == width * height == (right[0] - left[0] + 1) * (bottom[1] - top[1] + 1)
            if masks == "grabcut_points" and width > 12 < height:
                mask = rle.decode(row["segmentation"])
                assert all(mask[py, px] for px, py in (top, left, bottom, right)), "seeds are foreground for certain"
    figures = json.loads(Path("data/baseline/figures.json").read_text())
    assert 0 < figures["figures"]["box_filled"] <= 100
    assert masks != "box" or figures["figures"]["box_filled"] == 100
    assert list(figures["measured"]) == ["pseudo_labels_val.json"]


def test_boxes_alone_will_do(workspace):
    run("stages.prepare.annotate", "pipelines.baseline.synthesize",
        changes={"annotations.kinds": ["boxes"], "baseline.masks": "ellipse"})
    assert all(row["area"] == row["bbox"][2] * row["bbox"][3] for row in labels())


def test_images_labelled_in_full_keep_their_masks(workspace, tmp_path):
    run("pipelines.baseline.synthesize")
    full = mixed(workspace, tmp_path / "mix", ["extreme_points"])
    params = (workspace / "params.yaml").read_text()
    with working_in(tmp_path / "mix"):
        Path("params.yaml").write_text(params)
        run("pipelines.baseline.synthesize", "pipelines.baseline.illustrate")
    assert_given(workspace, tmp_path / "mix", "baseline", full)


def test_points_alone_will_not(workspace):
    run("stages.prepare.annotate", changes={"annotations.kinds": ["points"]})
    with pytest.raises(UserError, match="neither extreme points nor a box"):
        run("pipelines.baseline.synthesize")


def test_small_objects_are_their_boxes(workspace):
    run("pipelines.baseline.synthesize", changes={"baseline.masks": "ellipse", "baseline.min_box": 1e6})
    assert all(row["area"] == row["bbox"][2] * row["bbox"][3] for row in labels())


def test_the_same_bytes_again_and_without_the_truth(workspace):
    run("pipelines.baseline.synthesize", "pipelines.baseline.illustrate")
    before = {path: path.read_bytes() for path in Path("data/baseline").rglob("*") if path.is_file()}
    for path in layout.TRUTH.values():
        path.unlink()
    run("pipelines.baseline.synthesize", "pipelines.baseline.illustrate", changes={"runtime.workers": 2})
    assert {path: path.read_bytes() for path in Path("data/baseline").rglob("*") if path.is_file()} == before
    panels = json.loads(Path("data/baseline/gallery/panels.json").read_text())
    assert [panel["split"] for panel in panels] == ["train", "train", "val", "val"]
    assert all(cv2.imread(str(path)) is not None for path in before if path.suffix == ".jpg")


def test_unknown_kinds_are_refused():
    with pytest.raises(ValidationError):
        BaselineSettings(masks="circle")

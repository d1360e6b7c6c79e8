"""The whole EXITS chain on tiny scenes, with a transformer and with a pyramid, through the stages' own entries."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from chain import assert_given, digests, mixed, working_in

from pipelines.workspace import ROOT, changed
from stages.cues.simple_masks import simple_mask
from stages.labels import rle
from stages.runtime import layout
from stages.runtime.errors import UserError

STAGES = ("train_extractor", "propagate", "train_generator", "infer_masks", "synthesize", "illustrate")
ENCODERS = {
    "vit": {"kind": "vit", "name": "vit_tiny_patch16_224", "weights": "none", "stride": 8,
            "arguments": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "class_token": False}},
    "pyramid": {"kind": "pyramid", "name": "resnet10t", "weights": "none", "stride": 8, "width": 16, "position": True,
                "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}},
}
SUMMARY = "data/exits/points/summary.json"
PARAMS = {
    "method": "exits", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 5, "val": 3, "width": 64, "height": 48},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["extreme_points"]},
    "exits": {
        "crops": {"side": 32, "random": {"min_area": 64}},
        "extractor": {"epochs": 1, "batch_size": 4, "learning_rate": 0.0001},
        "propagation": {"cells": 4, "layer": 1, "foreground": 1.0},
        "generator": {"epochs": 1, "batch_size": 4, "learning_rate": 0.0001, "dropout": 0.3},
    },
    "score": {}, "report": {"gallery_images": 2},
}


def run(module: str, folder: Path, changes: dict | None = None) -> None:
    """A stage's ``main`` in ``folder``, as DVC calls it, after changes of its settings."""
    params = folder / "params.yaml"
    settings = yaml.safe_load(params.read_text()) if params.exists() else PARAMS
    (folder / "params.yaml").write_text(yaml.safe_dump(changed(settings, changes or {})))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()):
        import_module(module).main(params)


def prepared(folder: Path, changes: dict | None = None) -> Path:
    for module in ("stages.prepare.prepare", "stages.prepare.annotate"):
        run(module, folder, changes)
    return folder


@pytest.fixture(scope="module", params=["vit", "pyramid"])
def workspace(request, tmp_path_factory) -> Path:
    encoder = ENCODERS[request.param]
    folder = prepared(tmp_path_factory.mktemp(request.param),
                      {"exits.extractor.encoder": encoder, "exits.generator.encoder": encoder})
    for stage in STAGES:
        run(f"pipelines.exits.{stage}", folder)
    return folder


def weak_of(folder: Path, split: str = "train") -> dict:
    return json.loads((folder / layout.WEAK[split]).read_text())


def test_points_obey_their_contract(workspace):
    weak = weak_of(workspace)
    things = {category["id"] for category in weak["categories"] if category["isthing"]}
    for image in weak["images"]:
        objects = [item for item in weak["annotations"]
                   if item["image_id"] == image["id"] and item["category_id"] in things]
        with np.load(workspace / "data/exits/points/train" / f"{layout.image_key(image)}.npz") as found:
            assert found["labels"].shape == (len(objects), 4, 4)
            assert found["labels"].dtype == np.int8
            assert found["windows"].shape == found["boxes"].shape == (len(objects), 4)
            assert found["categories"].tolist() == [item["category_id"] for item in objects]
            assert (np.abs(found["labels"]) <= 2).all()
            assert all((labels == 2).any() for labels in found["labels"])
    counts = json.loads((workspace / SUMMARY).read_text())
    assert counts["train"]["objects"] == len([item for item in weak["annotations"] if item["category_id"] in things])


def test_figures_are_those_of_the_points_and_labels(workspace):
    """Counted anew from the files."""
    figures = json.loads((workspace / "data/exits/figures.json").read_text())["figures"]
    labels = [np.load(path)["labels"] for path in sorted((workspace / "data/exits/points/train").glob("*.npz"))]
    inside = sum((part != -2).sum() for part in labels)
    assert figures["pseudo_foreground"] == pytest.approx(100 * sum((part == 1).sum() for part in labels) / inside,
                                                         abs=1e-3)
    assert figures["pseudo_background"] == pytest.approx(100 * sum((part == -1).sum() for part in labels) / inside,
                                                         abs=1e-3)
    rows = json.loads((workspace / layout.pseudo_labels("exits")).read_text())["annotations"]
    assert figures["certainty"] == pytest.approx(100 * np.mean([row["score"] for row in rows]), abs=1e-3)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_object_has_one_label(workspace, split):
    from pycocotools.coco import COCO

    path = workspace / "data/exits" / ("pseudo_labels.json" if split == "train" else "pseudo_labels_val.json")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    weak = weak_of(workspace, split)
    things = {category["id"] for category in weak["categories"] if category["isthing"]}
    objects = {item["id"]: item for item in weak["annotations"] if item["category_id"] in things}
    assert sorted(row["weak_id"] for row in coco.anns.values()) == sorted(objects)
    for row in coco.anns.values():
        item = objects[row["weak_id"]]
        mask = coco.annToMask(row).astype(bool)
        assert (row["image_id"], row["category_id"]) == (item["image_id"], item["category_id"])
        assert row["area"] == mask.sum() > 0
        assert 0 <= row["score"] <= 1
        top, left, bottom, right = item["extreme_points"]
        assert all(mask[y, x] for x, y in item["extreme_points"])
        assert rle.bbox(row["segmentation"]) == [left[0], top[1], right[0] - left[0] + 1, bottom[1] - top[1] + 1]


def test_images_labelled_in_full_keep_their_masks(workspace, tmp_path):
    full = mixed(workspace, tmp_path, ["extreme_points"], "data/exits/probabilities", "data/exits/points")
    shutil.copy(workspace / "params.yaml", tmp_path)
    run("pipelines.exits.synthesize", tmp_path)
    assert_given(workspace, tmp_path, "exits", full)
    figures = [json.loads((folder / "data/exits/figures.json").read_text())["figures"]
               for folder in (workspace, tmp_path)]
    assert figures[0] == figures[1], "certainty is the generator's"


def test_curves_models_and_gallery(workspace):
    import torch

    for name in ("extractor", "generator"):
        assert any((workspace / "models/exits" / name / "curves").rglob("*.tsv"))
    state = torch.load(workspace / "models/exits/generator/weights.pt", weights_only=True)
    assert set(state) == {"student", "teacher"}
    assert any(not torch.equal(value, state["teacher"][name]) for name, value in state["student"].items())
    folder = workspace / "data/exits/gallery"
    panels = json.loads((folder / "panels.json").read_text())
    train = {panel["image_id"] for panel in panels if panel["split"] == "train"}
    assert train == {image["id"] for image in weak_of(workspace)["images"][:2]}
    assert any(panel["split"] == "val" for panel in panels)
    assert all(cv2.imread(str(folder / panel["picture"])) is not None for panel in panels)
    assert not list((workspace / ".work").glob("exits-*-*"))


def test_score_measures_points_and_both_splits(workspace):
    run("stages.evaluation.score", workspace)
    metrics = json.loads((workspace / "metrics/detail/score.json").read_text())
    assert metrics["train"]["points"]["objects"] == metrics["train"]["objects"]["objects"]
    assert 0 <= metrics["train"]["points"]["given_precision"] <= 100
    assert metrics["val"]["objects"]["labels"] == metrics["val"]["objects"]["objects"]
    assert metrics["val"]["points"]["objects"] == metrics["val"]["objects"]["objects"]


def test_everything_repeats_itself(workspace):
    before = digests(workspace / "data/exits") | digests(workspace / "models/exits")
    assert any(name.endswith("weights.pt") for name in before)
    for stage in STAGES:
        run(f"pipelines.exits.{stage}", workspace, {"runtime.workers": 2})
    assert digests(workspace / "data/exits") | digests(workspace / "models/exits") == before


def test_masks_of_other_sources(workspace, tmp_path):
    """Without a generator, through the same stages; drawn ones are the baseline's, but for the crop's resolution."""
    for part in ("data", "params.yaml"):
        source = workspace / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    (tmp_path / "models/exits/generator").mkdir(parents=True)
    (tmp_path / "models/exits/generator/weights.pt").write_bytes(b"not read")
    weak = weak_of(tmp_path)
    images = {image["id"]: cv2.imread(str(tmp_path / layout.IMAGES / image["file_name"]))[:, :, ::-1]
              for image in weak["images"]}
    objects = {item["id"]: item for item in weak["annotations"]}
    for source in ("walk", "ellipse", "grabcut_points"):
        for iterations in (0, 2):
            for stage in ("infer_masks", "synthesize"):
                run(f"pipelines.exits.{stage}", tmp_path,
                    {"exits.inference": {"source": source, "crf": {"iterations": iterations}}})
            rows = json.loads((tmp_path / layout.pseudo_labels("exits")).read_text())["annotations"]
            assert {row["weak_id"] for row in rows} <= set(objects) and len(rows) > 5
            if source != "walk" and not iterations:
                drawn = [simple_mask(source, images[row["image_id"]], objects[row["weak_id"]]) for row in rows]
                found = [rle.decode(row["segmentation"]).astype(bool) for row in rows]
                assert np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(drawn, found, strict=True)]) > 0.9
        assert len({row["score"] for row in rows}) > 1, "a score of its own for every mask"


def test_no_stage_reads_the_truth(workspace):
    hidden = {path: (workspace / path).read_bytes() for path in layout.TRUTH.values()}
    labels = (workspace / layout.pseudo_labels("exits")).read_bytes()
    for path in hidden:
        (workspace / path).unlink()
    try:
        for stage in STAGES:
            run(f"pipelines.exits.{stage}", workspace)
    finally:
        for path, content in hidden.items():
            (workspace / path).write_bytes(content)
    assert (workspace / layout.pseudo_labels("exits")).read_bytes() == labels


def test_stages_that_draw_and_paste_start_without_torch():
    """What workers of several processes import again must stay light."""
    stages = ["pipelines.exits.synthesize", "pipelines.exits.illustrate", "pipelines.baseline.synthesize",
              "pipelines.baseline.illustrate"]
    code = f"import sys; [__import__(name) for name in {stages}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def small(tmp_path) -> Path:
    """A data set of one's own, ready for other annotations."""
    encoder = ENCODERS["pyramid"]
    return prepared(tmp_path, {"exits.extractor.encoder": encoder, "exits.generator.encoder": encoder,
                               "exits.extractor.epochs": 0})


def rewrite(folder: Path, objects: list[dict]) -> dict:
    """Give the first training image these objects and the others none."""
    weak = weak_of(folder)
    image, category = weak["images"][0], next(item["id"] for item in weak["categories"] if item["isthing"])
    weak["annotations"] = [{"id": number, "image_id": image["id"], "category_id": category, "iscrowd": 0, **item}
                           for number, item in enumerate(objects, start=1)]
    (folder / layout.WEAK["train"]).write_text(json.dumps(weak))
    return image


def test_awkward_objects(small):
    """One pixel, three pixels, at the corner, the whole image, and a box without points, all in one image."""
    objects = [{"extreme_points": [[5, 5]] * 4},
               {"extreme_points": [[10, 9], [9, 10], [10, 10], [10, 10]]},
               {"extreme_points": [[2, 0], [0, 3], [1, 12], [14, 6]]},
               {"extreme_points": [[30, 0], [0, 20], [33, 47], [63, 24]]},
               {"bbox": [20.5, 10.5, 20.0, 21.25]},
               {"extreme_points": [[45, 20], [40, 47], [42, 47], [63, 47]]}]
    rewrite(small, objects)
    for stage in STAGES:
        run(f"pipelines.exits.{stage}", small)
    rows = json.loads((small / layout.pseudo_labels("exits")).read_text())["annotations"]
    assert len(rows) == 6
    assert rows[0]["bbox"] == [5, 5, 1, 1]
    assert rows[1]["bbox"] == [9, 9, 2, 2]
    assert all(row["area"] > 0 for row in rows)


def test_hundreds_of_objects(small):
    rewrite(small, [{"extreme_points": [[x + 4, y], [x, y + 5], [x + 3, y + 8], [x + 9, y + 4]]}
                    for y in range(0, 39, 2) for x in range(0, 54, 4)])
    run("pipelines.exits.train_extractor", small)
    run("pipelines.exits.propagate", small)
    counts = json.loads((small / SUMMARY).read_text())
    assert counts["train"]["objects"] == 280


def test_box_only_by_one_setting_and_boxes_alone_give_the_same(small):
    """Without points in the loss there is nothing that extreme points could add to their box."""
    weak = weak_of(small)
    points = [item for item in weak["annotations"] if "extreme_points" in item][:3]
    run("pipelines.exits.train_extractor", small)
    found = []
    for boxes in (False, True):
        items = [{"extreme_points": item["extreme_points"]} for item in points]
        if boxes:
            items = [{"bbox": [left[0], top[1], right[0] - left[0] + 1, bottom[1] - top[1] + 1]}
                     for top, left, bottom, right in (item["extreme_points"] for item in points)]
        rewrite(small, items)
        run("pipelines.exits.propagate", small, {"exits.crops.random.min_area": 1})
        run("pipelines.exits.train_generator", small, {"exits.generator.points": "none"})
        found.append((small / "models/exits/generator/weights.pt").read_bytes())
    assert found[0] == found[1]


def test_too_small_objects_are_said_before_training(small):
    rewrite(small, [{"extreme_points": [[5, 5]] * 4}])
    for stage in ("train_extractor", "train_generator"):
        with pytest.raises(UserError, match="none of the 1 objects has a box of at least 64 px; lower exits.crops.ran"):
            run(f"pipelines.exits.{stage}", small)


def test_objects_with_neither_points_nor_box_are_named(small):
    image = rewrite(small, [{"point": [3, 4]}])
    with pytest.raises(UserError, match=rf"image {image['id']} \(.*\), annotation 1: neither extreme points nor a box"):
        run("pipelines.exits.train_extractor", small)


def test_cells_that_a_transformer_does_not_have(tmp_path):
    folder = prepared(tmp_path, {"exits.extractor.encoder": ENCODERS["vit"], "exits.extractor.epochs": 0})
    run("pipelines.exits.train_extractor", folder)
    with pytest.raises(UserError, match="exits.propagation.cells is 8, the encoder has 4 tokens along a side"):
        run("pipelines.exits.propagate", folder, {"exits.propagation.cells": 8})

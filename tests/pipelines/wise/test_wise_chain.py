"""The whole WISE chain on nine tiny scenes, through the stages' own entries, with proposals made here."""

from __future__ import annotations

import contextlib
import io
import json
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from chain import assert_given, digests, mixed, working_in

from stages.labels import rle
from stages.proposals.provider import RECORD
from stages.proposals.segments import from_rles, read_proposals
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz

WIDTH, HEIGHT = 64, 48
STAGES = ("train_peaks", "find_points", "train_wise", "infer_maps", "synthesize", "illustrate")
BACKBONE = {"name": "resnet10t", "weights": "none", "stride": 16,
            "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
PARAMS = {
    "method": "wise", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 6, "val": 3, "width": WIDTH, "height": HEIGHT},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["points", "tags"]},
    "wise": {
        "cues": {"objectness": 0.3},
        "peaks": {"backbone": BACKBONE, "side": 64, "epochs": 1, "batch_size": 3},
        "network": {"backbone": BACKBONE, "strides": [16, 8, 4], "dimensions": 8, "flip": True, "epochs": 2,
                    "batch_size": 2, "optimizer": "adamw", "learning_rate": 0.002, "term_warmup": 4,
                    "pixels": 20, "hard": 100},
    },
    "report": {"gallery_images": 2, "validation_images": 1}, "score": {"oracle": ["proposal", "mask"]},
}


def run(module: str, folder: Path, **wise) -> None:
    """A stage's ``main`` in ``folder``, as DVC calls it, with other sections of `wise` if wanted."""
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump({**PARAMS, "wise": {**PARAMS["wise"], **wise}}))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()):
        import_module(module).main(params)


def propose(folder: Path) -> None:
    """Boxes of all sizes; every second image has hardly any."""
    rng = np.random.default_rng(0)
    for path in layout.WEAK.values():
        for image in json.loads((folder / path).read_text())["images"]:
            masks = np.zeros((60 if image["id"] % 2 else 2, HEIGHT, WIDTH), bool)
            for mask in masks:
                top, left = rng.integers(0, HEIGHT - 4), rng.integers(0, WIDTH - 4)
                mask[top:top + rng.integers(4, 30), left:left + rng.integers(4, 30)] = True
            found = from_rles((HEIGHT, WIDTH), [rle.encode(mask) for mask in masks], rng.random(len(masks)))
            write_npz(folder / f"data/proposals/{layout.image_key(image)}.npz", **found.arrays())
    (folder / "data/proposals" / RECORD).write_text(json.dumps(
        {"provider": "boxes", "trained_on_masks": False, "tuned_on_masks": False}))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    for module in ("stages.prepare.prepare", "stages.prepare.annotate"):
        run(module, folder)
    propose(folder)
    for stage in STAGES:
        run(f"pipelines.wise.{stage}", folder)
    return folder


def weak(workspace: Path, split: str) -> dict:
    return json.loads((workspace / layout.WEAK[split]).read_text())


def read(workspace: Path, name: str) -> dict:
    return json.loads((workspace / "data/wise" / name).read_text())


@pytest.mark.parametrize("split", ["train", "val"])
def test_intermediates_obey_their_contracts(workspace, split):
    content = weak(workspace, split)
    for image in content["images"]:
        own = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        points = read(workspace, f"points/{split}/{layout.image_key(image)}.json")
        assert points["points"] == [item["point"] for item in own]
        assert points["weak_ids"] == [item["id"] for item in own] and set(points["scores"]) <= {1}
        with np.load(workspace / f"data/wise/maps/{split}/{layout.image_key(image)}.npz") as arrays:
            count = len(arrays["lnet_yx"])
            assert arrays["blobs"].shape == (HEIGHT, WIDTH) and set(np.unique(arrays["blobs"])) <= {*range(count + 1)}
            assert len(arrays["lnet_scores"]) == len(arrays["lnet_categories"]) == count
            assert {number for number in arrays["lnet_categories"]} <= {item["id"] for item in content["categories"]}
            for number, (row, column) in enumerate(arrays["lnet_yx"], start=1):
                assert arrays["blobs"][row, column] == number
            groups = arrays["groups_given"]
            assert groups.min() >= -1 and groups.max() < max(len(own), 1)
            assert len(arrays["likeness_given"]) == len(own)
            assert ("groups_lnet" in arrays) == (split == "val")
            assert arrays["colours"].shape == (HEIGHT // 4, WIDTH // 4, 3)


def test_labels(workspace):
    train, val, given = (read(workspace, f"pseudo_labels{name}.json") for name in ("", "_val", "_val_points"))
    for content, split in ((train, "train"), (val, "val"), (given, "val")):
        assert [image["id"] for image in content["images"]] == [image["id"] for image in
                                                                weak(workspace, split)["images"]]
        assert all(0 <= item["score"] <= 1 and item["area"] > 0 for item in content["annotations"])
    for content, split in ((train, "train"), (given, "val")):  # one label per annotated object, its point in it
        objects = {item["id"]: item for item in weak(workspace, split)["annotations"]}
        assert [item["weak_id"] for item in content["annotations"]] == sorted(objects)
        for item in content["annotations"]:
            x, y = objects[item["weak_id"]]["point"]
            assert item["category_id"] == objects[item["weak_id"]]["category_id"]
            assert rle.decode(item["segmentation"])[y, x] and item["point"] == [x, y]
    figures = read(workspace, "figures.json")
    counts = [[sum(item["image_id"] == image["id"] for item in content["annotations"]) for image in val["images"]]
              for content in (val, given)]
    assert figures["figures"]["count_error"] == pytest.approx(np.abs(np.subtract(*counts)).mean(), abs=1e-3)
    assert 0 < figures["details"]["replaced"] <= 100 and figures["details"]["no_points"] == 0
    assert figures["proposals"]["provider"] == "boxes" and figures["proposals"]["trained_on_masks"] == 0
    assert set(figures["measured"]) == {"pseudo_labels_val.json", "pseudo_labels_val_points.json", "semantic"}


def test_semantic_maps(workspace):
    """Every pixel has the class of the smallest label that holds it."""
    train = read(workspace, "pseudo_labels.json")
    for image in train["images"]:
        shown = cv2.imread(str(workspace / f"data/wise/semantic/{layout.image_key(image)}.png"), cv2.IMREAD_UNCHANGED)
        own = [item for item in train["annotations"] if item["image_id"] == image["id"]]
        areas = np.array([item["area"] - item["id"] / 1e6 for item in own])[:, None, None]  # of equal ones the last
        masks = np.array([rle.decode(item["segmentation"]) for item in own]).astype(bool)
        owner = np.where(masks, areas, np.inf).argmin(0)
        categories = np.array([item["category_id"] for item in own])
        assert np.array_equal(shown, np.where(masks.any(0), categories[owner], 0))


def test_score_has_all_rows_of_table_1(workspace):
    """Both files of val labels, the oracles beside them, L-Net's error of counting, and who made the proposals."""
    run("stages.evaluation.score", workspace)
    found = json.loads((workspace / "metrics/detail/score.json").read_text())
    masks = found["oracle"]["objects"]["mask"]
    assert masks["voc"]["AP75"] == masks["coco"]["AP"] == 100
    truth = json.loads((workspace / layout.TRUTH["val"]).read_text())
    best = [read_proposals(workspace / "data/proposals", image).jaccards(rle.decode(item["segmentation"])).max()
            for image in truth["images"] for item in truth["annotations"] if item["image_id"] == image["id"]]
    # An object may be covered better by a proposal that is the best of another.
    assert found["oracle"]["objects"]["proposal"]["objects"]["mean_iou"] >= 100 * np.mean(best) - 1e-3 > 0
    located = len(read(workspace, "pseudo_labels_val.json")["annotations"])
    assert found["val"]["objects"]["labels"] == found["oracle"]["val"]["mask"]["objects"]["labels"] == located
    assert found["method"]["count_error"] == read(workspace, "figures.json")["figures"]["count_error"]
    short = json.loads((workspace / "metrics/score.json").read_text())
    assert short["proposals"] == {"provider": "boxes", "trained_on_masks": 0}
    assert list(short["method"]) == ["count_error"]


def test_images_labelled_in_full_keep_their_masks(workspace, tmp_path):
    full = mixed(workspace, tmp_path, ["points", "tags"], "data/wise/points", "data/wise/maps", "data/proposals")
    run("pipelines.wise.synthesize", tmp_path)
    assert_given(workspace, tmp_path, "wise", full)
    assert read(tmp_path, "figures.json")["figures"] == read(workspace, "figures.json")["figures"]


def test_gallery(workspace):
    panels = json.loads((workspace / "data/wise/gallery/panels.json").read_text())
    assert len(panels) == 3 * 5 and {panel["split"] for panel in panels} == {"train", "val"}
    assert all((workspace / "data/wise/gallery" / panel["picture"]).exists() for panel in panels)


def test_the_same_bytes_again(workspace):
    before = {folder: digests(workspace / folder) for folder in ("models/wise", "data/wise")}
    for stage in STAGES:
        run(f"pipelines.wise.{stage}", workspace)
    for folder, expected in before.items():
        assert digests(workspace / folder) == expected


def test_rows_of_table_1(workspace):
    given = read(workspace, "pseudo_labels_val_points.json")
    run("pipelines.wise.synthesize", workspace, synthesis={"val_points": "given"})
    assert read(workspace, "pseudo_labels_val.json") == given
    labels = {}
    for masks in ("blobs", "best_proposal", "embedding"):
        run("pipelines.wise.synthesize", workspace, synthesis={"masks": masks})
        labels[masks] = [[item["segmentation"]["counts"] for item in read(workspace, name)["annotations"]]
                         for name in ("pseudo_labels.json", "pseudo_labels_val.json")]
    assert labels["blobs"] != labels["best_proposal"] != labels["embedding"] != labels["blobs"]


def test_peaks_of_tags(workspace, tmp_path):
    """PRM + E-Net: the annotated points are not looked at."""
    import shutil

    for folder in ("data/dataset", "data/annotations", "data/proposals"):
        shutil.copytree(workspace / folder, tmp_path / folder)
    for path in layout.WEAK.values():
        content = json.loads((tmp_path / path).read_text())
        content["annotations"] = []
        (tmp_path / path).write_text(json.dumps(content))
    cues = {**PARAMS["wise"]["cues"], "source": "peaks", "peak": -100.0}
    for stage in STAGES:
        run(f"pipelines.wise.{stage}", tmp_path, cues=cues)
    names = {image["id"]: set(image["tags"]) for image in weak(tmp_path, "train")["images"]}
    rows = read(tmp_path, "pseudo_labels.json")["annotations"]
    assert rows and all(row["category_id"] in names[row["image_id"]] and "weak_id" not in row for row in rows)
    for path in (tmp_path / "data/wise/points/train").glob("*.json"):
        content = json.loads(path.read_text())
        assert all(-0.5 <= x <= WIDTH - 0.5 and -0.5 <= y <= HEIGHT - 0.5 for x, y in content["points"])


def test_no_points_at_all(workspace, tmp_path):
    import shutil

    for folder in ("data/dataset", "data/annotations", "data/proposals"):
        shutil.copytree(workspace / folder, tmp_path / folder)
    content = json.loads((tmp_path / layout.WEAK["train"]).read_text())
    (tmp_path / layout.WEAK["train"]).write_text(json.dumps({**content, "annotations": []}))
    run("pipelines.wise.find_points", tmp_path)
    with pytest.raises(UserError, match="no training image has a point; WISE learns from points"):
        run("pipelines.wise.train_wise", tmp_path)
    for item in content["annotations"]:
        item.pop("point")
    (tmp_path / layout.WEAK["train"]).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"without a point; annotations.kinds must be \[points\]"):
        run("pipelines.wise.find_points", tmp_path)

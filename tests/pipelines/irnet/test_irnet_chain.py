"""The whole IRNet chain on nine tiny scenes, through the stages' own entries."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from chain import assert_given, digests, mixed, working_in

from stages.labels import rle
from stages.runtime import layout

WIDTH, HEIGHT, GRID = 64, 48, 4
STAGES = ("train_classifier", "infer_cams", "mine_relations", "train_irnet", "infer_fields", "propagate", "synthesize",
          "illustrate")
AUGMENT = {"crop": 48, "long_side": None, "scale": [0.9, 1.2]}
PARAMS = {
    "method": "irnet", "seed": 3, "runtime": {"device": "cpu", "workers": 1},
    "dataset": {"kind": "shapes", "shapes": {"train": 6, "val": 3, "width": WIDTH, "height": HEIGHT},
                "allow_empty_classes": True},
    "annotations": {"kinds": ["tags"]},
    "irnet": {
        "grid": GRID,
        "classifier": {"backbone": {"name": "resnet10t", "weights": "none", "stride": 8,
                                    "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}},
                       "augment": AUGMENT, "optimizer": "adamw", "learning_rate": 0.003, "epochs": 1, "batch_size": 3},
        "cams": {"scales": [1.0], "flip": True},
        "relations": {"crf": {"iterations": 2}},
        "network": {"channels": 8, "boundary_channels": 4, "augment": AUGMENT, "epochs": 1, "batch_size": 3,
                    "radius": 4},
        "propagation": {"radius": 3, "steps": 32, "refinements": 20},
        # One epoch teaches nothing: keep whatever the maps say, so that there are labels to look at.
        "synthesis": {"fragment": 0.0},
    },
    "report": {"gallery_images": 2},
}


def run(module: str, folder: Path, irnet: dict | None = None, **runtime) -> None:
    """A stage's ``main`` in ``folder``, as DVC calls it, with other settings of IRNet or runtime if wanted."""
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump({**PARAMS, "runtime": {**PARAMS["runtime"], **runtime},
                                      "irnet": {**PARAMS["irnet"], **(irnet or {})}}))
    with working_in(folder), contextlib.redirect_stderr(io.StringIO()):
        import_module(module).main(params)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    for module in ("stages.prepare.prepare", "stages.prepare.annotate",
                   *(f"pipelines.irnet.{stage}" for stage in STAGES)):
        run(module, folder)
    return folder


@pytest.fixture(scope="module")
def weak(workspace) -> dict:
    return json.loads((workspace / layout.WEAK["train"]).read_text())


def arrays(workspace: Path, folder: str, image: dict) -> dict[str, np.ndarray]:
    with np.load(workspace / "data" / "irnet" / folder / f"{layout.image_key(image)}.npz") as archive:
        return {name: archive[name] for name in archive.files}


def test_inference_in_mixed_precision(workspace, weak, tmp_path):
    """Files of the same contract, and nearly the same content."""
    for name in ("data", "models"):
        shutil.copytree(workspace / name, tmp_path / name)
    for stage in ("infer_cams", "infer_fields"):
        run(f"pipelines.irnet.{stage}", tmp_path, precision="bf16-mixed")
    for folder, names in (("cams", ["cams"]), ("fields", ["displacement", "boundary"])):
        errors = []
        for image in weak["images"]:
            single, mixed = arrays(workspace, folder, image), arrays(tmp_path, folder, image)
            for name in names:
                assert mixed[name].dtype == single[name].dtype == np.float16
                assert mixed[name].shape == single[name].shape and np.isfinite(mixed[name]).all()
                apart = np.linalg.norm(mixed[name].astype(float) - single[name].astype(float))
                errors.append(apart / max(np.linalg.norm(single[name].astype(float)), 1e-9))
        assert 0 < max(errors) < 0.1, errors


def test_intermediates_obey_their_contracts(workspace, weak):
    cells = (HEIGHT // GRID, WIDTH // GRID)
    things = {category["id"] for category in weak["categories"] if category["isthing"]}
    assert len(weak["images"]) == 6
    for image in weak["images"]:
        classes = sorted(set(image["tags"]) & things)
        cams = arrays(workspace, "cams", image)
        assert cams["classes"].tolist() == classes
        assert cams["cams"].shape == (len(classes), *cells)
        assert cams["cams"].dtype == np.float16
        assert all(peak in (0, 1) for peak in cams["cams"].max(axis=(1, 2), initial=0))

        relations = arrays(workspace, "relations", image)
        assert relations["labels"].shape == (HEIGHT, WIDTH)
        assert set(np.unique(relations["labels"])) <= {*range(len(classes) + 1), 255}

        fields = arrays(workspace, "fields", image)
        assert fields["displacement"].shape == (2, *cells)
        assert fields["boundary"].shape == cells
        assert 0 <= fields["boundary"].min() <= fields["boundary"].max() <= 1

        walked = arrays(workspace, "propagated", image)
        assert walked["classes"].tolist() == classes
        assert walked["semantic"].shape == (len(classes), *cells)
        assert walked["instances"].shape == cells
        assert walked["scores"].shape == (len(walked["pairs"]), *cells)
        assert walked["semantic"].min(initial=0) >= 0
        for c, k in walked["pairs"]:
            assert 0 <= c < len(classes)
            assert 0 <= k <= walked["instances"].max()
        # The walk is linear: the instances of a class add up to no more than the class.
        for c in range(len(classes)):
            together = walked["scores"][walked["pairs"][:, 0] == c].astype(np.float32).sum(0)
            assert (together <= walked["semantic"][c].astype(np.float32) + 2e-3).all()


def test_pseudo_labels_load_in_pycocotools(workspace, weak):
    from pycocotools.coco import COCO

    path = workspace / layout.pseudo_labels("irnet")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    content = json.loads(path.read_text())
    assert sorted(coco.getImgIds()) == [image["id"] for image in weak["images"]]
    assert content["categories"] == weak["categories"]
    assert len(coco.anns) == len(content["annotations"]) > 0
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(coco.anns) + 1))
    tags = {image["id"]: set(image["tags"]) for image in weak["images"]}
    covered: dict[int, np.ndarray] = {}
    for row in coco.anns.values():
        mask = coco.annToMask(row)
        assert mask.shape == (HEIGHT, WIDTH)
        assert row["area"] == mask.sum() > 0
        assert row["bbox"] == rle.bbox(row["segmentation"])
        assert 0 <= row["score"] <= 1
        assert row["iscrowd"] == 0
        assert row["category_id"] in tags[row["image_id"]]
        covered[row["image_id"]] = covered.get(row["image_id"], 0) + mask
    assert all(count.max() == 1 for count in covered.values())


def test_semantic_pictures(workspace, weak):
    assert len(list((workspace / "data/irnet/semantic").iterdir())) == len(weak["images"])
    for image in weak["images"]:
        picture = cv2.imread(str(workspace / "data/irnet/semantic" / f"{layout.image_key(image)}.png"),
                             cv2.IMREAD_UNCHANGED)
        assert picture.shape == (HEIGHT, WIDTH)
        assert picture.dtype == np.uint8
        assert set(np.unique(picture)) <= {0, *image["tags"]}


def test_images_labelled_in_full_keep_their_masks(workspace, weak, tmp_path):
    full = mixed(workspace, tmp_path, ["tags"], "data/irnet/cams", "data/irnet/propagated", "models/irnet/classifier",
                 "models/irnet/irnet")
    run("pipelines.irnet.synthesize", tmp_path)
    assert_given(workspace, tmp_path, "irnet", full)
    truth = json.loads((tmp_path / layout.TRUTH["train"]).read_text())
    things = {category["id"] for category in truth["categories"] if category["isthing"]}
    for image in weak["images"]:
        before, after = (cv2.imread(str(folder / f"data/irnet/semantic/{layout.image_key(image)}.png"),
                                    cv2.IMREAD_UNCHANGED) for folder in (workspace, tmp_path))
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        for item in truth["annotations"]:
            if item["image_id"] == image["id"] and item["category_id"] in things:
                expected[rle.decode(item["segmentation"])] = item["category_id"]
        assert np.array_equal(after, expected if image["id"] in full else before)


def test_models_and_metrics(workspace):
    import torch

    metrics = json.loads((workspace / "models/irnet/classifier/metrics.json").read_text())
    assert {"train", "val"} <= set(metrics)
    assert 0 <= metrics["train"]["map"] <= 100
    for name in ("classifier", "irnet"):
        assert (workspace / "models/irnet" / name / "weights.pt").exists()
        assert any((workspace / "models/irnet" / name / "curves").rglob("*.tsv"))
    state = torch.load(workspace / "models/irnet/irnet/weights.pt", weights_only=True)
    assert not any(name.startswith("backbone.") for name in state)
    assert state["displacement_mean"].shape == (2,)
    assert state["displacement_mean"].abs().max() > 0
    assert not list((workspace / ".work").glob("irnet-*-*"))


def test_figures(workspace, weak):
    content = json.loads((workspace / "data/irnet/figures.json").read_text())
    figures = content["figures"]
    metrics = json.loads((workspace / "models/irnet/classifier/metrics.json").read_text())
    assert figures["classifier_mAP"] == metrics["val"]["map"]
    rows = json.loads((workspace / layout.pseudo_labels("irnet")).read_text())["annotations"]
    assert figures["instances_per_image"] == pytest.approx(len(rows) / len(weak["images"]), abs=1e-3)
    assert figures["fragments"] == pytest.approx(100 * sum(row["score"] == 0 for row in rows) / len(rows), abs=0.01)
    assert list(content["measured"]) == ["semantic"]
    network = json.loads((workspace / "models/irnet/irnet/metrics.json").read_text())
    assert content["details"] == network
    assert network["displacement_error_of_zeros"] > 1 and network["displacement_error"] > 0
    assert network["displacement_error"] == network["displacement_error_dy"] + network["displacement_error_dx"]


def test_the_mean_over_the_training_images_is_gone(workspace, weak):
    # Without flip averaging the stored fields would have mean 0; with it the mean of dx cancels in each image pair.
    rows = [arrays(workspace, "fields", image)["displacement"].astype(np.float64) for image in weak["images"]]
    magnitude = np.mean([np.abs(field).mean() for field in rows])
    assert abs(np.mean([field[0].mean() for field in rows])) < 0.2 * magnitude + 0.05


def test_gallery(workspace, weak):
    folder = workspace / "data/irnet/gallery"
    panels = json.loads((folder / "panels.json").read_text())
    assert {panel["image_id"] for panel in panels} == {image["id"] for image in weak["images"][:2]}
    for panel in panels:
        assert panel["title"]
        assert panel["split"] == "train"
        assert cv2.imread(str(folder / panel["picture"])) is not None


def test_attention_split_by_instances(workspace, weak):
    """`scores: cam` with `instances: displacement`: the maps before the walk decide, not those after it."""
    path = workspace / layout.pseudo_labels("irnet")
    labels = {}
    for scores in ("propagated", "cam"):
        run("pipelines.irnet.synthesize", workspace, irnet={"synthesis": {"fragment": 0.0, "scores": scores}})
        labels[scores] = path.read_text()
        for row in json.loads(labels[scores])["annotations"]:
            image = next(image for image in weak["images"] if image["id"] == row["image_id"])
            key = "cams" if scores == "cam" else "semantic"
            stored = arrays(workspace, "cams" if scores == "cam" else "propagated", image)
            highest = stored[key][stored["classes"].tolist().index(row["category_id"])].max()
            assert row["score"] <= float(highest) + 1e-3
    assert labels["cam"] != labels["propagated"]
    assert any(row["score"] > 0.99 for row in json.loads(labels["cam"])["annotations"])  # a CAM's own maximum is 1
    run("pipelines.irnet.synthesize", workspace)
    assert path.read_text() == labels["propagated"]


def test_synthesis_repeats_itself(workspace):
    path = workspace / layout.pseudo_labels("irnet")
    labels, pictures = path.read_bytes(), digests(workspace / "data/irnet/semantic")
    for workers in (1, 2):
        run("pipelines.irnet.synthesize", workspace, workers=workers)
        assert path.read_bytes() == labels
        assert digests(workspace / "data/irnet/semantic") == pictures


def test_two_workers_give_the_same_bytes(workspace):
    folders = {"mine_relations": "relations", "propagate": "propagated"}
    before = {folder: digests(workspace / "data/irnet" / folder) for folder in folders.values()}
    for stage, folder in folders.items():
        run(f"pipelines.irnet.{stage}", workspace, workers=2)
        assert digests(workspace / "data/irnet" / folder) == before[folder]


def test_networks_repeat_themselves(workspace):
    models = [workspace / "models/irnet" / name / "weights.pt" for name in ("classifier", "irnet")]
    before = [path.read_bytes() for path in models]
    run("pipelines.irnet.train_classifier", workspace)
    run("pipelines.irnet.train_irnet", workspace)
    assert [path.read_bytes() for path in models] == before


def test_no_stage_reads_the_truth(workspace):
    """Remove the truth: everything that makes labels must still run."""
    hidden = {path: (workspace / path).read_bytes() for path in layout.TRUTH.values()}
    labels = (workspace / layout.pseudo_labels("irnet")).read_bytes()
    for path in hidden:
        (workspace / path).unlink()
    try:
        for stage in ("infer_cams", "mine_relations", "infer_fields", "propagate", "synthesize", "illustrate"):
            run(f"pipelines.irnet.{stage}", workspace)
    finally:
        for path, content in hidden.items():
            (workspace / path).write_bytes(content)
    assert (workspace / layout.pseudo_labels("irnet")).read_bytes() == labels

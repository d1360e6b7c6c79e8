"""A detector of boxes: labels without masks, a network without a mask head, results without segmentations."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from detector_scenes import CATEGORIES, HEIGHT, WIDTH, square, write_params

from stages.detector import engines, network, predict, train
from stages.detector.data import coco_results, read_boxes, read_labels
from stages.detector.finding import detection_stage, read_model
from stages.detector.learning import training_stage
from stages.detector.samples import TrainingSamples
from stages.labels import coco, rle
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings

RUNTIME = RuntimeSettings(device="cpu", workers=1)
MODEL, DETECTIONS = layout.method_models("panoptic") / "detector", layout.method_data("panoptic") / "detections.json"
ENGINES = [pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=missing))
           for name, missing in engines.available_engines().items()]


@pytest.fixture
def weak(dataset):
    """The data set's boxes as weak annotations, its crowd as one, and an object labelled in full without a box."""
    content = coco.read_coco(layout.pseudo_labels("irnet"))
    rows = [{key: item[key] for key in ("id", "image_id", "category_id", "iscrowd", "bbox")}
            for item in content["annotations"] if item["category_id"] != 200]
    rows.append({"id": 900, "image_id": 14, "category_id": 7, "iscrowd": 0,
                 "segmentation": rle.encode(square(3, 5, 9))})
    rows.append({"id": 901, "image_id": 14, "category_id": 200, "iscrowd": 0,
                 "segmentation": rle.encode(square(0, 0, 40))})
    images = [{**image, "tags": [7, 90]} for image in content["images"]]
    layout.WEAK["train"].write_text(json.dumps({"images": images, "categories": CATEGORIES, "annotations": rows}))
    return layout.WEAK["train"]


def test_labels_are_boxes(weak, tiny):
    labels = read_boxes(weak, layout.IMAGES, tiny.train)
    masks = read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, tiny.train)
    assert not labels.masks and masks.masks and labels.categories == masks.categories
    assert [item["bbox"] for item in labels.instances[11]] == [[6, 4, 12, 12], [26, 20, 14, 14]]
    assert labels.instances[14] == [{"category_id": 7, "bbox": [5, 3, 9, 9]}], "of the mask, where there is no box"
    assert (rle.decode(labels.crowds[11][0]) == square(0, 36, 10)).all()
    assert not read_boxes(weak, layout.IMAGES, tiny.train.model_copy(update={"ignore_crowds": False})).crowds[11]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_samples_are_those_of_masks_without_masks(weak, tiny, flip):
    settings = tiny.train.model_copy(update={"flip": flip, "min_sides": (60,), "max_side": 200})
    with_masks = TrainingSamples(read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, settings), settings)
    without = TrainingSamples(read_boxes(weak, layout.IMAGES, settings), settings)
    for index in range(3):
        image, target = with_masks.sample(index, np.random.default_rng(0))
        same, boxes = without.sample(index, np.random.default_rng(0))
        assert torch.equal(image, same) and "masks" not in boxes
        assert all(torch.equal(boxes[key], target[key]) for key in {*target} - {"masks"})


def test_labels_without_boxes_are_named(weak, tiny):
    content = json.loads(weak.read_text())
    del content["annotations"][0]["bbox"]
    weak.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"image 11, annotation \d+: no bbox; .*annotations.kinds: \[boxes\]"):
        read_boxes(weak, layout.IMAGES, tiny.train)
    weak.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(UserError, match="no instance of any thing class"):
        read_boxes(weak, layout.IMAGES, tiny.train)


def test_the_network_has_no_mask_head(tiny):
    torch.manual_seed(0)
    model = network.build(tiny.torchvision, tiny.predict, 2, masks=False).train()
    whole = network.build(tiny.torchvision, tiny.predict, 2)
    names = {name for name, _ in model.named_parameters()}
    assert {name for name, _ in whole.named_parameters()} - names == {
        name for name, _ in whole.named_parameters() if ".mask_" in name}
    target = {"boxes": torch.tensor([[4.0, 4, 20, 20]]), "labels": torch.tensor([1]),
              "crowd": torch.zeros(40, 48, dtype=torch.bool)}
    losses = model([torch.rand(3, 40, 48)], network.Targets([target]))
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    found = model.eval()([torch.rand(3, 30, 50)])[0]
    assert set(found) == {"boxes", "labels", "scores"}


def test_results_without_masks(dataset):
    detections = [{"label": 1, "score": 0.5, "box_xyxy": np.array([6, 4, 18, 16], np.float32), "mask": None}]
    assert coco_results(11, detections, [{"id": 7}, {"id": 90}]) == [
        {"image_id": 11, "category_id": 90, "bbox": [6.0, 4.0, 12.0, 12.0], "score": 0.5}]


@pytest.mark.parametrize("engine", ENGINES)
def test_train_and_find(weak, tiny, engine):
    """As a method's own stages call it, from boxes to a list of boxes, twice with the same bytes."""
    warnings.filterwarnings("ignore", message=".*pkg_resources.*")
    settings, params = tiny.model_copy(update={"engine": engine}), write_params(engine)
    labels = read_boxes(weak, layout.IMAGES, settings.train)
    val = coco.read_coco(layout.WEAK["val"])["images"]
    found = []
    for _ in range(2):
        training_stage(train.__file__, params, labels, settings, inputs=[weak, layout.IMAGES], seed=3,
                       runtime=RUNTIME, output=MODEL, section="panoptic.detector")
        detection_stage(predict.__file__, params, MODEL, {"val": val}, {"val": DETECTIONS}, predict=settings.predict,
                        inputs=[layout.WEAK["val"]], runtime=RUNTIME)
        found.append(DETECTIONS.read_bytes())
    assert found[0] == found[1]
    trained = read_model(MODEL)
    assert not trained.masks and trained.categories == labels.categories and trained.settings.engine == engine
    results = json.loads(found[0])
    assert results and {item["category_id"] for item in results} <= {7, 90}
    assert all(set(item) == {"image_id", "category_id", "bbox", "score"} for item in results)
    assert results == sorted(results, key=lambda item: (item["image_id"], -item["score"]))
    for x, y, w, h in (item["bbox"] for item in results):
        assert -0.01 <= x <= x + w <= WIDTH + 0.01 and -0.01 <= y <= y + h <= HEIGHT + 0.01
    curves = {path.stem for path in (MODEL / "curves/plots/metrics").iterdir()}
    assert "loss_box_reg" in curves and "loss_mask" not in curves


def test_a_model_from_before_boxes_draws_masks(dataset, tiny):
    MODEL.mkdir(parents=True)
    content = {**tiny.network(), "seed": 3, "categories": [{"id": 7, "name": "box"}]}
    (MODEL / "settings.json").write_text(json.dumps(content))
    assert read_model(MODEL).masks


def test_errors_name_the_section_that_the_settings_stand_in(tiny):
    wrong = tiny.model_copy(update={"torchvision": tiny.torchvision.model_copy(update={"weights": "nowhere.pth"})})
    with pytest.raises(UserError, match=r"^panoptic\.detector\.torchvision\.weights: no such file: nowhere"):
        engines.check(wrong, "panoptic.detector")
    with pytest.raises(UserError, match=r"^detector\.torchvision\.weights: no such file: nowhere"):
        engines.check(wrong)

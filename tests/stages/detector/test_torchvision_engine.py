"""The torchvision engine: network, crowd rules, weights files, and its stages from labels to predictions."""

from __future__ import annotations

import json
import math

import pytest
import torch
from detector_scenes import write_params
from pycocotools.coco import COCO

from stages.detector import engines, finding, network, predict, train
from stages.detector.torchvision_engine import _optimizer, rate_factor
from stages.runtime import layout
from stages.runtime.errors import UserError


def build(tiny, classes=2, **change):
    settings = tiny.torchvision.model_copy(update=change)
    return network.build(settings, tiny.predict, classes)


def target(boxes, crowd=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), 40, 48, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    found = {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64), "masks": masks}
    return found if crowd is None else {**found, "crowd": crowd}


def test_losses_are_finite_for_full_and_empty_images(tiny):
    torch.manual_seed(0)
    model = build(tiny).train()
    images = [torch.rand(3, 40, 48), torch.rand(3, 40, 48)]
    for targets in ([target([[4, 4, 20, 20]]), target([])], [target([]), target([])]):
        losses = model(images, network.Targets(targets))
        assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
        assert all(torch.isfinite(loss) for loss in losses.values())


def test_anchors_in_crowds_are_no_negatives(tiny):
    model = build(tiny).train()
    anchors = [torch.tensor([[4, 4, 20, 20], [30, 20, 40, 30], [0, 25, 10, 35]]).float()]
    crowd = torch.zeros(40, 48, dtype=torch.bool)
    crowd[18:32, 28:42] = True
    plain, _ = model.rpn.assign_targets_to_anchors(anchors, [target([[4, 4, 20, 20]])])
    ignoring, _ = model.rpn.assign_targets_to_anchors(anchors, [target([[4, 4, 20, 20]], crowd)])
    assert plain[0].tolist() == [1, 0, 0]
    assert ignoring[0].tolist() == [1, -1, 0]


def test_proposals_in_crowds_are_no_negatives(tiny):
    torch.manual_seed(0)
    model = build(tiny).train()
    crowd = torch.zeros(40, 48, dtype=torch.bool)
    crowd[18:32, 28:42] = True
    proposals = [torch.tensor([[30, 20, 40, 30], [0, 25, 10, 35]]).float()]
    used, _, labels, _ = model.roi_heads.select_training_samples(proposals, [target([[4, 4, 20, 20]], crowd)])
    assert sorted(used[0].tolist()) == [[0, 25, 10, 35], [4, 4, 20, 20]]
    assert sorted(labels[0].tolist()) == [0, 1]


def test_a_batch_wholly_under_crowds_still_has_a_loss(tiny):
    torch.manual_seed(0)
    model = build(tiny).train()
    everywhere = torch.ones(40, 48, dtype=torch.bool)
    losses = model([torch.rand(3, 40, 48)], network.Targets([target([[4, 4, 20, 20]], everywhere)]))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_frozen_batch_norm_has_nothing_to_train(tiny):
    trained = {name for name, parameter in build(tiny).backbone.body.named_parameters() if parameter.requires_grad}
    frozen = {name for name, parameter in build(tiny, batch_norm="frozen").backbone.body.named_parameters()}
    assert any("bn1" in name for name in trained)
    assert not any("bn1" in name for name in frozen)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050"])
def test_layers_up_to_a_stride_are_frozen(tiny, backbone):
    body = build(tiny, backbone=backbone, backbone_arguments={}, frozen_stride=4).backbone.body
    frozen = [parameter.requires_grad for parameter in body.parameters()]
    assert frozen == sorted(frozen)
    assert 0 < sum(frozen) < len(frozen)
    image = torch.rand(2, 3, 64, 64)
    finest, coarser = body(image)
    assert not finest.requires_grad
    assert coarser.requires_grad


def test_norms_and_biases_are_not_decayed_and_the_backbone_has_its_rate(tiny):
    settings = tiny.model_copy(update={"torchvision": tiny.torchvision.model_copy(update={"backbone_factor": 0.1})})
    model = build(settings)
    groups = _optimizer(model, settings).param_groups
    decay, rate = settings.train.weight_decay, settings.train.learning_rate
    assert [group["weight_decay"] for group in groups] == [decay, 0, decay, 0]
    assert [group["lr"] for group in groups] == pytest.approx([rate, rate, 0.1 * rate, 0.1 * rate])
    assert all(parameter.ndim > 1 for parameter in [*groups[0]["params"], *groups[2]["params"]])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(("change", "message"), [
    ({"backbone": "resnet1"}, "timm cannot make 'resnet1'"),
    ({"backbone_arguments": {"nonsense": 1}}, "timm cannot make 'resnet18'"),
    ({"levels": (4, 8, 16, 32, 64)}, "has no stride 64"),
    ({"frozen_stride": 3}, "frozen_stride: resnet18 has no stride 3"),
    ({"weights": "nowhere.pth"}, "no such file"),
])
def test_networks_that_do_not_exist(tiny, change, message):
    wrong = tiny.model_copy(update={"torchvision": tiny.torchvision.model_copy(update=change)})
    with pytest.raises(UserError, match=message):
        engines.check(wrong)


def test_check_passes_what_can_be_made_and_downloads_nothing(tiny):
    engines.check(tiny)
    engines.check(tiny.model_copy(update={"torchvision": tiny.torchvision.model_copy(update={"weights": "imagenet"})}))


def test_backbone_weights_from_a_file(tiny, tmp_path):
    import timm

    arguments = tiny.torchvision.backbone_arguments
    torch.manual_seed(5)
    whole = timm.create_model("resnet18", num_classes=3, **arguments)
    path = tmp_path / "classifier.pth"
    torch.save({"state_dict": whole.state_dict()}, path)
    model = build(tiny, weights=str(path))
    assert torch.equal(model.backbone.body.state_dict()["conv1.weight"], whole.state_dict()["conv1.weight"])
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not fit the backbone"):
        build(tiny, weights=str(path))
    path.write_text("not weights")
    with pytest.raises(UserError, match="detector.torchvision.weights: .*cannot be read as PyTorch weights"):
        build(tiny, weights=str(path))


def test_rate_rises_and_falls(tiny):
    cosine = tiny.train.model_copy(update={"steps": 100, "warmup_steps": 10})
    assert rate_factor(0.0, cosine) == pytest.approx(0.001)
    assert rate_factor(0.10, cosine) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.1)))
    assert rate_factor(0.99, cosine) < 0.001
    steps = cosine.model_copy(update={"decay": "milestones", "milestones": (0.6, 0.8), "warmup_steps": 0})
    assert [rate_factor(done, steps) for done in (0, 0.59, 0.6, 0.8)] == pytest.approx([1, 1, 0.1, 0.01])


def test_stages_train_and_predict(dataset):
    train.main(write_params())
    folder = layout.method_models("irnet") / "detector"
    assert {path.name for path in folder.iterdir()} == {"model.pth", "settings.json", "curves"}
    assert json.loads((folder / "settings.json").read_text())["categories"][0] == {"id": 7, "name": "box"}
    curve = (folder / "curves/plots/metrics/loss_mask.tsv").read_text().splitlines()
    assert curve[0] == "step\tloss_mask"
    predict.main(write_params())
    results = json.loads(layout.predictions("irnet").read_text())
    assert results
    assert {item["category_id"] for item in results} <= {7, 90}
    assert results == sorted(results, key=lambda item: (item["image_id"], -item["score"]))
    COCO(str(layout.TRUTH["val"])).loadRes(results)


def test_mixed_precision_trains(dataset):
    train.main(write_params(steps=2, precision="bf16-mixed"))
    weights = torch.load(layout.method_models("irnet") / "detector/model.pth", weights_only=True)
    assert all(value.dtype != torch.bfloat16 and torch.isfinite(value).all() for value in weights.values())


def test_interrupted_training_ends_in_the_same_weights(dataset, monkeypatch):
    path = write_params(steps=5, checkpoint_seconds=1e-9)
    train.main(path)
    weights = layout.method_models("irnet") / "detector/model.pth"
    curve = layout.method_models("irnet") / "detector/curves/plots/metrics/learning_rate.tsv"
    whole, points = torch.load(weights, weights_only=True), curve.read_text()
    weights.unlink()

    forward, calls = network.GeneralizedRCNN.forward, []

    def dying(self, *arguments):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(network.GeneralizedRCNN, "forward", dying)
    with pytest.raises(KeyboardInterrupt):
        train.main(path)
    monkeypatch.setattr(network.GeneralizedRCNN, "forward", forward)
    assert not weights.exists()
    train.main(path)
    again = torch.load(weights, weights_only=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert curve.read_text() == points


def test_interrupted_prediction_goes_on(dataset, monkeypatch):
    path = write_params()
    train.main(path)
    predict.main(path)
    whole = layout.predictions("irnet").read_bytes()
    results, seen = finding.coco_results, []

    def dying(image_id, *arguments):
        seen.append(image_id)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return results(image_id, *arguments)

    monkeypatch.setattr(finding, "coco_results", dying)
    with pytest.raises(KeyboardInterrupt):
        predict.main(path)
    predict.main(path)
    assert len(seen) == 5
    assert seen[2] == seen[3]
    assert len(set(seen)) == 4
    assert layout.predictions("irnet").read_bytes() == whole


def test_a_model_of_another_kind_is_refused(dataset):
    folder = layout.method_models("irnet") / "detector"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text('{"engine": "torchvision"}')
    with pytest.raises(UserError, match="not the settings of a detector"):
        predict.main(write_params())

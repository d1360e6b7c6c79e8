"""Average precision against torchmetrics and a plain loop; the training samples; saving and loading."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from stages.cues.classification import (
    TaggedImages,
    classifier_backbone,
    classifier_training,
    describe_classifier,
    load_classifier,
    mean_average_precision,
    multi_hot,
    probabilities,
    tag_losses,
)
from stages.cues.classifier import Classifier
from stages.cues.settings import AugmentSettings, BackboneSettings, ClassifierSettings
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.weights import save_weights

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=8, freeze_batch_norm=True,
                          arguments={"channels": [8, 8, 16, 16], "stem_width": 8})


def by_loop(scores: list[float], truth: list[int]) -> float:
    """Mean over the positives of the share of positives among all that rank as high."""
    ranked = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    total, hits = 0.0, 0
    for rank, index in enumerate(ranked, start=1):
        if truth[index]:
            hits += 1
            total += hits / rank
    return total / hits


def test_average_precision_against_references():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    generator = np.random.default_rng(0)
    scores = generator.random((60, 5)).astype(np.float32)
    targets = (generator.random((60, 5)) < np.array([0.5, 0.1, 0.9, 0.3, 0.02])).astype(np.float32)
    targets[0, 4] = 1
    found = mean_average_precision(scores, targets)
    assert sorted(found) == [0, 1, 2, 3, 4]
    reference = torchmetrics.multilabel_average_precision(torch.from_numpy(scores), torch.from_numpy(targets).int(), 5,
                                                          average=None)
    for index, value in found.items():
        assert value == pytest.approx(by_loop(scores[:, index].tolist(), targets[:, index].tolist()), abs=1e-9)
        assert value == pytest.approx(float(reference[index]), abs=1e-5)


def test_average_precision_of_special_cases():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
    found = mean_average_precision(np.array([[0.9, 0.1, 0.5], [0.1, 0.2, 0.5], [0.8, 0.3, 0.5]]), targets)
    assert found == {0: 1.0, 2: 1.0}  # class 1 does not occur
    worst = mean_average_precision(np.array([[0.1], [0.9], [0.8]]), np.array([[1], [0], [0]]))
    assert worst == {0: pytest.approx(1 / 3)}
    assert mean_average_precision(np.zeros((0, 2)), np.zeros((0, 2))) == {}
    # Equal scores keep the images' order.
    assert mean_average_precision(np.zeros((2, 1)), np.array([[0], [1]])) == {0: 0.5}


def entries() -> list[dict]:
    return [{"id": 1, "file_name": "a.png", "tags": [3, 11]}, {"id": 2, "file_name": "b.png", "tags": []}]


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), generator.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), generator.integers(0, 256, (30, 20), dtype=np.uint8))
    return tmp_path


def test_multi_hot():
    assert multi_hot(entries(), [1, 3, 5]).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert multi_hot([], [1, 3]).shape == (0, 2)


def test_tagged_images(folder):
    samples = TaggedImages(folder, entries(), [1, 3], AugmentSettings(crop=32, long_side=(20, 40)))
    assert len(samples) == 2
    sample = samples.sample(0, np.random.default_rng(1))
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.uint8
    assert sample["target"].tolist() == [0, 1]
    assert samples.sample(1, np.random.default_rng(1))["target"].tolist() == [0, 0]
    assert torch.equal(sample["image"], samples.sample(0, np.random.default_rng(1))["image"])
    assert not torch.equal(sample["image"], samples.sample(0, np.random.default_rng(2))["image"])


def test_loss_is_the_cross_entropy_of_the_tags():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = tag_losses(torch.nn.Identity(), {"image": logits, "target": target})
    probability = 1 / (1 + np.exp(-logits.numpy()))
    wanted = -np.mean(np.where(target.numpy() == 1, np.log(probability), np.log(1 - probability)))
    assert float(found["classification"]) == pytest.approx(wanted, abs=1e-12)


def test_probabilities_of_whole_images(folder):
    torch.manual_seed(0)
    model = Classifier(NARROW, 3)
    found = probabilities(model, folder, entries())
    assert found.shape == (2, 3)
    assert not model.training
    assert ((found > 0) & (found < 1)).all()
    assert probabilities(model, folder, []).shape == (0, 3)


def save(folder, model: Classifier, category_ids: list[int]) -> None:
    """What ``train_stage`` leaves."""
    describe_classifier(folder, model, category_ids)
    save_weights(folder / "weights.pt", model.state_dict())


def test_save_and_load(tmp_path):
    torch.manual_seed(0)
    model = Classifier(NARROW, 3, dropout=0.2, scale=4.0).eval()
    save(tmp_path / "models", model, [2, 5, 9])
    copy, category_ids = load_classifier(tmp_path / "models", torch.device("cpu"))
    assert category_ids == [2, 5, 9]
    assert not copy.training
    image = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(model(image), copy(image))
        assert torch.equal(model.backbone(image), classifier_backbone(tmp_path / "models", torch.device("cpu"))(image))
    assert copy.backbone.grid == model.backbone.grid
    assert copy.backbone.settings.freeze_batch_norm


def test_what_is_inserted_is_saved_and_wanted_back(tmp_path):
    model = Classifier(NARROW, 3)
    model.insert_behind("layer4", torch.nn.Conv2d(16, 16, 1))
    save(tmp_path, model, [2, 5, 9])
    copy, _ = load_classifier(tmp_path, torch.device("cpu"), {"layer4": torch.nn.Conv2d(16, 16, 1)})
    assert torch.equal(copy.inserted["layer4"].weight, model.inserted["layer4"].weight)
    with pytest.raises(UserError, match=r"weights\.pt: does not fit.*inserted\.layer4\.\w+ is unknown"):
        load_classifier(tmp_path, torch.device("cpu"))


def test_a_saved_classifier_that_does_not_fit(tmp_path):
    save(tmp_path, Classifier(NARROW, 3), [2, 5, 9])
    described = json.loads((tmp_path / "classifier.json").read_text())
    described["category_ids"] = [2, 5]
    (tmp_path / "classifier.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"weights\.pt: does not fit"):
        load_classifier(tmp_path, torch.device("cpu"))
    (tmp_path / "classifier.json").unlink()
    with pytest.raises(UserError, match=r"classifier\.json"):
        load_classifier(tmp_path, torch.device("cpu"))


# --- what a method brings to the training stage -------------------------------------------------------------------


def weak() -> dict[str, dict]:
    categories = [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog", "isthing": 1},
                  {"id": 11, "name": "sky", "isthing": 0}]
    return {split: {"images": entries(), "categories": categories, "annotations": []} for split in ("train", "val")}


@pytest.mark.parametrize(("things_only", "wanted"), [(True, [3, 9]), (False, [3, 9, 11])])
def test_things_only_or_things_and_stuff(things_only, wanted, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "IMAGES", folder)
    settings = ClassifierSettings(backbone=NARROW, augment=AugmentSettings(crop=32, long_side=(20, 40)),
                                  learning_rate=0.2, backbone_factor=0.25)
    training = classifier_training(weak(), settings, things_only=things_only,
                                   inserted={"layer4": torch.nn.Conv2d(16, 16, 1)})
    assert training.samples.sample(0, np.random.default_rng(0))["target"].tolist() == [
        float(category in (3, 11)) for category in wanted]
    assert [group["lr"] for group in training.groups] == [0.2, 0.05]
    grouped = [id(value) for group in training.groups for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in training.model.parameters() if value.requires_grad)
    training.model.eval()
    training.finish(tmp_path)
    assert json.loads((tmp_path / "classifier.json").read_text())["category_ids"] == wanted
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    # Class 9 never occurs; of two images the first has what there is.
    assert set(metrics["val"]["per_class"]) == ({"cat"} if things_only else {"cat", "sky"})
    assert metrics["train"]["map"] == metrics["val"]["map"] == pytest.approx(
        sum(metrics["val"]["per_class"].values()) / len(metrics["val"]["per_class"]))


def test_a_split_without_tags_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "IMAGES", folder)
    content = weak()
    content["val"] = {**content["val"], "images": [{**image, "tags": []} for image in entries()]}
    training = classifier_training(content, ClassifierSettings(backbone=NARROW), things_only=True)
    training.finish(tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["val"]["available"] == 0
    assert "val_weak.json" in found["val"]["reason"]
    content["train"] = content["val"]
    with pytest.raises(UserError, match=r"train_weak\.json: no image has a tag of a thing class.*annotations\.kinds"):
        classifier_training(content, ClassifierSettings(backbone=NARROW), things_only=True)

from pathlib import Path

import pytest

from pipelines import networks
from pipelines.rehearsal.shortened import missing_weights, shortened, trainings
from pipelines.settings import METHODS, checked_params, with_method
from pipelines.workspace import changed
from stages.runtime.settings import read_yaml

PRESETS = Path(__file__).resolve().parents[3] / "pipelines/presets"
PAPERS = ["voc2012", "coco2017", "coco2014", "lvis", "kitti", "cityscapes"]


def _settings(preset, method):
    content = with_method(read_yaml(PRESETS / f"{preset}.yaml"), method)
    return content, checked_params(Path(preset), content)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PAPERS)
def test_every_training_has_three_steps(preset, method):
    content, settings = _settings(preset, method)
    plans = trainings(settings)
    changes = shortened(settings, 4, {plan.key: 4 for plan in plans}, [], "cpu")
    short = checked_params(Path(preset), changed(content, changes))
    for plan in trainings(short):
        assert plan.steps == 3 and plan.full_steps(10_000) == 3 and plan.batch <= 4
    assert {plan.key for plan in trainings(short)} == {plan.key for plan in plans}
    assert any(plan.key == "detector.train" for plan in plans)


def test_nothing_else_changes():
    content, settings = _settings("voc2012", "irnet")
    most = {plan.key: plan.batch for plan in trainings(settings)}
    assert shortened(settings, 32, most, [], "cuda") == {
        "dataset.limit": 32, "irnet.classifier.steps": 3, "irnet.network.steps": 3, "detector.train.steps": 3}
    half = checked_params(Path("x"), changed(content, {"runtime.precision": "16-mixed"}))
    assert "runtime.precision" not in shortened(settings, 3, most, [], "cpu")  # bfloat16
    assert shortened(half, 3, {**most, "irnet.network": 8}, ["irnet.network.backbone"], "cpu") == {
        "dataset.limit": 3, "irnet.classifier.steps": 3, "irnet.network.steps": 3, "detector.train.steps": 3,
        "irnet.network.batch_size": 8, "irnet.network.backbone.weights": "none", "runtime.precision": "32-true"}


def test_two_rounds_and_the_last_one_as_in_the_preset():
    content, settings = _settings("cityscapes", "panoptic")
    assert (settings.panoptic.rounds.rounds, settings.panoptic.rounds.merged) == (6, 5)
    plans = {plan.key: plan for plan in trainings(settings)}
    assert plans["panoptic.network"].rounds == 3 and plans["panoptic.instances"].rounds == 1
    changes = shortened(settings, 3, {key: 1 for key in plans}, [], "cpu")
    rounds = checked_params(Path("x"), changed(content, changes)).panoptic.rounds
    assert (rounds.rounds, rounds.merged) == (2, 1)
    once = _settings("voc2012", "panoptic")[1]
    changes = shortened(once, 3, {plan.key: 1 for plan in trainings(once)}, [], "cpu")
    assert not {"panoptic.rounds.rounds", "panoptic.rounds.merged"} & set(changes)


@pytest.mark.parametrize("key", ["detector", "panoptic.detector"])
def test_a_frozen_detector_without_weights_stands_still(key):
    """It would diverge at its first step."""
    content, settings = _settings("voc2012", "panoptic")
    changes = shortened(settings, 3, {plan.key: 4 for plan in trainings(settings)}, [f"{key}.detectron2"], "cpu")
    assert changes[f"{key}.detectron2.weights"] == "none"
    checked_params(Path("x"), changed(content, changes))
    assert {name for name, value in changes.items() if value == 1e-30} == {f"{key}.train.learning_rate"}


def test_the_length_of_the_full_run():
    plans = {plan.key: plan for plan in trainings(_settings("voc2012", "panoptic")[1])}
    assert plans["panoptic.network"].full_steps(10_582) == 400_000  # counted by panoptic.rounds.steps
    assert plans["panoptic.network"].steps_key == "panoptic.rounds.steps"
    irnet = {plan.key: plan for plan in trainings(_settings("voc2012", "irnet")[1])}
    assert irnet["irnet.classifier"].full_steps(10_582) == 5 * (10_582 // 16)


def test_weights_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "_is_cached", lambda name: False)
    monkeypatch.setattr(networks, "DETECTRON2_CACHE", tmp_path)
    settings = _settings("voc2012", "panoptic")[1]
    monkeypatch.setattr(networks, "_answers", lambda server: True)
    assert missing_weights(settings) == []
    everything = ["detector.detectron2", "panoptic.classifier.backbone", "panoptic.detector.detectron2",
                  "panoptic.network.backbone"]
    monkeypatch.setattr(networks, "_answers", lambda server: False)
    assert missing_weights(settings) == everything
    monkeypatch.setattr(networks, "_answers", lambda server: server != networks.DETECTRON2_SERVER)
    assert missing_weights(settings) == [key for key in everything if "detectron2" in key]
    (tmp_path / "ImageNetPretrained/MSRA").mkdir(parents=True)
    (tmp_path / "ImageNetPretrained/MSRA/R-50.pkl").touch()
    assert missing_weights(settings) == []
    assert set(missing_weights(settings, offline=True)) >= set(everything)


def test_weights_of_files_stay():
    content, settings = _settings("voc2012", "irnet")
    own = checked_params(Path("x"), changed(content, {"irnet.classifier.backbone.weights": "own.pth"}))
    assert "irnet.classifier.backbone" not in missing_weights(own, offline=True)

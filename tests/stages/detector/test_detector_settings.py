"""Settings refuse what cannot work, and say so in a sentence."""

from __future__ import annotations

import importlib.util
from typing import get_args

import pytest
import yaml

from stages.detector.costs import estimate
from stages.detector.engines import INSTALL_DETECTRON2, LOADED_BY_NAME, available_engines, engine
from stages.detector.settings import DetectorSettings
from stages.runtime.errors import UserError
from stages.runtime.machine import Machine
from stages.runtime.settings import load_settings


@pytest.mark.parametrize(("change", "message"), [
    ({"engine": "detectron"}, "did you mean 'detectron2'"),
    ({"train": {"milestones": [0.9, 0.5]}}, "rising fractions"),
    ({"train": {"stepps": 3}}, "did you mean 'steps'"),
    ({"torchvision": {"levels": [4, 16]}}, "twice the one before"),
    ({"torchvision": {"anchor_sizes": [32]}}, "anchor_sizes needs 5 sizes"),
    ({"detectron2": {"overrides": ["MODEL.MASK_ON"]}}, "even number"),
])
def test_mistakes_are_sentences(tmp_path, change, message):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"detector": change}))
    with pytest.raises(UserError, match="params.yaml: detector") as error:
        load_settings(path, detector=DetectorSettings)
    assert message in str(error.value)


def test_defaults_are_complete_and_described():
    settings = DetectorSettings()
    for section in (settings.train, settings.predict, settings.torchvision, settings.detectron2):
        assert all(field.description for field in type(section).model_fields.values())


def test_only_the_chosen_engine_is_part_of_the_network():
    assert set(DetectorSettings(engine="torchvision").network()) == {"engine", "train", "torchvision"}


def test_every_engine_has_a_module():
    modules = LOADED_BY_NAME["detector.engine"]
    assert set(modules) == set(get_args(DetectorSettings.model_fields["engine"].annotation))
    assert all(importlib.util.find_spec(module) for module in modules.values())
    assert engine("torchvision").__name__ == modules["torchvision"]


def test_missing_engine_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert available_engines()["torchvision"] == ""
    with pytest.raises(UserError) as error:
        engine("detectron2")
    assert INSTALL_DETECTRON2 in str(error.value)
    assert "\n" not in str(error.value)


def test_estimate_grows_with_steps():
    few = DetectorSettings.model_validate({"train": {"steps": 100}})
    assert estimate(DetectorSettings(), Machine("cpu"))[0] > estimate(few, Machine("cpu"))[0] > 0
    assert estimate(few, Machine("cuda"))[0] < estimate(few, Machine("cpu"))[0]

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipelines.settings import METHODS, SECTIONS, load_params, methods_run, with_method
from pipelines.workspace import changed
from stages.runtime.errors import UserError
from stages.runtime.settings import Settings, read_yaml

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "pipelines" / "presets").glob("*.yaml"))
SHAPES = ROOT / "pipelines/presets/shapes.yaml"

# What a description may name as the source of its default.
SOURCE = re.compile(r"paper|\bsec\b|sec\.|section|source|known|table|eq\.|equation|fig\.|figure|listing|protocol|zoo|"
                    r"App\.|IRNet|WISE|panoptic|BESTIE|EXITS|Mask R-CNN|FPN|PSPNet|DeepLab", re.IGNORECASE)
# These say where something lies or what it is called; no paper has a word on that.
WITHOUT_SOURCE = {"train", "val", "train_images", "val_images", "sbd", "weights", "engine", "backbone_arguments"}


def _models(kind: Any) -> set[type[Settings]]:
    """The settings models in a type, nested ones included."""
    found = {model for argument in get_args(kind) for model in _models(argument)}
    if isinstance(kind, type) and issubclass(kind, Settings):
        found |= {kind, *(model for field in kind.model_fields.values() for model in _models(field.annotation))}
    return found


FIELDS = sorted((f"{model.__name__}.{name}", field.description, bool(_models(field.annotation)))
                for kind in SECTIONS.values() for model in _models(kind) for name, field in model.model_fields.items())


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_parses_for_every_method(tmp_path, preset, method):
    params = with_method(read_yaml(preset), method)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_params(tmp_path / "params.yaml")
    assert settings.method == method
    assert set(vars(settings)) == set(SECTIONS)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_as_they_are(preset):
    load_params(preset)
    content = read_yaml(preset)
    assert next(iter(content)) == "method", "its first line names the method"
    assert [name for name, kind in METHODS.items() if kind is not None and name not in content] == []


def test_lvis_trains_and_predicts_as_its_configuration_says():
    """Where the preset repeats what Detectron2's model zoo has for LVIS, it must not differ from it."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed: its configurations are not looked up")
    from detectron2 import model_zoo

    from stages.detector import detectron2_engine

    detector = load_params(ROOT / "pipelines/presets/lvis.yaml").detector
    ours = detectron2_engine.config(detector, 1203, "cpu")
    theirs = model_zoo.get_config(detector.detectron2.config)
    assert (ours.MODEL.ROI_HEADS, ours.MODEL.RESNETS, ours.TEST) == (
        theirs.MODEL.ROI_HEADS, theirs.MODEL.RESNETS, theirs.TEST)
    assert ours.INPUT.MIN_SIZE_TRAIN == theirs.INPUT.MIN_SIZE_TRAIN
    for key in ("MAX_ITER", "BASE_LR", "IMS_PER_BATCH", "WARMUP_FACTOR", "WARMUP_ITERS", "GAMMA", "WEIGHT_DECAY"):
        assert ours.SOLVER[key] == theirs.SOLVER[key], key
    assert ours.SOLVER.STEPS == pytest.approx(theirs.SOLVER.STEPS, rel=1e-3)
    assert detector.train.repeat_threshold == theirs.DATALOADER.REPEAT_THRESHOLD
    assert theirs.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    assert ours.DATALOADER.FILTER_EMPTY_ANNOTATIONS is theirs.DATALOADER.FILTER_EMPTY_ANNOTATIONS is True


def test_there_is_a_field_of_every_section():
    names = [name for name, _, _ in FIELDS]
    assert len(names) > 100
    assert {"RuntimeSettings.workers", "IRNetSettings.grid", "DetectorTrainSettings.steps"} <= set(names)


@pytest.mark.parametrize(("name", "description", "nested"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_every_setting_says_what_it_is_and_where_its_default_comes_from(name, description, nested):
    assert description
    assert nested or SOURCE.search(description) or name.partition(".")[2] in WITHOUT_SOURCE, description


@pytest.fixture
def message(tmp_path):
    """The error that changes of the shapes preset give."""

    def call(changes: dict[str, Any], without: str | None = None) -> str:
        params = changed(read_yaml(SHAPES), changes)
        if without:
            del params[without]
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        with pytest.raises(UserError) as caught:
            load_params(tmp_path / "params.yaml")
        return str(caught.value).replace(f"{tmp_path}/", "")

    return call


def test_mistakes_are_sentences(message):
    assert message({"method": "irnte"}) == (
        f"params.yaml: method: unknown method 'irnte'; did you mean 'irnet'? (allowed: {', '.join(METHODS)})")
    assert message({"method": "presets"}).startswith("params.yaml: method: unknown method 'presets'")
    assert message({"detectr": {}}).startswith("params.yaml: detectr: unknown section; did you mean 'detector'?")
    assert message({}, without="score") == "params.yaml: score: missing section"
    assert "params.yaml: irnet.cams.scale: unknown key; did you mean 'scales'?" in message({"irnet.cams.scale": [1]})
    assert "annotations.kinds: method irnet needs tags, found points" in message({"annotations.kinds": ["points"]})
    assert "detector.engine: input should be" in message({"detector.engine": "detectron"})
    assert "did you mean 'detectron2'?" in message({"detector.engine": "detectron"})


def test_a_mistake_in_a_method_that_is_not_chosen_is_one_too(message):
    assert "irnet.network.radius" in message({"method": "masks", "irnet.network.radius": -1})


def test_another_method_comes_with_the_labels_that_it_is_made_for():
    params = read_yaml(SHAPES)
    assert with_method(params, "irnet") == {**params, "method": "irnet"}
    assert with_method(params, "exits")["annotations"] == {**params["annotations"], "kinds": ["extreme_points"]}
    boxes = {**params, "annotations": {"kinds": ["boxes"]}}
    assert with_method(boxes, "exits")["annotations"]["kinds"] == ["boxes"]
    assert with_method(params, "masks")["annotations"] == params["annotations"]
    assert with_method(params, "bestie")["annotations"]["kinds"] == ["tags"]
    assert with_method(params, "panoptic")["annotations"]["kinds"] == ["boxes", "tags"]
    points = changed(params, {"bestie.cues.source": "points"})
    assert with_method(points, "bestie")["annotations"]["kinds"] == ["tags", "points"]
    assert with_method(points, "irnet")["annotations"]["kinds"] == ["tags"]
    mix = {**params, "annotations": {"kinds": ["tags", "masks"], "masked_images": 0.25}}
    assert with_method(mix, "exits")["annotations"] == {"kinds": ["extreme_points", "masks"], "masked_images": 0.25}
    assert with_method(mix, "masks")["annotations"] == mix["annotations"]
    assert with_method({**params, "annotations": {"kinds": ["masks"]}}, "irnet")["annotations"]["kinds"] == ["tags"]
    assert params["method"] == "irnet"


def test_panoptic_needs_boxes_and_tags(message):
    assert "method panoptic needs boxes, found tags" in message({"method": "panoptic"})
    assert "method panoptic needs tags, found boxes" in message({
        "method": "panoptic", "annotations.kinds": ["boxes"]})


def test_points_as_cues_need_points(message):
    assert message({"method": "bestie", "bestie.cues.source": "points"}) == (
        "params.yaml: annotations.kinds: bestie.cues.source is points, which needs points beside tags, found tags; "
        "write [tags, points], or bestie.cues.source: peaks")
    assert "method bestie needs tags, found points" in message({"method": "bestie", "annotations.kinds": ["points"]})


def test_wise_gets_what_its_cues_start_from(message):
    params = read_yaml(SHAPES)
    assert params["annotations"]["kinds"] == ["tags"]
    assert with_method(params, "wise")["annotations"]["kinds"] == ["points"]
    peaks = changed(params, {"wise.cues.source": "peaks", "annotations.kinds": ["points"]})
    assert with_method(peaks, "wise")["annotations"]["kinds"] == ["tags"]
    assert message({"method": "wise"}) == (
        "params.yaml: annotations.kinds: wise.cues.source is points, found tags; write [points], or "
        "wise.cues.source: peaks, which needs tags alone")


def test_bestie_gets_what_its_maps_are_made_of(message):
    params = changed(read_yaml(SHAPES), {"bestie.maps.folder": "data/wise/semantic"})
    assert with_method(params, "bestie")["annotations"]["kinds"] == ["tags", "points"]
    assert message({"method": "bestie", "bestie.maps.folder": "data/wise/semantic"}).startswith(
        "params.yaml: annotations.kinds: wise.cues.source is points, found tags;")


@pytest.mark.parametrize(("changes", "methods"), [
    ({"method": "bestie"}, ["irnet", "bestie"]),
    ({"method": "bestie", "bestie.maps.folder": "data/irnet/semantic/"}, ["irnet", "bestie"]),
    ({"method": "bestie", "bestie.maps.folder": "../maps"}, ["bestie"]),
    ({"method": "bestie", "annotations.kinds": ["tags", "points"], "bestie.maps.folder": "data/wise/semantic"},
     ["wise", "bestie"]),
    ({"method": "bestie", "annotations.kinds": ["tags", "points"], "bestie.maps.folder": "data/wise/semantic",
      "proposals.maps.boundary": "data/irnet/fields"}, ["irnet", "wise", "bestie"]),
    ({"method": "irnet"}, ["irnet"]),
    ({"method": "wise", "annotations.kinds": ["points"]}, ["wise"]),
    ({"method": "wise", "annotations.kinds": ["points"], "proposals.maps.boundary": "data/irnet/fields"},
     ["irnet", "wise"]),
    ({"method": "wise", "annotations.kinds": ["points"], "proposals.maps.boundary": "../edges"}, ["wise"]),
    ({"method": "irnet", "proposals.maps.boundary": "data/irnet/fields"}, ["irnet"]),
])
def test_which_methods_run(tmp_path, changes, methods):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed(read_yaml(SHAPES), changes)))
    assert methods_run(load_params(tmp_path / "params.yaml")) == methods


@pytest.mark.parametrize("name", ["coco2014", "coco2017", "lvis", "kitti", "cityscapes"])
def test_irnets_values_are_those_of_its_paper(name):
    """It has figures on VOC alone; what the other presets call its values has to stay theirs."""
    of_voc, found = (read_yaml(ROOT / f"pipelines/presets/{preset}.yaml")["irnet"] for preset in ("voc2012", name))
    assert found == of_voc

"""Settings that contradict each other."""

import pytest
from pydantic import ValidationError

from stages.prepare.kinds import needed_paths
from stages.prepare.settings import AnnotationSettings, DatasetSettings


@pytest.mark.parametrize(("settings", "message"), [
    ({"kind": "cocoo"}, "'shapes', 'coco', 'panoptic', 'lvis', 'voc', 'kitti', 'cityscapes' or 'folder'"),
    ({"kind": "coco", "split": 0.2, "val": "v.json"}, "exclude each other"),
    ({"kind": "shapes", "split": 0.2}, "split: no meaning for kind shapes"),
    ({"kind": "voc", "train_more": [{"file": "a.json", "images": "b"}]}, "train_more: no meaning for kind voc"),
    ({"kind": "coco", "train_more": [{"file": "a.json"}]}, "Field required"),
    ({"kind": "folder"}, "needs split"),
    ({"limit": 0}, "greater than or equal to 1"), ({"kind": "coco", "split": 1.5}, "less than 1"),
    ({"kind": "coco", "split": 0}, "greater than"), ({"classes": []}, "at least 1"),
    ({"limits": 3}, "Extra inputs"), ({"empty_masks": "keep"}, "'error' or 'drop'"), ({"root": ""}, "at least 1"),
])
def test_dataset(settings, message):
    with pytest.raises(ValidationError, match=message):
        DatasetSettings.model_validate(settings)


@pytest.mark.parametrize("settings", [{"kinds": []}, {"kinds": ["tags", "tags"]}, {"kinds": ["tag"]}, {"kinds": "tags"},
                                      {"source": "both"}, {"masked_images": 2}])
def test_annotations(settings):
    with pytest.raises(ValidationError):
        AnnotationSettings.model_validate(settings)


def test_split_is_a_share_or_a_number():
    assert DatasetSettings(kind="coco", split=0.25).split == 0.25
    assert DatasetSettings(kind="coco", split=4).split == 4


def test_every_field_is_described():
    for model in (DatasetSettings, AnnotationSettings):
        assert all(field.description for field in model.model_fields.values())


def test_needed_paths():
    assert [str(path) for path in needed_paths(DatasetSettings())] == ["stages/prepare/shapes.py"]
    assert [str(path) for path in needed_paths(DatasetSettings(kind="coco", root="r", split=0.1))] == [
        "r", "r/instances_train.json", "r/images"]
    more = [{"file": "more.json", "images": "val2014"}]
    assert [str(path) for path in needed_paths(DatasetSettings(kind="coco", root="r", split=0.1, train_more=more))] == [
        "r", "r/instances_train.json", "r/images", "r/more.json", "r/val2014"]
    assert [str(path) for path in needed_paths(DatasetSettings(kind="lvis", root="r"))] == [
        "r", "r/lvis_v1_train.json", "r", "r/lvis_v1_val.json", "r"]
    assert [str(path) for path in needed_paths(DatasetSettings(kind="folder", root="r", val="v.csv"))] == [
        "r", "r/labels.csv", "r", "r/v.csv", "r"]

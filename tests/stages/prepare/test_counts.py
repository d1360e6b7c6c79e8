"""Training images are counted as the reader of each kind would list them."""

from __future__ import annotations

import json

import pytest

from stages.prepare import counts
from stages.prepare.counts import occurrences, training_images
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError


def settings(root, kind, **changes) -> DatasetSettings:
    return DatasetSettings(kind=kind, root=str(root), **changes)


def write(path, images, **more):
    path.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "cat"}], **more}))


def test_train_aug_of_voc_leaves_val_out(tmp_path):
    lists, sbd = tmp_path / "ImageSets/Segmentation", tmp_path / "SBD"
    for folder in (lists, tmp_path / "JPEGImages", sbd / "inst"):
        folder.mkdir(parents=True)
    for name in ("2007_000001", "2007_000002", "2007_000003", "2007_000009"):
        (tmp_path / f"JPEGImages/{name}.jpg").touch()
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    (sbd / "train.txt").write_text("2007_000001\n2007_000003\n")
    (sbd / "val.txt").write_text("2007_000002\n")
    assert training_images(settings(tmp_path, "voc")) == 2
    assert training_images(settings(tmp_path, "voc", train="train")) == 1


def test_json_is_counted_unread(tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 4, "width": 5} for number in range(7)]
    write(tmp_path / "instances_train.json", images, annotations=[{"id": 1, "image_id": 1, "category_id": 1}])
    write(tmp_path / "more.json", images[:2])
    assert training_images(settings(tmp_path, "coco")) == 7
    assert training_images(settings(tmp_path, "coco", split=3)) == 4
    assert training_images(settings(tmp_path, "coco", split=0.5)) in (3, 4)
    assert training_images(settings(tmp_path, "coco", train_more=[{"file": "more.json", "images": "x"}])) == 9
    write(tmp_path / "panoptic_train.json", images, annotations=[
        {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 3, "area": 2}]}])
    assert training_images(settings(tmp_path, "panoptic")) == 7
    write(tmp_path / "lvis_v1_train.json", [{"id": 1, "coco_url": "http://x/train2017/1.jpg", "height": 1}])
    assert training_images(settings(tmp_path, "lvis")) == 1
    with pytest.raises(UserError, match=r"instances_train.json: cannot be read \(No such file"):
        training_images(settings(tmp_path / "nowhere", "coco"))


@pytest.mark.parametrize("chunk", [1, 5, 6, 7, 1000])
def test_words_that_lie_across_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(counts, "_CHUNK", chunk)
    (tmp_path / "file").write_bytes(b'"word""word" word"word')
    assert occurrences(tmp_path / "file", b'"word"') == 2


def test_others():
    assert training_images(DatasetSettings()) == DatasetSettings().shapes.train

"""The gallery that a method brings pictures for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.labels import panels
from stages.labels.panels import gallery_stage
from stages.runtime import layout
from stages.runtime.files import read_json, write_json


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Three images of train and two of val; the first of both splits have the same id."""
    monkeypatch.chdir(tmp_path)
    layout.IMAGES.mkdir(parents=True)
    for split, count in (("train", 3), ("val", 2)):
        images = [{"id": number, "file_name": f"{split}{number}.png", "width": 6, "height": 4}
                  for number in range(1, count + 1)]
        for image in images:
            value = 50 * image["id"] + (split == "val")
            Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(layout.IMAGES / image["file_name"])
        write_json(layout.WEAK[split], {"images": images, "annotations": [], "categories": []})
    return tmp_path


def draw(image, pixels):
    """Two pictures: the image's pixels, and a red one."""
    assert pixels.shape == (4, 6, 3)
    return [(f"{image['split']} {image['id']}", pixels), ("red", np.full((8, 8, 3), (250, 0, 0), np.uint8))]


def make(**changes) -> list[dict]:
    gallery_stage(panels.__file__, "irnet", draw, inputs=[], parameters=None, **{"images": 2, **changes})
    return read_json(layout.method_data("irnet") / "gallery" / "panels.json")


def test_training_images(workspace):
    rows = make()
    assert [(row["image_id"], row["split"], row["title"]) for row in rows] == [
        (1, "train", "train 1"), (1, "train", "red"), (2, "train", "train 2"), (2, "train", "red")]
    folder = layout.method_data("irnet") / "gallery"
    assert {path.name for path in folder.iterdir()} == {"panels.json", *(row["picture"] for row in rows)}
    assert abs(int(np.asarray(Image.open(folder / rows[2]["picture"])).mean()) - 100) <= 2
    red = np.asarray(Image.open(folder / rows[1]["picture"])).astype(int)
    assert (red[..., 0] > 200).all()
    assert (red[..., 2] < 60).all()
    assert not list((workspace / ".work").glob("*-*-*/*"))


def test_validation_images_too(workspace):
    rows = make(images=1, validation_images=5)
    assert [(row["image_id"], row["split"]) for row in rows[::2]] == [(1, "train"), (1, "val"), (2, "val")]
    pictures = [row["picture"] for row in rows]
    assert len(set(pictures)) == len(pictures)
    folder = layout.method_data("irnet") / "gallery"
    assert [int(np.asarray(Image.open(folder / name)).mean()) for name in pictures[::2]] == [50, 51, 101]


def test_no_images(workspace):
    assert make(images=0) == []


def test_a_split_that_is_not_shown_need_not_be_there(workspace):
    layout.WEAK["val"].unlink()
    assert len(make(images=1)) == 2

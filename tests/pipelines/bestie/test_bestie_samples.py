"""Crops with their pseudo labels: where cues go, what colours become, how a batch is put together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pipelines.bestie.colours import change_light, shift_hue
from pipelines.bestie.samples import LabelledCrops, collate, moved
from pipelines.bestie.settings import BestieSettings, NetworkSettings
from stages.cues.augment import Map, random_view
from stages.cues.settings import AugmentSettings
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz


def test_hue():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 0], image[0, 1], image[0, 2] = (200, 0, 0), (90, 90, 90), (0, 0, 0)
    assert shift_hue(image, 1 / 3).tolist() == [[[0, 200, 0], [90, 90, 90], [0, 0, 0]]]
    assert shift_hue(image, -1 / 3).tolist()[0][0] == [0, 0, 200]
    assert shift_hue(image, 0.0) is image
    assert np.array_equal(shift_hue(image, 1.0), image)


def test_light():
    image = np.array([[[10, 10, 10], [30, 30, 30]]], np.uint8)
    assert change_light(image, 5, 1).tolist() == [[[15] * 3, [35] * 3]]
    assert change_light(image, 0, 1.5).tolist() == [[[5] * 3, [35] * 3]]
    assert change_light(image, 250, 1).max() == 255 and change_light(image, -250, 1).min() == 0


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("crop", [32, 64, 200])
def test_cues_go_where_their_pixels_go(scale, crop):
    """A bright spot marks every cue: in the view it must stand where the cue is said to be."""
    rng = np.random.default_rng(0)
    cues = np.array([[0, 0, 0], [1, 59, 79], [2, 30, 41], [3, 12, 66], [4, 45, 8]])
    image = np.zeros((60, 80, 3), np.uint8)
    spots = np.zeros((5, 60, 80), np.float32)
    for index, y, x in cues:
        spots[index, y, x] = 1
        spots[index] = cv2.GaussianBlur(spots[index], (0, 0), 2)
    places = np.mgrid[:60, :80].astype(np.float32)
    settings = AugmentSettings(crop=crop, long_side=None, scale=(scale, scale))
    shown = 0
    for _ in range(6):
        view = random_view(image, {"spots": Map(spots, "values"), "places": Map(places, "values", np.nan)}, rng,
                           settings)
        found = moved(cues, view.maps["places"], view.inside)
        shown += len(found)
        for index, y, x in found:
            assert view.inside[y, x]
            at = np.unravel_index(view.maps["spots"][index].argmax(), (crop, crop))
            assert max(abs(at[0] - y), abs(at[1] - x)) <= 1
        # What is left out lies outside: the whole image is shown where the crop is large enough.
        if view.inside.sum() >= round(60 * scale) * round(80 * scale):
            assert len(found) == 5
        hidden = set(range(5)) - set(found[:, 0].tolist())
        assert all(view.maps["spots"][index][view.inside].max() < spots[index].max() + 1e-6 for index in hidden)
    assert shown > 0
    assert moved(cues[:0], view.maps["places"], view.inside).shape == (0, 3)


def test_a_cue_outside_the_crop_is_left_out():
    places = np.full((2, 4, 4), np.nan)
    places[:, 1:3, :3] = np.mgrid[10:12, 5:8]
    inside = np.zeros((4, 4), bool)
    inside[1:3, :3] = True
    cues = np.array([[0, 10, 5], [0, 11, 7], [0, 12, 7], [0, 10, 8], [0, 9, 5], [0, 10, 4]])
    assert moved(cues, places, inside).tolist() == [[0, 1, 0], [0, 2, 2]]


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/dataset/images", "semantic", "cues"):
        (tmp_path / name).mkdir(parents=True)
    image = np.full((40, 60, 3), 90, np.uint8)
    semantic = np.zeros((40, 60), np.uint8)
    semantic[5:25, 5:25], semantic[10:30, 35:55], semantic[32:34, :] = 3, 9, 255
    cv2.imwrite("data/dataset/images/one.png", image)
    cv2.imwrite(f"semantic/{7:012d}.png", semantic)
    write_npz(tmp_path / f"cues/{7:012d}.npz", cues=np.array([[3, 10, 10], [9, 12, 40], [9, 25, 50], [5, 1, 1]]))
    return tmp_path


def crops(folder, **changes):
    network = NetworkSettings(augment=AugmentSettings(crop=64, long_side=None, scale=(1.0, 1.0), flip=False))
    settings = BestieSettings(network=network, **changes)
    images = [{"id": 7, "file_name": "one.png", "width": 60, "height": 40}]
    return LabelledCrops(images, {7: {3, 9}}, folder / "semantic", folder / "cues", [3, 9], settings)


def test_a_crop(folder):
    sample = crops(folder).sample(0, np.random.default_rng(0))
    assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype == torch.uint8
    assert int(sample["inside"].sum()) == 40 * 60
    assert sorted(sample["semantic"].unique().tolist()) == [-1, 0, 1, 2]
    assert (sample["semantic"][~sample["inside"]] == -1).all()
    assert int((sample["components"] > 0).sum()) == 800 and int((sample["instances"] > 0).sum()) == 400
    rows, columns = (int(sample["inside"].any(axis).nonzero()[0]) for axis in (1, 0))
    assert sample["centres"].tolist() == [[0, rows + 14, columns + 14]], "9.5 + 5, rounded down"
    again = crops(folder).sample(0, np.random.default_rng(0))
    assert all(torch.equal(sample[name], again[name]) for name in sample)


def test_a_crop_with_points(folder):
    sample = crops(folder, cues={"source": "points"}).sample(0, np.random.default_rng(0))
    rows, columns = (int(sample["inside"].any(axis).nonzero()[0]) for axis in (1, 0))
    assert sample["centres"].tolist() == [[0, rows + 10, columns + 10], [1, rows + 12, columns + 40],
                                          [1, rows + 25, columns + 50]]
    assert sample["instances"].unique().tolist() == [0, 1]


def test_batches_fill_up_with_rows_of_minus_one(folder):
    one, two = crops(folder), crops(folder, cues={"source": "points"})
    batch = collate([one.sample(0, np.random.default_rng(0)), two.sample(0, np.random.default_rng(1))])
    assert batch["centres"].shape == (2, 3, 3)
    assert batch["centres"][0, 1:].tolist() == [[-1] * 3] * 2
    assert batch["image"].shape == (2, 3, 64, 64) and batch["instances"].shape == (2, 64, 64)


def test_missing_maps_and_no_images(folder):
    (folder / f"semantic/{7:012d}.png").unlink()
    with pytest.raises(UserError, match="1 semantic maps are missing"):
        crops(folder)
    with pytest.raises(UserError, match="no image with a tag"):
        LabelledCrops([], {}, folder, folder, [3], BestieSettings())

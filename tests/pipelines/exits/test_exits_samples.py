"""Crops in training, against what they say of the image that they were cut from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.exits.samples import PointLabels, RandomCrops, point_labels, random_margins
from pipelines.exits.settings import RandomCropSettings
from stages.cues.objects import Image
from stages.labels.points import BACKGROUND, FOREGROUND, PSEUDO_BACKGROUND, PSEUDO_FOREGROUND, UNLABELLED
from stages.runtime import layout
from stages.runtime.files import write_npz

SIDE, CELLS, MASK = 48, 12, 24
BOX = (30, 20, 70, 50)
SOURCE = (20, 10, 80, 60)
# Top, left, bottom, right; the box of their pixels is BOX.
ITEM = {"id": 1, "category_id": 1, "extreme_points": [[55, 20], [30, 41], [44, 49], [69, 30]]}


@pytest.fixture
def image(tmp_path, monkeypatch) -> Image:
    """100 x 80 px whose red and green are the place of each pixel (x 2), blue a bright mark in its left half."""
    monkeypatch.chdir(tmp_path)
    rows, columns = np.mgrid[:80, :100]
    pixels = np.stack([2 * columns, 2 * rows, np.where(columns < 50, 255, 0)], axis=-1).astype(np.uint8)
    layout.IMAGES.mkdir(parents=True)
    assert cv2.imwrite(str(layout.IMAGES / "a.png"), pixels[:, :, ::-1])
    return Image("a", {"id": 1, "file_name": "a.png", "width": 100, "height": 80}, (ITEM,))


PLAIN = {"chance": 0, "grey": 0, "blur": 0}


def _settings(**changes) -> RandomCropSettings:
    """Every side has a margin of its own, and colours stay as they are, by which the tests tell places."""
    return RandomCropSettings(**{"margins": "each", "student": PLAIN, **changes})


def _retrieved() -> np.ndarray:
    """Labels (CELLS, CELLS) over SOURCE: random inside the box, with the given points as well."""
    labels = np.random.default_rng(5).choice([PSEUDO_BACKGROUND, UNLABELLED, PSEUDO_FOREGROUND], (CELLS, CELLS))
    labels[[0, -1]], labels[:, [0, 1, -2, -1]] = BACKGROUND, BACKGROUND
    labels[[3, 8], [6, 4]] = FOREGROUND
    return labels.astype(np.int8)


def _samples(image: Image, tmp_path: Path, settings: RandomCropSettings, **changes) -> RandomCrops:
    scores = np.linspace(-3, 3, CELLS ** 2, dtype=np.float16).reshape(1, CELLS, CELLS)
    write_npz(tmp_path / "points/a.npz", labels=_retrieved()[None], scores=scores, windows=np.array([SOURCE], np.int32))
    points = PointLabels(tmp_path / "points", **{"inward": 0.04, "scores": True, **changes})
    return RandomCrops([(image, 0)], SIDE, settings, MASK, points, plain=True)


def _window(sample: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Place in the image (x and y) of every pixel column and row of a crop, by its colours; whether it is mirrored."""
    red, green = sample["image"][0].double().numpy(), sample["image"][1].double().numpy()
    x, y = red.mean(0) / 2, green.mean(1) / 2
    return x, y, bool(x[0] > x[-1])


def _expected(x: float, y: float) -> int | None:
    """Label of a place (on pixel edges), given points aside; none beside a border, where colours do not tell."""
    places, inside = [], True
    for at, start, end, low, high in ((y, SOURCE[1], SOURCE[3], BOX[1], BOX[3]), (x, SOURCE[0], SOURCE[2], BOX[0],
                                                                                 BOX[2])):
        width = (end - start) / CELLS
        place = (at - start) / width
        if min(abs(at - low), abs(at - high), width * abs(place - round(place))) < 0.4:
            return None
        inside &= low <= at < high
        places.append(min(max(int(place), 0), CELLS - 1))
    carried = int(_retrieved()[places[0], places[1]])
    return BACKGROUND if not inside else carried if abs(carried) == PSEUDO_FOREGROUND else UNLABELLED


@pytest.mark.parametrize("draw", range(12))
def test_all_that_a_sample_holds_lies_where_its_picture_lies(image, tmp_path, draw):
    settings = _settings(margin=(0.0, 0.5), flip=True)
    sample = _samples(image, tmp_path, settings).sample(0, np.random.default_rng(draw))
    x, y, mirrored = _window(sample)
    # The box: pixels of the crop whose place in the image lies in it, half a pixel beside the edges left out.
    box = sample["box"].numpy()
    for at, low, high, first, last in ((x, BOX[0], BOX[2], box[0], box[2]), (y, BOX[1], BOX[3], box[1], box[3])):
        for pixel, place in enumerate(at):
            if min(abs(place - low + 0.5), abs(place - high + 0.5)) > 1.5:
                assert (first <= pixel + 0.5 < last) == (low - 0.5 <= place < high - 0.5), (pixel, place)
    # The maps: cell by cell, by the place of the cell's middle in the image.
    step = SIDE // CELLS
    across = (x[step // 2 - 1::step] + x[step // 2::step]) / 2 + 0.5
    down = (y[step // 2 - 1::step] + y[step // 2::step]) / 2 + 0.5
    seen = 0
    for row, place_y in enumerate(down):
        for column, place_x in enumerate(across):
            expected = _expected(place_x, place_y)
            if expected is not None:
                seen += 1
                assert int(sample["labels"][row, column]) in (expected, FOREGROUND)
    assert seen > 0.25 * CELLS ** 2
    # The given points: one cell for each, nowhere else, nearer than a cell (in x and in y) to where they belong.
    given = np.argwhere(sample["labels"].numpy() == FOREGROUND)
    assert 1 <= len(given) <= 4
    for point in ITEM["extreme_points"]:
        reach = 1.0 + np.array([abs(across[1] - across[0]), abs(down[1] - down[0])]) + 0.04 * np.array(
            [abs(x[-1] - x[0]), abs(y[-1] - y[0])])
        distances = np.abs([[across[column] - point[0] - 0.5, down[row] - point[1] - 0.5] for row, column in given])
        assert (distances <= reach).all(1).any(), point
    # The scores rise along rows, then along columns, in the image's direction.
    rise = np.diff(sample["likely"].numpy(), axis=1).mean()
    assert (rise < 0) == mirrored
    assert sample["inside"].sum().item() / MASK ** 2 == pytest.approx(
        (box[2] - box[0]) * (box[3] - box[1]) / SIDE ** 2, abs=0.08)


def test_crops_are_mirrored_half_of_the_time_and_margins_are_drawn_for_each_side(image, tmp_path):
    samples = _samples(image, tmp_path, _settings(margin=(0.0, 0.5)))
    found = [_window(samples.sample(0, np.random.default_rng(seed))) for seed in range(200)]
    assert 70 < sum(mirrored for _, _, mirrored in found) < 130
    lows = [min(x[0], x[-1]) for x, _, _ in found]
    highs = [max(x[0], x[-1]) for x, _, _ in found]
    assert min(lows) < BOX[0] - 0.4 * 40 < BOX[0] - 0.1 * 40 < max(lows)
    assert abs(np.corrcoef(lows, highs)[0, 1]) < 0.3
    never = _samples(image, tmp_path, _settings(flip=False))
    assert not any(_window(never.sample(0, np.random.default_rng(seed)))[2] for seed in range(20))


def test_opposite_sides_share_a_margin():
    """Each of u g / 2 and u (1 - g) / 2 of the box's side, u uniform in 0..1.2."""
    settings = RandomCropSettings()
    found = np.array([random_margins(settings, np.random.default_rng(seed)) for seed in range(2000)])
    both = found[:, :2] + found[:, 2:]
    assert found.min() >= 0 and both.max() <= 0.6
    assert both.min() < 0.01 and found.max() > 0.57
    # The sums are uniform: as many in each tenth of their range, within 4 deviations; width and height differ.
    counts = np.histogram(both, 10, (0, 0.6))[0]
    assert np.abs(counts - 400).max() < 4 * np.sqrt(400)
    shares = found[:, :2] / both
    assert np.abs(np.histogram(shares, 10, (0, 1))[0] - 400).max() < 4 * np.sqrt(400)
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.1 and abs(np.corrcoef(shares.T)[0, 1]) < 0.1


def test_each_side_has_the_numbers_that_it_always_had():
    settings = _settings(margin=(0.05, 0.6))
    found = random_margins(settings, np.random.default_rng(4))
    assert (found == np.random.default_rng(4).uniform(0.05, 0.6, size=4)).all()


def test_the_teacher_sees_the_crop_as_it_is(image, tmp_path):
    """With the same chance the crop is the same; the student's alone has other colours, and it has them often."""
    always = {"chance": 1, "grey": 0, "blur": 0}
    differ = []
    for seed in range(30):
        sample = _samples(image, tmp_path, _settings(student={})).sample(0, np.random.default_rng(seed))
        plain = _samples(image, tmp_path, _settings()).sample(0, np.random.default_rng(seed))
        assert "plain" not in plain
        assert torch.equal(sample["plain"], plain["image"])
        assert torch.equal(sample["box"], plain["box"]) and torch.equal(sample["inside"], plain["inside"])
        differ.append(not torch.equal(sample["image"], sample["plain"]))
        sure = _samples(image, tmp_path, _settings(student=always)).sample(0, np.random.default_rng(seed))
        assert not torch.equal(sure["image"], sure["plain"])
    # Each change leaves a view alone by chance; all three do for a fifth: 0.5 * 0.8 * 0.5.
    assert 15 <= sum(differ) <= 29
    warm_up = RandomCrops([(image, 0)], SIDE, _settings(student={}), MASK)
    assert "plain" not in warm_up.sample(0, np.random.default_rng(0)), "there is no teacher"


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, 3.0])
def test_given_points_are_in_every_crop(margin):
    """The crop is wider or narrower than the one that points were retrieved in: each point keeps a cell of its own."""
    item = {"extreme_points": [[60, 10], [10, 60], [50, 109], [109, 50]]}
    reach = round(100 * margin)
    window = (10 - reach, 10 - reach, 110 + reach, 110 + reach)
    scale = 64 / (100 + 2 * reach)
    box = np.array([reach, reach, reach + 100, reach + 100]) * scale
    source = (0, 0, 120, 120)
    retrieved = np.full((16, 16), UNLABELLED, np.int8)
    retrieved[[1, 8, 14, 6], [8, 1, 6, 14]] = FOREGROUND
    labels = point_labels(item, retrieved, source, window, box, 64, 16, 0.0)
    expected = {(int((y - 10 + reach + 0.5) * scale / 4), int((x - 10 + reach + 0.5) * scale / 4))
                for x, y in item["extreme_points"]}
    assert set(map(tuple, np.argwhere(labels == FOREGROUND).tolist())) == expected
    assert len(expected) == 4


def test_delta_belongs_to_the_crop_that_is_drawn_in():
    item = {"extreme_points": [[60, 10], [10, 60], [50, 109], [109, 50]]}
    for window, middle in (((10, 10, 110, 110), 32.0), ((-90, -90, 210, 210), 32.0)):
        scale = 64 / (window[2] - window[0])
        box = (np.array([10, 10, 110, 110]) - window[0]) * scale
        labels = point_labels(item, None, (0, 0, 120, 120), window, box, 64, 32, 0.125)
        rows, columns = np.nonzero(labels == FOREGROUND)
        # 8 px of the crop's 64 inward, in cells of 2 px.
        assert rows.min() == int((box[1] + 0.5 * scale + 8) / 2)
        assert columns.max() == int((box[2] - 0.5 * scale - 8) / 2)
        assert rows.min() < middle / 2 < rows.max()


def test_a_box_alone_has_background_and_what_was_retrieved():
    labels = point_labels({"bbox": [10, 10, 20, 20]}, None, (0, 0, 40, 40), (0, 0, 40, 40),
                          np.array([16.0, 16.0, 48.0, 48.0]), 64, 8, 0.02)
    assert (labels[2:6, 2:6] == UNLABELLED).all()
    assert (labels == BACKGROUND).sum() == 48


def test_nothing_is_carried_from_beyond_the_other_crop():
    """A cell that stands for a box smaller than itself may have its middle outside the crop of the retrieval."""
    retrieved = np.full((4, 4), PSEUDO_FOREGROUND, np.int8)
    labels = point_labels({"bbox": [10, 10, 1, 1]}, retrieved, (10, 10, 11, 11), (0, 0, 64, 64),
                          np.array([10.0, 10.0, 11.0, 11.0]), 64, 4, 0.0)
    assert (labels == UNLABELLED).sum() == 1


def test_dropout_hidden_scores_and_given_points_alone(image, tmp_path):
    settings = _settings(margin=(0.2, 0.2), flip=False)
    all_points = _samples(image, tmp_path, settings).sample(0, np.random.default_rng(0))
    assert (all_points["labels"].abs() == PSEUDO_FOREGROUND).any()
    few = _samples(image, tmp_path, settings, dropout=0.9).sample(0, np.random.default_rng(0))
    assert 0 < (few["labels"].abs() == 1).sum() < 0.3 * (all_points["labels"].abs() == 1).sum()
    assert torch.equal(few["labels"] == FOREGROUND, all_points["labels"] == FOREGROUND)
    given = _samples(image, tmp_path, settings, retrieved=False).sample(0, np.random.default_rng(0))
    assert not (given["labels"].abs() == 1).any()
    assert torch.equal(given["labels"] == FOREGROUND, all_points["labels"] == FOREGROUND)
    assert "likely" not in given and "scores" not in given
    unguided = _samples(image, tmp_path, settings, scores=False).sample(0, np.random.default_rng(0))
    assert "likely" not in unguided and "scores" not in unguided
    assert torch.equal(unguided["labels"], all_points["labels"])
    hidden = _samples(image, tmp_path, settings, hidden=0.5)
    shown = [bool(hidden.sample(0, np.random.default_rng(seed))["scores"].any()) for seed in range(60)]
    assert 15 < sum(shown) < 45
    assert torch.equal(all_points["scores"], all_points["likely"])


def test_no_number_of_a_sample_takes_64_bits(image, tmp_path):
    """Apple's GPUs have none."""
    sample = _samples(image, tmp_path, RandomCropSettings()).sample(0, np.random.default_rng(0))
    assert not [name for name, value in sample.items() if value.dtype == torch.float64]

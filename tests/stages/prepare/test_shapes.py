"""The embedded data set: exact masks, the same bytes from the same seed, and scenes as hard as they should be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from stages.prepare.settings import ShapesSettings
from stages.prepare.shapes import CATEGORIES, GROUND, SKY, THINGS
from stages.prepare.shapes_rendering import Instance, render
from stages.runtime.errors import UserError

SETTINGS = ShapesSettings()
THING_IDS = {category["id"] for category in CATEGORIES if category["isthing"]}


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, list[Instance]]]:
    return [render(index, 5, SETTINGS) for index in range(120)]


def things(instances: list[Instance]) -> list[Instance]:
    return [instance for instance in instances if instance.category_id in THING_IDS]


def parts(mask: np.ndarray, connectivity: int = 4) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[0] - 1


def test_categories() -> None:
    ids = [category["id"] for category in CATEGORIES]
    assert len(set(ids)) == len(ids) == len(THINGS) + 2
    assert [category["name"] for category in CATEGORIES if category["isthing"]] == list(THINGS)
    assert {category["name"]: category["id"] for category in CATEGORIES if not category["isthing"]} == {
        "sky": SKY, "ground": GROUND}


@pytest.mark.parametrize(("height", "width"), [(128, 160), (48, 64), (256, 320), (200, 77), (32, 32)])
def test_masks_partition_an_image_of_any_size(height: int, width: int) -> None:
    settings = ShapesSettings(width=width, height=height)
    for index in range(6):
        image, instances = render(index, 0, settings)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert all(item.mask.shape == (height, width) and item.mask.dtype == bool for item in instances)
        assert np.array_equal(sum(item.mask.astype(int) for item in instances), np.ones((height, width), int))
        assert 1 <= len(things(instances)) <= settings.max_objects
        assert all(item.mask.sum() >= settings.min_pixels for item in things(instances))


def test_an_image_depends_on_seed_and_index_alone() -> None:
    alone = render(7, 3, SETTINGS)
    for index in range(7):
        render(index, 3, SETTINGS)
    again = render(7, 3, ShapesSettings(train=11, val=2))
    assert np.array_equal(alone[0], again[0])
    assert [item.category_id for item in alone[1]] == [item.category_id for item in again[1]]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(alone[1], again[1], strict=True))
    assert not np.array_equal(alone[0], render(8, 3, SETTINGS)[0])
    assert not np.array_equal(alone[0], render(7, 4, SETTINGS)[0])


def test_number_of_objects_can_be_set() -> None:
    assert all(len(things(render(index, 0, ShapesSettings(max_objects=1))[1])) == 1 for index in range(10))
    many = ShapesSettings(max_objects=15, width=320, height=256, smallest=0.08, largest=0.2)
    assert max(len(things(render(index, 0, many)[1])) for index in range(20)) > 7


def test_objects_that_can_never_be_large_enough_are_a_sentence() -> None:
    with pytest.raises(UserError, match=r"dataset\.shapes: 200 scenes had no object that shows 4700 pixels"):
        render(0, 0, ShapesSettings(min_pixels=4700))  # a square of 69 px has 4761


def test_min_pixels_is_kept() -> None:
    settings = ShapesSettings(min_pixels=150)
    assert all(item.mask.sum() >= 150 for index in range(20) for item in things(render(index, 2, settings)[1]))


def test_rings_have_holes_that_show_what_is_behind(scenes: list[tuple[np.ndarray, list[Instance]]]) -> None:
    ring = THINGS.index("ring") + 1
    rings = [item.mask for _, instances in scenes for item in instances if item.category_id == ring]
    with_hole = [parts(~np.pad(mask, 1), 8) > 1 for mask in rings]
    assert len(rings) > 20
    assert np.mean(with_hole) > 0.4
    disc = THINGS.index("disc") + 1
    discs = [item.mask for _, instances in scenes for item in instances if item.category_id == disc]
    assert np.mean([parts(~np.pad(mask, 1), 8) > 1 for mask in discs]) < 0.1


def statistics(scenes: list[tuple[np.ndarray, list[Instance]]]) -> dict[str, float]:
    """What the docstring of ``stages.prepare.shapes`` quotes."""
    tags = [{item.category_id for item in instances} for _, instances in scenes]
    found = {category["name"]: float(np.mean([category["id"] in tag for tag in tags])) for category in CATEGORIES}
    masks, touching = [], 0
    for _, instances in scenes:
        for item in things(instances):
            masks.append(item.mask)
            near = cv2.dilate(item.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            touching += any((near & other.mask).any() for other in instances
                            if other is not item and other.category_id == item.category_id)
    sides = [max(np.ptp(axis) + 1 for axis in np.nonzero(mask)) for mask in masks]
    found["objects"] = len(masks) / len(scenes)
    found["separated"] = float(np.mean([parts(mask) > 1 for mask in masks]))
    found["touching"] = touching / len(masks)
    found |= {f"side_{percent}%": float(np.percentile(sides, percent)) for percent in (5, 50, 95)}
    return found


def test_scenes_are_as_hard_as_intended(scenes: list[tuple[np.ndarray, list[Instance]]]) -> None:
    found = statistics(scenes)
    print({name: round(value, 3) for name, value in found.items()})
    assert all(0.3 < found[name] < 0.55 for name in THINGS)
    assert 0.7 < found["sky"] < 0.95
    assert 0.8 < found["ground"] < 1
    assert 2.5 < found["objects"] < 4.5
    assert 0.05 < found["separated"] < 0.15
    assert 0.3 < found["touching"] < 0.6
    assert found["side_5%"] > 14
    assert found["side_95%"] < 71


def test_no_scraps(scenes: list[tuple[np.ndarray, list[Instance]]]) -> None:
    for _, instances in scenes:
        for item in things(instances):
            stats = cv2.connectedComponentsWithStats(item.mask.astype(np.uint8), connectivity=4)[2]
            assert stats[1:, cv2.CC_STAT_AREA].min() >= 5


def test_colours_of_classes_and_background_overlap(scenes: list[tuple[np.ndarray, list[Instance]]]) -> None:
    histogram = {category["id"]: np.zeros(64) for category in CATEGORIES}
    for image, instances in scenes:
        bins = (image // 64).astype(int) @ [16, 4, 1]
        for item in instances:
            histogram[item.category_id] += np.bincount(bins[item.mask], minlength=64) / item.mask.sum()
    shares = {number: counts / counts.sum() for number, counts in histogram.items()}
    background = (shares[SKY] + shares[GROUND]) / 2
    for number in THING_IDS:
        assert np.minimum(shares[number], background).sum() > 0.3
        for other in THING_IDS - {number}:
            assert np.minimum(shares[number], shares[other]).sum() > 0.5


@pytest.mark.parametrize("wrong", [{"width": 8}, {"smallest": 0.6, "largest": 0.5}, {"objects": 3}, {"noise": -1},
                                   {"min_pixels": 5000}])
def test_settings_refuse_what_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ShapesSettings(**wrong)  # type: ignore[arg-type]

"""Instance masks that a network made, as another's pseudo labels (table 5): guidance, crops, the masks themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from plain_targets import mask_targets

from pipelines.bestie import retraining
from pipelines.bestie.grouping import Instances
from pipelines.bestie.samples import LabelledCrops, collate
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.targets import pseudo_targets
from pipelines.bestie.transfer import GivenMasks, pseudo_label
from stages.runtime.files import write_npz


def drawn(*rows: str) -> np.ndarray:
    return np.array([[0 if mark == "." else int(mark) for mark in row] for row in rows], np.uint16)


def given(masks: np.ndarray, categories: list[int], points: list[int] | None = None) -> GivenMasks:
    return GivenMasks(masks, np.array(categories, np.int64),
                      np.array([-1] * len(categories) if points is None else points, np.int64))


def guided(label, semantic, classes: int, sigma: float, points: bool):
    return pseudo_targets(torch.from_numpy(label.instances)[None], torch.from_numpy(label.centres)[None], classes,
                          sigma, torch.from_numpy(semantic > 0)[None] if points else None)


TOUCHING = drawn("1112222.",
                 "1112222.",
                 "111222.3")
# A ring, a mask in two parts, one that takes the whole right border.
STRANGE = drawn("11111..4",
                "1...1..4",
                "1.3.1224",
                "1...1..4",
                "111113.4",
                "22.....4")


@pytest.mark.parametrize(("masks", "categories", "smallest"), [
    (TOUCHING, [0, 0, 1], 1), (TOUCHING, [0, 0, 1], 2), (TOUCHING, [1, 0, 0], 10), (STRANGE, [1, 1, 0, 0], 1),
    (STRANGE, [1, 1, 0, 0], 3), (np.zeros((4, 5), np.uint16), [], 1), (np.zeros((4, 5), np.uint16), [1, 0], 1),
    (TOUCHING, [0, 0, 1], 100),
])
def test_masks_guide_centres_and_offsets(masks, categories, smallest):
    """Two that touch are two, whatever the semantic map says of them and wherever the cues are."""
    rng = np.random.default_rng(0)
    for semantic in (np.zeros(masks.shape, np.int16), rng.integers(-1, 3, masks.shape).astype(np.int16)):
        cues = np.array([[0, 0, 0], [0, 0, 1], [1, 2, 2]])
        label = pseudo_label(semantic, [0, 1], cues, smallest=smallest, given=given(masks, categories))
        found = guided(label, semantic, 2, 1.5, points=False)
        heat, offset, weight = mask_targets(masks, categories, 2, 1.5, smallest)
        assert np.allclose(found.centre[0].numpy(), heat, atol=1e-7)
        assert np.array_equal(found.offset[0].numpy(), offset)
        assert np.array_equal(found.offset_weight[0].numpy(), weight)
        assert np.array_equal(found.centre_weight[0].numpy(), weight)
        # Refined labels go on to come from the components of the map.
        assert np.array_equal(label.components, pseudo_label(semantic, [0, 1], cues, smallest=smallest).components)


def test_masks_of_points_aim_at_their_points():
    """Gaussians at all points of the crop; offsets where the mask's own point is in it."""
    semantic = (TOUCHING > 0).astype(np.int16)
    cues = np.array([[0, 0, 7], [1, 2, 7], [0, 1, 0], [0, 9, 9], [5, 0, 0], [0, 2, 4]])
    # Mask 1 belongs to the point at (1, 0), 2 to the one at (0, 7) outside itself, 3 to one outside the crop.
    masks = given(TOUCHING, [0, 0, 0], [2, 0, 3])
    label = pseudo_label(semantic, [0, 1], cues, smallest=1, points=True, given=masks)
    assert label.centres.tolist() == [[0, 0, 7], [1, 2, 7], [0, 1, 0], [0, 2, 4]]
    found = guided(label, semantic, 2, 1.5, points=True)
    heat, offset, weight = mask_targets(TOUCHING, [0, 0, 0], 2, 1.5, 1, aims={1: (1, 0), 2: (0, 7)},
                                        others=[(0, 0, 7), (1, 2, 7), (0, 1, 0), (0, 2, 4)])
    assert np.allclose(found.centre[0].numpy(), heat, atol=1e-7)
    assert np.array_equal(found.offset[0].numpy(), offset)
    assert np.array_equal(found.offset_weight[0].numpy(), weight)
    assert np.array_equal(found.centre_weight[0].numpy(), (semantic > 0).astype(np.float32))
    without = given(TOUCHING, [0, 0, 0], [-1, -1, -1])
    assert not pseudo_label(semantic, [0], cues, smallest=1, points=True, given=without).instances.any()


@pytest.mark.parametrize("points", [False, True])
def test_what_the_transfer_finds_gives_the_same_label_as_masks(points):
    """The two ways to a pseudo label are one from the masks on."""
    rng = np.random.default_rng(1)
    alone = 0
    for _ in range(20):
        semantic = cv2.resize(rng.integers(0, 3, (5, 6)).astype(np.uint8), (30, 25),
                              interpolation=cv2.INTER_NEAREST).astype(np.int16)
        cues = np.stack([rng.integers(0, 2, 6), rng.integers(0, 25, 6), rng.integers(0, 30, 6)], axis=1)
        wanted = pseudo_label(semantic, [0, 1], cues, smallest=9, points=points)
        numbers = [number for number in np.unique(wanted.instances).tolist() if number]
        masks = np.zeros(semantic.shape, np.uint16)
        for place, number in enumerate(numbers, start=1):
            masks[wanted.instances == number] = place
        rows = [number - 1 for number in numbers]
        found = pseudo_label(semantic, [0, 1], cues, smallest=9, points=points,
                             given=given(masks, wanted.centres[rows, 0].tolist(), rows if points else None))
        alone += len(numbers)
        for name in ("components", "instances", "centres"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))
    assert alone > 20


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    """An image whose left third is mask 1, of class 3; the squares right of it are the masks 3 and 2, of class 9."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/dataset/images", "semantic", "cues", "masks"):
        (tmp_path / name).mkdir(parents=True)
    masks = np.zeros((40, 60), np.uint16)
    masks[:, :20], masks[5:25, 24:40], masks[10:30, 40:56] = 1, 3, 2
    shown = np.stack([60 * masks, 60 * masks, 60 * masks], axis=-1).astype(np.uint8)
    cv2.imwrite("data/dataset/images/one.png", shown)
    cv2.imwrite(f"semantic/{7:012d}.png", np.where(masks > 1, 9, np.where(masks == 1, 3, 0)).astype(np.uint8))
    write_npz(tmp_path / f"cues/{7:012d}.npz", cues=np.array([[9, 20, 50], [3, 30, 2], [9, 8, 30]]))
    write_npz(tmp_path / f"masks/{7:012d}.npz", masks=masks, categories=np.array([3, 9, 9]), points=np.array([1, 0, 2]))
    return tmp_path


def crops(folder, augment=None, **changes):
    settings = BestieSettings(network={"augment": {"crop": 64, "long_side": None, "scale": (1.0, 1.0), "flip": False,
                                                   **(augment or {})}, "brightness": 0, "contrast": (1, 1), "hue": 0},
                              **changes)
    return LabelledCrops([{"id": 7, "file_name": "one.png", "width": 60, "height": 40}], {7: {3, 9}},
                         folder / "semantic", folder / "cues", [3, 9], settings, folder / "masks")


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("crop", [24, 64, 128])
def test_masks_go_where_their_pixels_go(folder, scale, crop):
    """Every mask has a grey of its own, so the crop's picture shows where it must be; also where the crop cuts it."""
    samples = crops(folder, {"crop": crop, "scale": (scale, scale), "flip": True}, transfer={"smallest": 1, "sigma": 2})
    cut = seen = 0
    for seed in range(6):
        sample = samples.sample(0, np.random.default_rng(seed))
        grey, instances = sample["image"][0].numpy(), sample["instances"].numpy()
        for value, category, area in ((60, 0, 800), (120, 1, 320), (180, 1, 320)):
            shown = (grey == value) & sample["inside"].numpy()
            if not inner(shown).any():
                continue
            row, = np.unique(instances[inner(shown)]).tolist()
            mask = instances == row
            assert row > 0 and (grey[inner(mask)] == value).all(), "the same pixels, but for blurred edges"
            pixels = np.argwhere(mask)
            wanted = [category, *(pixels.sum(0) // len(pixels)).tolist()]
            assert sample["centres"][row - 1].tolist() == wanted, "the middle of what the crop shows"
            assert (sample["semantic"].numpy()[mask] == category + 1).all()
            seen, cut = seen + 1, cut + (len(pixels) < 0.9 * area * scale ** 2)
    assert seen >= 6 and (cut > 0) == (crop < 60 * scale)


def inner(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask whose neighbours belong to it, too."""
    return cv2.erode(np.pad(mask.astype(np.uint8), 1), np.ones((3, 3)), borderValue=0)[1:-1, 1:-1] > 0


def test_the_crops_are_those_of_the_first_training(folder):
    settings = crops(folder).settings
    plain = LabelledCrops(crops(folder).images, {7: {3, 9}}, folder / "semantic", folder / "cues", [3, 9], settings)
    one, two = (samples.sample(0, np.random.default_rng(4)) for samples in (plain, crops(folder)))
    for name in ("image", "semantic", "inside", "components"):
        assert torch.equal(one[name], two[name])
    assert one["instances"].unique().tolist() == [0, 1], "the squares are one component with two cues"
    assert two["instances"].unique().tolist() == [0, 1, 2, 3]


def test_points_stay_with_their_masks(folder):
    samples = crops(folder, {"crop": 30, "flip": True}, cues={"source": "points"}, transfer={"smallest": 1})
    both = 0
    for seed in range(30):
        sample = samples.sample(0, np.random.default_rng(seed))
        grey = sample["image"][0].numpy()
        for row in sample["instances"].unique().tolist():
            if row == 0:
                continue
            mask = (sample["instances"] == row).numpy()
            category, y, x = sample["centres"][row - 1].tolist()
            assert mask[y, x], "these points lie in their masks"
            assert len(np.unique(grey[mask])) == 1
            both += category
    assert both > 5


def test_no_instance(folder):
    write_npz(folder / f"masks/{7:012d}.npz", masks=np.zeros((40, 60), np.uint16), categories=np.zeros(0, np.int64),
              points=np.zeros(0, np.int64))
    for changes in ({}, {"cues": {"source": "points"}}):
        sample = crops(folder, **changes).sample(0, np.random.default_rng(0))
        assert not sample["instances"].any()
        assert len(sample["centres"]) == (3 if changes else 0), "points are known all the same"
    sample = crops(folder).sample(0, np.random.default_rng(0))
    batch = collate([sample, sample])
    found = pseudo_targets(batch["instances"], batch["centres"], 2, 2.0)
    assert not found.centre.any() and not found.offset_weight.any()


def test_instances_below_the_threshold_are_no_masks(monkeypatch):
    labels = np.array([[1, 1, 0], [2, 3, 3]], np.int32)
    found = Instances(labels, np.array([0, 1, 1]), np.array([0.5, 0.2, 0.9], np.float32), np.array([4, 0, 2]))
    monkeypatch.setattr(retraining, "load_refiner", lambda *_: (None, [3, 9]))
    monkeypatch.setattr(retraining, "network_instances", lambda *_: lambda split, image, pixels: found)

    def made(threshold):
        settings = BestieSettings(retraining={"threshold": threshold})
        return retraining.mask_inference(None, None, {}, settings, torch.device("cpu"))("", {}, None)

    masks = made(0.5)
    assert masks["masks"].tolist() == [[1, 1, 0], [0, 2, 2]] and masks["masks"].dtype == np.uint16
    assert masks["categories"].tolist() == [3, 9] and masks["points"].tolist() == [4, 2]
    assert made(0.0)["masks"].tolist() == labels.tolist() and made(0.0)["categories"].tolist() == [3, 9, 9]
    nothing = made(1.0)
    assert not nothing["masks"].any() and nothing["categories"].shape == nothing["points"].shape == (0,)

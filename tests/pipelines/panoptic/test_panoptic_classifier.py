"""The classifier of fixed crops and Grad-CAM, crop by crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panoptic_scenes import CATEGORIES, CLASSES, GRASS, SKY, image_entry
from torch.nn import functional

from pipelines.panoptic.classifier import (
    CropClassifier,
    TaggedCrops,
    _cells,
    collate,
    crop_targets,
    cut,
    stuff_maps,
    tag_loss,
)
from pipelines.panoptic.settings import CropClassifierSettings
from stages.cues.backbone import Grid, grid_of
from stages.labels.tag_crops import TagCrop, tag_crops

NARROW = {"name": "resnet10t", "weights": "none", "stride": 8,
          "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}


def settings(**changes) -> CropClassifierSettings:
    return CropClassifierSettings(**{"backbone": NARROW, "architecture": "plain", "decoder_channels": 8, **changes})


class Bright(torch.nn.Module):
    """Attention by hand: the sky is where it is red, grass where it is green, at every fourth pixel."""

    grid = Grid(4, 0)

    def __init__(self) -> None:
        super().__init__()
        self.body = self

    def features(self, images):
        return images[:, :, ::4, ::4].float() / 255

    def classify(self, features):
        weights = torch.tensor([[0., 0., 0.], [1., 0., 0.], [0., 0., 0.], [0., 1., -1.]])
        return features.mean(dim=(2, 3)) @ weights.T


def test_crops_are_shown_whole(tmp_path, monkeypatch):
    import cv2

    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    (tmp_path / "data/dataset/images").mkdir(parents=True)
    cv2.imwrite("data/dataset/images/1.png", pixels[..., ::-1])
    crops = [{"bbox": [0, 0, 12, 20], "tags": [2, 9]}, {"bbox": [18, 0, 12, 20], "tags": []}]
    samples = TaggedCrops([image_entry(20, 30, tag_crops=crops)], CLASSES.category_ids, settings(flip=True))
    assert len(samples) == 2
    assert samples.targets.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    seen = {samples.sample(0, np.random.default_rng(seed))["image"].numpy().tobytes() for seed in range(8)}
    first = np.ascontiguousarray(pixels[:, :12].transpose(2, 0, 1))
    assert seen == {first.tobytes(), np.ascontiguousarray(first[:, :, ::-1]).tobytes()}, "mirrored or not, never moved"


def test_without_crops_the_whole_image_is_one():
    crop, = tag_crops(image_entry(20, 30, [5]))
    assert crop == TagCrop((0, 0, 30, 20), [5])
    assert crop_targets([crop], CLASSES.category_ids).tolist() == [[0, 1, 0, 0]]
    assert cut(np.zeros((20, 30, 3)), TagCrop((3, 2, 9, 20), [])).shape == (18, 6, 3)


def test_a_batch_of_crops_of_several_sizes():
    samples = [{"image": torch.full((3, 4, 6), 7, dtype=torch.uint8), "target": torch.ones(4)},
               {"image": torch.full((3, 6, 2), 9, dtype=torch.uint8), "target": torch.zeros(4)}]
    batch = collate(samples)
    assert batch["image"].shape == (2, 3, 6, 6) and batch["target"].shape == (2, 4)
    assert (batch["image"][0, :, :4] == 7).all() and batch["image"][0, :, 5, 0].tolist() == [124, 116, 104]
    assert (batch["image"][1, :, :, :2] == 9).all() and batch["image"][1, :, 0, 3].tolist() == [124, 116, 104]


def test_the_loss_is_equation_6():
    logits, truth = torch.randn(1, 4), torch.tensor([[1., 0., 0., 1.]])
    found = tag_loss(lambda images: logits, {"image": torch.zeros(1), "target": truth})["classification"]
    by_hand = (-truth * torch.log(torch.sigmoid(logits)) - (1 - truth) * torch.log(1 - torch.sigmoid(logits))).mean()
    assert found == pytest.approx(float(by_hand), abs=1e-6)


@pytest.mark.parametrize("architecture", ["plain", "pspnet"])
def test_grad_cam_is_the_class_attention_map(architecture):
    """Behind global average pooling and one layer, Grad-CAM is ReLU(CAM) up to a factor: normalised they agree."""
    torch.manual_seed(0)
    model = CropClassifier(settings(architecture=architecture), len(CATEGORIES)).eval()
    torch.nn.init.uniform_(model.head.weight, -0.3, 1)  # both maps have a maximum above 0
    pixels = torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    found = stuff_maps(model, pixels, [TagCrop((0, 0, 64, 40), [5, 9])], CLASSES, 8)
    assert found["channels"].tolist() == [SKY, GRASS] and found["maps"].shape == (2, 5, 8)
    with torch.no_grad():
        features = model.body.features(pixels[None])
        cams = functional.relu(torch.einsum("kc,nchw->nkhw", model.head.weight, features))[0, [SKY - 1, GRASS - 1]]
    cams = cams / cams.amax((1, 2), keepdim=True)
    # The maps' cells are centred on 3.5, 11.5, ...; the network's somewhat before: each lies between two of them.
    assert model.grid.stride == 8 and 0 <= model.grid.origin < 3.5
    share = (3.5 - model.grid.origin) / 8
    inner = cams[:, :-1] * (1 - share) + cams[:, 1:] * share
    inner = inner[:, :, :-1] * (1 - share) + inner[:, :, 1:] * share
    assert np.allclose(found["maps"][:, :4, :7], inner.numpy(), atol=2e-3)


def test_maps_of_overlapping_crops_are_joined_by_the_maximum():
    pixels = torch.zeros(3, 8, 32, dtype=torch.uint8)
    pixels[0, :, :16], pixels[0, :, 16:24] = 200, 100  # red: bright in the left crop, half as bright in the right one
    left, right = TagCrop((0, 0, 20, 8), [5]), TagCrop((12, 0, 32, 8), [5])
    alone = stuff_maps(Bright(), pixels, [left], CLASSES, 4)
    assert (alone["maps"][0, :, 5:] == 0).all(), "no crop says anything there"
    both = stuff_maps(Bright(), pixels, [left, right], CLASSES, 4)
    assert both["channels"].tolist() == [SKY] and int(both["stride"]) == 4
    assert both["maps"].max() == 1 and both["maps"][0, 0, 0] == 1
    assert (both["maps"] >= alone["maps"]).all()
    other = stuff_maps(Bright(), pixels, [right], CLASSES, 4)
    assert np.array_equal(both["maps"], np.maximum(alone["maps"], other["maps"]))


def test_only_tagged_stuff_is_looked_for():
    pixels = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    nothing = stuff_maps(Bright(), pixels, [TagCrop((0, 0, 16, 16), [2, 7])], CLASSES, 4)
    assert nothing["channels"].shape == (0,) and nothing["maps"].shape == (0, 4, 4)
    crops = [TagCrop((0, 0, 8, 16), [5, 1234]), TagCrop((8, 0, 16, 16), [9])]
    found = stuff_maps(Bright(), pixels, crops, CLASSES, 4)
    assert found["channels"].tolist() == [SKY, GRASS]
    assert (found["maps"][0, :, 2:] == 0).all() and (found["maps"][1, :, :2] == 0).all()


def test_a_class_that_the_network_never_sees_has_an_empty_map():
    pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    found = stuff_maps(Bright(), pixels, [TagCrop((0, 0, 16, 16), [5])], CLASSES, 4)
    assert found["channels"].tolist() == [SKY] and (found["maps"] == 0).all() and np.isfinite(found["maps"]).all()


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
def test_cells_of_crops_cover_the_image(stride):
    side = 41
    seen = [number for start, end in ((0, 15), (15, 30), (30, 41))
            for number in _cells(start, end, grid_of(stride), side)]
    assert seen == list(range(-(-side // stride)))
    assert list(_cells(0, 1, grid_of(8), 41)) == [], "a crop between two centres has no cell"

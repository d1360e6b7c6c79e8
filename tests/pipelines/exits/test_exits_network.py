from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipelines.exits.network import Decoder, Generator, Pyramid, _position, load_generator
from pipelines.exits.prediction import predict, refine, walk_prediction, whole_prediction
from pipelines.exits.retrieval import initial_labels, retrieve_points
from pipelines.exits.settings import (
    CrfSettings,
    EncoderSettings,
    ExitsSettings,
    ExtractorSettings,
    GuidedInferenceSettings,
    GuidedSettings,
    PropagationSettings,
    RandomCropSettings,
    StudentSettings,
)
from pipelines.exits.targets import with_scores
from stages.runtime.ema import Teacher
from stages.runtime.errors import UserError

PYRAMID = {"kind": "pyramid", "name": "resnet10t", "weights": "none", "stride": 8, "width": 16,
           "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
VIT = {"kind": "vit", "name": "vit_tiny_patch16_224", "weights": "none", "stride": 8,
       "arguments": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "class_token": False}}
BOXES = torch.tensor([[4.0, 4.0, 28.0, 20.0], [8.0, 0.0, 32.0, 32.0]])


def _images(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _generator(settings: dict, mask_stride: int = 4, guided: bool = False, **changes) -> Generator:
    torch.manual_seed(0)
    return Generator(EncoderSettings(**{**settings, **changes}), 32, mask_stride, guided).eval()


@pytest.mark.parametrize("settings", [PYRAMID, VIT], ids=["pyramid", "vit"])
@pytest.mark.parametrize("mask_stride", [2, 4, 8])
def test_masks_have_the_size_that_is_asked_for(settings, mask_stride):
    model = _generator(settings, mask_stride)
    masks = model(_images(), BOXES)
    assert masks.shape == (2, 32 // mask_stride, 32 // mask_stride)
    assert model.mask_cells == 32 // mask_stride
    assert 0 < masks.min() < masks.max() < 1


def test_the_decoder_is_the_inner_product_of_its_heads():
    torch.manual_seed(0)
    decoder, features = Decoder(12, 2).eval(), torch.randn(2, 12, 4, 4)
    seen = {}
    for name in ("after", "prototype"):
        getattr(decoder, name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    logits = decoder(features)
    assert logits.shape == (2, 8, 8)
    for b, y, x in ((0, 0, 0), (1, 7, 3)):
        expected = (seen["after"][b, :, y, x] * seen["prototype"][b]).sum() * 8**-0.5
        assert logits[b, y, x].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_box_matters_where_the_position_is_told_and_only_there():
    other = BOXES.flip(0)
    blind, told = _generator(PYRAMID), _generator(PYRAMID, position=True)
    assert torch.equal(blind(_images(), BOXES), blind(_images(), other))
    assert not torch.allclose(told(_images(), BOXES), told(_images(), other), atol=1e-4)


def test_scores_matter_to_a_guided_network_and_none_are_zeros():
    model = _generator(PYRAMID, guided=True)
    scores = torch.randn(2, 5, 5)
    assert not torch.allclose(model(_images(), BOXES, scores), model(_images(), BOXES), atol=1e-4)
    assert torch.equal(model(_images(), BOXES, torch.zeros(2, 5, 5)), model(_images(), BOXES))
    assert torch.equal(_generator(PYRAMID)(_images(), BOXES, scores), _generator(PYRAMID)(_images(), BOXES))
    with pytest.raises(ValidationError):
        ExtractorSettings(encoder={**PYRAMID, "scores": True})


def test_a_mirrored_crop_gives_a_mirrored_position():
    """What the network is told of a box does not depend on the side from which one looks."""
    mirrored = torch.stack([32 - BOXES[:, 2], BOXES[:, 1], 32 - BOXES[:, 0], BOXES[:, 3]], dim=1)
    # Cells centred on the middle of their pixels lie symmetrically.
    one, other = _position(BOXES, 8, 4.0, 1.5), _position(mirrored, 8, 4.0, 1.5)
    torch.testing.assert_close(other.flip(-1)[:, [1, 0, 2, 3]], one)


def test_position_of_a_cell_by_hand():
    # Cell 2 of stride 4 is centred on pixel 9.5, 10 px from the left edge of the crop.
    maps = _position(torch.tensor([[6.0, 2.0, 16.0, 22.0]]), 8, 4.0, 1.5)
    assert maps[0, :, 3, 2].tolist() == pytest.approx([0.4, 0.6, 0.6, 0.4])
    assert maps[0, :, 0, 7].tolist() == pytest.approx([1.0, -1.0, 0.0, 1.0])


@pytest.mark.parametrize(("settings", "layer"), [(PYRAMID, 1), (PYRAMID, 0), (PYRAMID, 6), (VIT, 2)])
def test_similarity_is_positive_and_of_the_grid(settings, layer):
    model = _generator(settings)
    chosen = PropagationSettings(cells=4, layer=layer, colour=0.2, locality=0.3)
    similarity = model.similarity(_images(), BOXES, chosen)
    assert similarity.shape == (2, 16, 16)
    assert (similarity > 0).all()
    if settings is PYRAMID:
        torch.testing.assert_close(similarity, similarity.transpose(1, 2))
        torch.testing.assert_close(similarity.diagonal(dim1=1, dim2=2), torch.ones(2, 16))


def _centres(count: int, stride: float, origin: float) -> np.ndarray:
    return origin + stride * np.arange(count)


def _sampled(values: np.ndarray, at: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A map (C, n, n) at ``at`` x ``at``, linearly between ``places``, one axis after the other."""
    for axis in (1, 2):
        values = np.apply_along_axis(lambda line: np.interp(at, places, line), axis, values)
    return values


MOBILE = {"kind": "pyramid", "name": "mobilenetv2_050", "weights": "none", "stride": 16, "width": 16,
          "arguments": {"pad_type": "same"}}


@pytest.mark.parametrize(("settings", "layer", "cells"),
                         [(PYRAMID, 4, 16), (PYRAMID, 1, 8), (MOBILE, 5, 12), (MOBILE, 3, 4)],
                         ids=["enlarged", "reduced", "same padding", "same padding, reduced"])
def test_points_see_the_features_of_their_own_place(settings, layer, cells):
    """The level's cells lie on its grid, the points' in the middle of equal parts of the crop; wide parts see means."""
    encoder = _generator(settings).encoder
    assert isinstance(encoder, Pyramid)
    side, grid = 64, encoder.body.grids[layer - 1]
    count = -(-side // int(grid.stride))
    level = np.random.default_rng(0).normal(size=(5, count, count))
    maps = [torch.zeros(1, 5, 4, 4)] * 6
    maps[layer - 1] = torch.from_numpy(level)[None].float()
    encoder.body.levels = lambda images: maps[:len(encoder.body.grids)]
    found = encoder.exponent(torch.zeros(1, 3, side, side, dtype=torch.uint8), BOXES[:1], cells, layer, 0.5)[0]
    # Reduced by area: the mean over as many places of each part as the level has cells in it.
    fine = max(1, round(side / cells / grid.stride))
    at = _centres(cells * fine, side / cells / fine, side / cells / fine / 2 - 0.5)
    features = _sampled(level, at, _centres(count, grid.stride, grid.origin))
    features = features.reshape(5, cells, fine, cells, fine).mean((2, 4)).reshape(5, -1)
    features -= features.mean(1, keepdims=True)
    features /= np.linalg.norm(features, axis=0)
    np.testing.assert_allclose(found.numpy(), (features.T @ features - 1) / 0.5, atol=1e-4)


@pytest.mark.parametrize("settings", [PYRAMID, MOBILE], ids=["padded alike", "same padding"])
def test_the_guide_lies_on_the_picture(settings):
    """Every level is shown the scores at the places of its own cells."""
    model = _generator(settings, guided=True)
    encoder = model.encoder
    seen: list[torch.Tensor] = []
    for layer in encoder.lateral:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, -1]))
    side, scores = 64, torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(0))
    model(torch.zeros(1, 3, side, side, dtype=torch.uint8), BOXES[:1], scores)
    places = _centres(12, side / 12, side / 24 - 0.5)
    assert len(seen) == len(encoder.levels)
    for guide, index in zip(reversed(seen), encoder.levels, strict=True):
        grid = encoder.body.grids[index]
        expected = _sampled(scores.tanh().numpy(), _centres(len(guide), grid.stride, grid.origin), places)[0]
        np.testing.assert_allclose(guide.detach().numpy(), expected, atol=1e-5)


def test_layers_that_a_pyramid_does_not_have():
    with pytest.raises(UserError, match="layer is 7, the pyramid has 6"):
        _generator(PYRAMID).similarity(_images(), BOXES, PropagationSettings(cells=4, layer=7))


def test_the_teacher_is_the_moving_average():
    student = _generator(PYRAMID)
    teacher = Teacher(student, 0.5)
    expected = [value.detach().clone() for value in student.parameters()]
    for step in range(6):
        with torch.no_grad():
            for value in student.parameters():
                value.add_(0.1 * (step + 1))
        teacher.follow(student)
        share = 1 - min(0.5, (1 + step) / (10 + step))
        expected = [mean + share * (value - mean) for mean, value in zip(expected, student.parameters(), strict=True)]
    for mean, value in zip(teacher.network.parameters(), expected, strict=True):
        torch.testing.assert_close(mean, value)
    assert int(teacher.steps) == 6
    assert not any(value.requires_grad for value in teacher.parameters())
    assert not teacher.train().network.training


def test_the_teacher_survives_a_restart():
    teacher = Teacher(_generator(PYRAMID), 0.9)
    teacher.follow(_generator(PYRAMID))
    other = Teacher(_generator(PYRAMID), 0.9)
    other.load_state_dict(copy.deepcopy(teacher.state_dict()))
    assert int(other.steps) == 1


def test_pretrained_layers_have_a_rate_of_their_own():
    model = _generator(PYRAMID)
    new, old = model.groups(0.1, 0.2)
    assert (new["lr"], old["lr"]) == (0.1, pytest.approx(0.02))
    assert {id(value) for value in new["params"]} | {id(value) for value in old["params"]} == {
        id(value) for value in model.parameters()}
    assert {id(value) for value in old["params"]} == {id(value) for value in model.encoder.body.parameters()}


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save(_generator(PYRAMID).state_dict(), tmp_path / "weights.pt")
    settings = EncoderSettings(**PYRAMID)
    same = load_generator(tmp_path / "weights.pt", settings, 32, 4, torch.device("cpu"))
    assert not any(value.requires_grad for value in same.parameters())
    with pytest.raises(UserError, match="does not fit the network"):
        load_generator(tmp_path / "weights.pt", settings.model_copy(update={"width": 8}), 32, 4, torch.device("cpu"))
    with pytest.raises(UserError, match="no network 'teacher' in it"):
        load_generator(tmp_path / "weights.pt", settings, 32, 4, torch.device("cpu"), "teacher")


def test_initial_labels_by_hand():
    """A box of 16 x 16 px in a crop of 32; delta of 2 px moves the points inward, y down."""
    item = {"extreme_points": [[15, 8], [8, 12], [17, 23], [23, 20]]}
    labels = initial_labels(item, np.array([8.0, 8.0, 24.0, 24.0]), (0, 0, 32, 32), 32, 16, 2 / 32)
    assert set(map(tuple, np.argwhere(labels == 2).tolist())) == {(5, 7), (6, 5), (10, 8), (10, 10)}
    assert (labels[4:12, 4:12] >= 0).all()
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    assert (labels[outside] == -2).all()


def test_points_move_to_the_middle_of_a_small_box_and_no_further():
    item = {"extreme_points": [[16, 15], [15, 16], [16, 17], [17, 16]]}
    labels = initial_labels(item, np.array([15.0, 15.0, 18.0, 18.0]), (0, 0, 32, 32), 32, 32, 0.4)
    assert ((labels == 2) <= (labels >= 0)).all()
    assert (labels == 2).any()


def test_retrieval_of_two_areas():
    """A crop of two textures: the seeds' own becomes foreground, the one that goes on outside background."""
    labels = np.full((4, 4), -2, np.int8)
    labels[1:3, 1:3] = [[2, 0], [0, 0]]
    texture = np.zeros((4, 4), int)
    texture[1, 1] = texture[1, 2] = 1
    flat = texture.ravel()
    similarity = torch.from_numpy(np.where(flat[:, None] == flat[None], 1.0, 0.01)).float()[None]
    found, difference = retrieve_points(similarity, torch.from_numpy(labels)[None],
                                        PropagationSettings(cells=4, hops=3))
    assert found[0, 1:3, 1:3].tolist() == [[2, 1], [-1, -1]]
    assert (difference[0, texture == 1] > 0).all()
    alone = labels.copy()
    alone[1, 1] = 0
    found, difference = retrieve_points(similarity, torch.from_numpy(alone)[None], PropagationSettings(cells=4, hops=0))
    assert torch.equal(found[0], torch.from_numpy(alone))
    assert (difference == 0).all()


def test_a_crop_that_is_all_object_has_no_background():
    labels = torch.zeros(1, 4, 4, dtype=torch.int8)
    labels[0, 0, 0] = 2
    found, _ = retrieve_points(torch.rand(1, 16, 16) + 0.1, labels, PropagationSettings(cells=4, foreground=0.5))
    assert (found >= 0).all()
    assert (found == 1).any()


def test_margins_in_order():
    with pytest.raises(ValidationError, match="a range"):
        RandomCropSettings(margin=(0.5, 0.1))
    with pytest.raises(ValidationError, match="blur_width: a range"):
        StudentSettings(blur_width=(2.0, 1.0))


def test_scores_as_a_share_of_the_masks():
    masks, scores = torch.full((2, 4, 4), 0.2), torch.zeros(2, 4, 4)
    scores[0] = 2.0
    mixed = with_scores(masks, scores, 0.25)
    assert mixed[0].unique().item() == pytest.approx(0.75 * 0.2 + 0.25 / (1 + np.exp(-2)))
    assert torch.equal(mixed[1], masks[1]), "an object without points"


@pytest.mark.parametrize("unguided", [0.0, 0.25, 1.0])
def test_predictions_with_and_without_scores_are_averaged(unguided):
    model = _generator(PYRAMID, guided=True)
    scores = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    shares = GuidedInferenceSettings(without=unguided)
    with torch.no_grad():
        found = whole_prediction(model, _images(), BOXES, scores, guided=shares)
        with_them, without = model(_images(), BOXES, scores), model(_images(), BOXES)
        torch.testing.assert_close(found, (1 - unguided) * with_them + unguided * without)
        alone = whole_prediction(model, _images(), BOXES, None,
                                 guided=shares.model_copy(update={"masks": 0.5}))
        torch.testing.assert_close(alone, model(_images(), BOXES))


def test_the_walk_alone_is_the_sigmoid_of_its_scores():
    scores = torch.zeros(2, 3, 3)
    scores[0] = torch.linspace(-2, 2, 9).view(3, 3)
    found = walk_prediction(scores, 3, 0.5)
    torch.testing.assert_close(found[0], 1 / (1 + torch.exp(0.5 - scores[0])))
    assert (found[1] == 1).all(), "an object without points fills its box"
    assert walk_prediction(scores, 12, 0.0).shape == (2, 12, 12)


def test_guidance_that_does_nothing_or_cannot_be_had_is_refused():
    with pytest.raises(ValidationError, match="nothing is done with the scores"):
        GuidedSettings(enabled=True, training={"input": False})
    with pytest.raises(ValidationError, match="guided.training.input: only a pyramid takes propagation scores"):
        ExitsSettings(guided={"enabled": True})
    masks_alone = {"enabled": True, "training": {"input": False}, "inference": {"masks": 0.5}}
    assert not ExitsSettings(guided=masks_alone).guided.shown
    assert ExitsSettings(guided={"enabled": True}, generator={"encoder": PYRAMID}).guided.shown
    assert not ExitsSettings().guided.enabled


def test_mirrored_predictions_are_averaged_where_they_belong():
    """A network that marks the left half of its crop: the mean with the mirrored one is 1/2 everywhere."""

    class Left(torch.nn.Module):
        guided = False

        def forward(self, images, boxes, scores=None):
            masks = torch.zeros(len(images), 4, 4)
            masks[:, :, :2] = 1
            assert (boxes[:, 0] < boxes[:, 2]).all()
            return masks

    assert (predict(Left(), _images(), BOXES, flip=True) == 0.5).all()


def test_refinement_keeps_to_the_box_and_follows_colours():
    crops = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    crops[0, :, 8:20, 8:16] = torch.tensor([200, 40, 40], dtype=torch.uint8)[:, None, None]
    masks = torch.full((1, 8, 8), 0.05)
    masks[0, 2:5, 1:5] = 0.7  # one cell too wide on the left and on the right
    found = refine(masks, crops, np.array([[6.0, 6.0, 22.0, 22.0]], np.float32), CrfSettings(bilateral_xy=20))
    assert found.shape == (1, 32, 32)
    inside = np.zeros((32, 32), bool)
    inside[6:22, 6:22] = True
    assert (found[0].numpy()[~inside] == 0).all()
    truth = np.zeros((32, 32), bool)
    truth[8:20, 8:16] = True
    mask = found[0].numpy() >= 0.5
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95

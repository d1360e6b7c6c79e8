"""Shapes and geometry of L-Net and E-Net on small backbones."""

from __future__ import annotations

import pytest
import torch

from pipelines.wise.network import WiseNet, at_pixels, enlarge, pad_images, places
from pipelines.wise.settings import NetworkSettings
from stages.cues.backbone import Grid, grid_of
from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError

NARROW = {"name": "resnet10t", "weights": "none", "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}


def settings(stride=16, **changes) -> NetworkSettings:
    return NetworkSettings(**{"backbone": BackboneSettings(**NARROW, stride=stride), "strides": (16, 8, 4),
                              "dimensions": 5, **changes})


def images(height=40, width=56, count=2):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_100", "hrnet_w18_small"])
def test_shapes(name):
    arguments = NARROW["arguments"] if name == "resnet10t" else {}
    stride = 32 if name.startswith("hrnet") else 16
    model = WiseNet(settings(backbone=BackboneSettings(name=name, weights="none", arguments=arguments,
                                                       stride=stride)), classes=3).eval()
    location, embedding = model(images(33, 57))
    assert location.shape[:2] == (2, 4) and embedding.shape[:2] == (2, 5)
    assert location.shape[2:] == embedding.shape[2:] == (-(-33 // stride) * stride // 4, 64 // 4)
    assert model.grid.stride == 4
    assert enlarge(location, model.grid, (33, 57)).shape == (2, 4, 33, 57)


def test_missing_level():
    with pytest.raises(UserError, match=r"wise.network.strides: .* has no level of stride 64 \(it has 2, 4, 8, 16"):
        WiseNet(settings(strides=(64, 8)), 1)


@pytest.mark.parametrize("grid", [Grid(8, 0), Grid(4, 1.5), Grid(16, 7.5)])
def test_embeddings_of_pixels_are_those_of_the_whole_image(grid):
    maps = torch.randn(1, 3, 5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    size = (41, 33)
    yx = torch.tensor([[0, 0], [40, 32], [3, 7], [8, 8], [17, 31], [3, 7]])
    whole = enlarge(maps, grid, size)[0][:, yx[:, 0], yx[:, 1]]
    some = at_pixels(maps[0], grid, yx)
    assert torch.allclose(some, whole, atol=1e-5)
    gradients = [torch.autograd.grad(values.square().sum(), maps)[0] for values in (whole, some)]
    assert torch.allclose(*gradients, atol=1e-4)
    one = torch.ones(2, 1, 1)
    assert torch.equal(at_pixels(one, grid, yx), torch.ones(2, 6))


def test_levels_lie_where_they_belong():
    """Weights that pick one channel of the coarsest level give that channel back at that level's own places."""
    torch.manual_seed(0)
    straight = BackboneSettings(name="resnet18", weights="none", stride=16, arguments={"channels": [8, 8, 16, 16]})
    model = WiseNet(settings(backbone=straight), classes=1).eval()
    head, inputs = model.location, images(48, 64)
    with torch.no_grad():
        for score in head.score:
            score.weight.zero_()
        coarse = head.levels[0]
        head.score[0].weight[1, 0] = 1
        features = model.backbone.levels(inputs)[coarse.index][:, 0]
        found = enlarge(model(inputs)[0], model.grid, (48, 64))[:, 1]
    assert coarse.grid == Grid(16, 0) and features.shape[1:] == (3, 4)
    assert torch.allclose(found[:, ::16, ::16], features, atol=1e-5)


def test_places_are_symmetric_and_end_at_the_border():
    found = places(grid_of(4), torch.zeros(2, 1, 6, 10), (24, 40))
    assert found.shape == (2, 2, 6, 10)
    assert torch.allclose(found, -found.flip(-1).flip(-2))
    assert found[0, 1, 0, -1] == pytest.approx((37.5 - 19.5) / 20) and found[0, 0, -1, 0] == pytest.approx(10 / 20)


def test_coordinates_tell_look_alikes_apart():
    """The same features at two cells: only with coordinates may the embeddings differ."""
    for coordinates in (False, True):
        head = WiseNet(settings(coordinates=coordinates), 1).embedding
        features = [torch.ones(1, level.channels, 64 // int(level.grid.stride), 64 // int(level.grid.stride))
                    for level in head.levels]
        by_index = {level.index: value for level, value in zip(head.levels, features, strict=True)}
        found = head([by_index.get(index, torch.zeros(0)) for index in range(max(by_index) + 1)], (64, 64))
        assert (found.std((2, 3)) > 1e-3).any() == coordinates


def test_padding_below_and_to_the_right():
    batch = pad_images([images(3, 5)[0], images(4, 2)[0]], (4, 5), torch.tensor([0.5, 0.25, 1.0]).view(1, 3, 1, 1))
    assert batch.dtype == torch.uint8 and torch.equal(batch[0, :, :3], images(3, 5)[0])
    assert batch[0, :, 3, 0].tolist() == batch[1, :, 0, 2].tolist() == [128, 64, 255]


def test_branches_apart_share_nothing():
    for shared in (True, False):
        model = WiseNet(settings(shared=shared), 1)
        _, embedding = model(images())
        embedding.sum().backward()
        touched = any(value.grad is not None for value in model.backbone.parameters())
        assert touched == shared


def test_initial_scales_and_frozen_batch_norm():
    backbone = BackboneSettings(**NARROW, stride=16, freeze_batch_norm=True)
    torch.manual_seed(0)
    plain = WiseNet(settings(backbone=backbone), 2)
    torch.manual_seed(0)
    scaled = WiseNet(settings(backbone=backbone, embedding_scale=0.1, location_scale=2.0, background_bias=3.0), 2)
    inputs = images(count=1)
    (location, embedding), (location_scaled, embedding_scaled) = plain.train()(inputs), scaled.train()(inputs)
    assert torch.allclose(embedding_scaled, 0.1 * embedding, atol=1e-5)
    difference = location_scaled - 2 * location
    assert torch.allclose(difference[:, 0], torch.tensor(3.0), atol=1e-4)
    assert torch.allclose(difference[:, 1:], torch.tensor(0.0), atol=1e-4)
    assert not any(module.training for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_levels_may_be_mixed_by_convolutions():
    """Every level reaches the output, and beyond its own cell; biases start as without."""
    model = WiseNet(settings(width=6, background_bias=2.0), classes=3).eval()
    features = [level.detach().requires_grad_() for level in model.backbone.levels(images())]
    found = model.location(features, (40, 56))
    assert found.shape == (2, 4, 10, 14)
    found[0, 1, 5, 7].backward()
    used = [level.index for level in model.location.levels]
    reached = [(features[index].grad[0].abs().sum(0) > 0).sum() for index in used]
    assert all(reached[place] > 1 for place in range(3)) and reached[-1] <= 9
    assert model.location.last.bias.tolist() == [2, 0, 0, 0] and model.embedding.last.bias.tolist() == [0] * 5
    assert not len(WiseNet(settings(), classes=3).location.mix)

"""The instance network: sizes, places, gradients, and that it can learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.bestie.losses import objective
from pipelines.bestie.network import BestieNetwork, HighResolution
from pipelines.bestie.settings import NetworkSettings
from pipelines.bestie.targets import pseudo_targets
from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16,
                          arguments={"channels": [8, 8, 16, 24], "stem_width": 8})
HRNET = BackboneSettings(name="hrnet_w18_small", weights="none", stride=32)


def build(classes=3, **changes):
    torch.manual_seed(0)
    narrow = {"backbone": NARROW, "semantic_width": 32, "instance_width": 16, "offset_width": 8}
    return BestieNetwork(NetworkSettings(**{**narrow, **changes}), classes)


def noise(*size):
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize(("backbone", "size"), [(NARROW, (64, 96)), (NARROW, (75, 61)), (HRNET, (75, 61))])
def test_sizes(backbone, size):
    model = build(backbone=backbone).eval()
    with torch.no_grad():
        outputs = model(noise(*size))
    assert [tuple(one.shape) for one in outputs] == [(2, 4, *size), (2, 3, *size), (2, 2, *size)]
    assert all(one.dtype == torch.float32 for one in outputs)


@pytest.mark.parametrize("backbone", [NARROW, HRNET], ids=lambda one: one.name)
def test_every_parameter_has_a_gradient(backbone):
    model = build(backbone=backbone)
    sum(one.square().mean() for one in model(noise(64, 64))).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_hrnet_gives_the_finest_branch():
    model = build(backbone=HRNET)
    assert isinstance(model.backbone, HighResolution)
    assert (model.grid.stride, model.grid.origin) == (4, 0)
    assert model.backbone.channels == [16] and model.centre[0].in_channels == 16
    assert not any("incre" in name or "final_layer" in name for name in model.state_dict())
    with pytest.raises(UserError, match="hrnet_w18_small"):
        build(backbone=HRNET.model_copy(update={"stride": 16}))


def test_decoders_are_those_of_panoptic_deeplab():
    backbone = BackboneSettings(name="resnet50", weights="none", stride=32)
    model = BestieNetwork(NetworkSettings(backbone=backbone), 20)
    semantic, instance = model.decoders
    assert [project[0].out_channels for project in semantic.project] == [128, 64, 32]
    assert [project[0].out_channels for project in instance.project] == [64, 32, 16]
    assert [project[0].in_channels for project in semantic.project] == [1024, 512, 256]
    assert [merge[-3].out_channels for merge in semantic.merge] == [256] * 3
    assert [merge[-3].out_channels for merge in instance.merge] == [128] * 3
    assert [branch[0].dilation[0] for branch in instance.pyramid.branches] == [1, 3, 6, 9]
    assert {branch[0].out_channels for branch in instance.pyramid.branches} == {256}
    assert model.grid.stride == 4
    assert [head[-1].in_channels for head in (model.semantic, model.centre, model.offset)] == [256, 128, 32]
    assert [head[-1].out_channels for head in (model.semantic, model.centre, model.offset)] == [21, 20, 2]


@pytest.mark.parametrize(("stride", "finest", "grid"), [(8, 4, 4), (8, 8, 8), (4, 2, 2), (4, 4, 4), (8, 64, 8)])
def test_small_strides(stride, finest, grid):
    model = build(backbone=NARROW.model_copy(update={"stride": stride}), finest=finest)
    assert model.grid.stride == grid
    assert model(noise(32, 48)).heat.shape == (2, 3, 32, 48)


class Columns(nn.Module):
    """Stands for a decoder: says in which column of the image each cell of a level lies."""

    def __init__(self, grid, level) -> None:
        super().__init__()
        self.grid, self.level = grid, level

    def forward(self, levels):
        like = levels[self.level]
        return (self.grid.origin + self.grid.stride * torch.arange(like.shape[-1])).expand(2, 1, *like.shape[-2:])


@pytest.mark.parametrize(("name", "arguments", "origin"), [
    ("resnet10t", NARROW.arguments, 0.0), ("mobilenetv2_050", {"pad_type": "same"}, 3.0)])
def test_outputs_lie_where_the_features_lie(name, arguments, origin):
    backbone = BackboneSettings(name=name, weights="none", stride=8, arguments=arguments)
    model = build(backbone=backbone).eval()
    assert (model.grid.stride, model.grid.origin) == (4, origin)
    finest = [grid.stride for grid in model.backbone.grids].index(4)
    model.decoders = nn.ModuleList([Columns(model.grid, finest), Columns(model.grid, finest)])
    model.semantic = model.centre = model.offset = nn.Identity()
    with torch.no_grad():
        heat = model(noise(32, 64)).heat[0, 0]
    assert torch.allclose(heat[:, 4:56], torch.arange(64.0)[4:56].expand(32, 52), atol=1e-4)


def test_offsets_in_other_units():
    images = noise(32, 32)
    first, second = build().eval(), build(offset_unit=16.0).eval()
    with torch.no_grad():
        assert torch.allclose(16 * first(images).offset, second(images).offset, rtol=1e-5)
        assert torch.equal(first(images).heat, second(images).heat)


def test_a_few_steps_learn_one_image():
    model = build(classes=2, backbone=NARROW.model_copy(update={"stride": 8}))
    image = torch.full((1, 3, 48, 64), 60, dtype=torch.uint8)
    image[:, 0, 8:28, 6:26], image[:, 1, 20:40, 36:56] = 220, 220
    instances = torch.zeros(1, 48, 64, dtype=torch.int64)
    instances[:, 8:28, 6:26], instances[:, 20:40, 36:56] = 1, 2
    semantic = instances.to(torch.uint8)
    label = pseudo_targets(instances, torch.tensor([[[0, 17, 15], [1, 29, 45]]]), 2, 4.0)
    settings = NetworkSettings()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        terms = objective(*model(image), semantic, label, None, settings)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    for name in ("semantic", "pseudo_centre", "pseudo_offset"):
        assert history[-1][name] < 0.5 * history[0][name], name


@pytest.mark.parametrize("name", ["resnet10t", "hrnet_w18_small"])
def test_heat_starts_near_zero_and_classes_do_not(name):
    """Near zero, a class head of a network that starts from nothing has next to no gradient for its features."""
    stride = 32 if name.startswith("hrnet") else 16
    settings = NetworkSettings(backbone={"name": name, "weights": "none", "stride": stride}, semantic_width=16,
                               instance_width=16, offset_width=8)
    network = BestieNetwork(settings, 3)
    spread = {head: float(getattr(network, head)[-1].weight.detach().std())
              for head in ("semantic", "centre", "offset")}
    assert spread["centre"] < 0.002 and spread["offset"] < 0.002 < 0.02 < spread["semantic"]

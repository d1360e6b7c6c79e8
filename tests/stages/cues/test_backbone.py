"""Grids of feature maps against the measured centre of the input's gradient; resampling; weights files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stages.cues.backbone import Backbone, BackboneSettings, Grid, grid_of, load_weights, resample
from stages.runtime.errors import UserError

NARROW = {"name": "resnet10t", "weights": "none", "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}


def narrow(stride: int = 16, **changes) -> Backbone:
    return Backbone(BackboneSettings(**{**NARROW, "stride": stride, **changes}))


def make_linear(model: nn.Module) -> None:
    """Every convolution a plain mean, nothing else in between: the gradient of a cell is then its field of view.

    Maxima become means over the same window, so that the centre does not depend on an image.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.modules.batchnorm._BatchNorm, nn.ReLU, nn.ReLU6)):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def measured_origin(backbone: Backbone, level: int | None, width: int, transposed: bool) -> float:
    """Centre of the gradient of a cell in the middle, minus its index times the stride."""
    height = 32
    image = torch.zeros((1, 3, width, height) if transposed else (1, 3, height, width), requires_grad=True)
    maps = backbone(image) if level is None else backbone.levels(image)[level]
    maps = maps.transpose(-1, -2) if transposed else maps
    cell = maps.shape[-1] // 2
    maps[..., cell].double().sum().backward()
    assert image.grad is not None
    weight = image.grad[0].double().abs().sum((0, 2 if transposed else 1))
    stride = backbone.grid.stride if level is None else backbone.grids[level].stride
    return float((weight * torch.arange(width)).sum() / weight.sum() - stride * cell)


@pytest.mark.parametrize(("name", "arguments", "stride", "width", "origins"), [
    ("resnet18", {}, 16, 512, [0, 0, 0, 0, 0]),
    ("resnet18", {}, 8, 512, [0, 0, 0, 0, 0]),
    ("mobilenetv2_100", {}, 16, 768, [0, 0, 0, 0, 0]),
    ("mobilenetv2_100", {}, 4, 256, [0, 0, 0, 0, 0]),
    ("mobilenetv2_100", {"pad_type": "same"}, 16, 768, [1, 3, 7, 15, 15]),
    ("mobilenetv2_100", {"pad_type": "same"}, 8, 512, [1, 3, 7, 7, 7]),
    ("vgg11", {"mlp_ratio": 0.002}, 16, 320, [0, 0.5, 1.5, 3.5, 7.5, 7.5]),
    ("vgg11", {"mlp_ratio": 0.002}, 4, 96, [0, 0.5, 1.5, 1.5, 1.5, 1.5]),
    ("regnetx_002", {}, 16, 512, [0, 0, 0, 0, 0]),
    ("densenet121", {}, 16, 768, [0, 0, 2, 6, 6]),
])
def test_grids_are_where_the_gradient_is(name, arguments, stride, width, origins):
    backbone = Backbone(BackboneSettings(name=name, weights="none", stride=stride, arguments=arguments)).eval()
    assert [grid.origin for grid in backbone.grids] == origins
    assert [grid.stride for grid in backbone.grids] == [min(stride, 2 ** (level + (name != "vgg11")))
                                                        for level in range(len(origins))]
    make_linear(backbone.body)
    # One level that was reached by undone steps, the last map, and once the other axis.
    assert measured_origin(backbone, None, width, False) == pytest.approx(backbone.grid.origin, abs=0.02)
    assert measured_origin(backbone, 2, width, True) == pytest.approx(backbone.grids[2].origin, abs=0.02)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_strides_come_without_dilation_and_with_all_levels(stride):
    backbone = narrow(stride).eval()
    assert all(module.dilation in (1, (1, 1)) for module in backbone.modules() if isinstance(module, nn.Conv2d))
    assert [grid.stride for grid in backbone.grids] == [min(stride, own) for own in (2, 4, 8, 16, 32)]
    image = torch.zeros(2, 3, 97, 131, dtype=torch.uint8)
    levels = backbone.levels(image)
    assert [level.shape[1] for level in levels] == backbone.channels
    for level, grid in zip(levels, backbone.grids, strict=True):
        assert level.shape[-2:] == tuple(-(-side // int(grid.stride)) for side in (97, 131))
    assert backbone(image).shape == (2, backbone.width, -(-97 // stride), -(-131 // stride))


def test_averaging_shortcuts_lie_between_their_paths():
    # A ResNet-D averages 2 x 2 cells in the shortcut (half a cell off) beside a centred convolution.
    backbone = narrow(8).eval()
    assert backbone.grid == Grid(8, 1.0)
    make_linear(backbone.body)
    assert 0 < measured_origin(backbone, None, 512, False) < 2


def test_patch_stems():
    assert [grid.origin for grid in Backbone(BackboneSettings(name="convnext_atto", weights="none", stride=32)).grids] \
        == [1.5, 3.5, 7.5, 15.5]


@pytest.mark.parametrize(("name", "stride"), [("resnet10t", 24), ("resnet10t", 64), ("resnet10t", 3),
                                             ("hrnet_w18_small", 4), ("convnext_atto", 16)])
def test_impossible_strides_are_refused(name, stride):
    with pytest.raises(UserError, match=rf"{name}.*stride {stride} cannot be had"):
        Backbone(BackboneSettings(name=name, weights="none", stride=stride))


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(UserError, match="resnet_of_nobody"):
        Backbone(BackboneSettings(name="resnet_of_nobody", weights="none"))
    with pytest.raises(UserError, match="wings"):
        narrow(arguments={"wings": 2})


def test_bytes_and_floats_are_the_same_image():
    backbone = narrow().eval()
    image = torch.randint(0, 256, (1, 3, 64, 48), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(backbone(image), backbone(image.float() / 255), atol=1e-6)


def test_batch_norm_stays_frozen():
    torch.manual_seed(0)
    frozen, free = narrow(freeze_batch_norm=True), narrow()
    for backbone, moves in ((frozen, False), (free, True)):
        backbone.train()
        norms = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.weight.detach().clone()) for norm in norms]
        optimizer = torch.optim.SGD([value for value in backbone.parameters() if value.requires_grad], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            backbone(torch.rand(2, 3, 64, 64)).square().mean().backward()
            optimizer.step()
        backbone.eval()
        backbone.train()
        for norm, (mean, variance, _) in zip(norms, before, strict=True):
            assert torch.equal(norm.running_mean, mean) != moves
            assert torch.equal(norm.running_var, variance) != moves
            assert norm.training == moves
        assert all(torch.equal(norm.weight, state[2]) for norm, state in zip(norms, before, strict=True)) != moves
    assert any(value.requires_grad for value in frozen.parameters())


# --- resampling ---------------------------------------------------------------------------------------------------


def by_hand(values: np.ndarray, source: Grid, target: Grid, count: int) -> np.ndarray:
    """One line of cells read at the target's cells, in float64."""
    found = []
    for index in range(count):
        at = (target.origin + target.stride * index - source.origin) / source.stride
        at = min(max(at, 0.0), len(values) - 1.0)
        low = min(int(np.floor(at)), max(len(values) - 2, 0))
        high = min(low + 1, len(values) - 1)
        found.append(values[low] * (1 - (at - low)) + values[high] * (at - low))
    return np.array(found)


@pytest.mark.parametrize(("source", "target", "cells", "count"), [
    (Grid(16, 0.0), grid_of(4), 6, 24), (Grid(16, 15.0), grid_of(4), 6, 24), (Grid(16, 7.5), Grid(8, 3.5), 5, 9),
    (Grid(2, 0.0), grid_of(4), 20, 10), (Grid(8, 0.0), grid_of(1), 1, 7), (grid_of(4), grid_of(4), 9, 9),
    (Grid(5.37, -1.2), grid_of(2), 7, 30), (grid_of(4), grid_of(4), 1, 1)])
def test_resample_by_hand(source, target, cells, count):
    generator = np.random.default_rng(cells)
    maps = generator.normal(size=(2, 3, cells, cells + 2))
    found = resample(torch.from_numpy(maps).float(), source, target, (count, count + 1)).numpy()
    expected = np.apply_along_axis(by_hand, 3, maps, source, target, count + 1)
    expected = np.apply_along_axis(by_hand, 2, expected, source, target, count)
    assert found.shape == (2, 3, count, count + 1)
    assert np.allclose(found, expected, atol=2e-6)


def test_resample_reproduces_linear_ramps():
    # Value = pixel position: between the outer cells of the source the target reads its own positions.
    source, target = Grid(16, 3.0), grid_of(4)
    positions = source.origin + source.stride * torch.arange(12.0)
    maps = (positions[:, None] + 1000 * positions[None, :])[None, None]
    found = resample(maps, source, target, (48, 48))[0, 0]
    wanted = (target.origin + target.stride * torch.arange(48.0)).clamp(3.0, 3.0 + 16 * 11)
    assert torch.allclose(found, wanted[:, None] + 1000 * wanted[None, :], rtol=1e-6)


def test_resample_is_differentiable_and_keeps_half_precision_in_place():
    maps = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: resample(value, Grid(8, 0.0), grid_of(4), (8, 9)), maps, eps=1e-4,
                                    atol=1e-4)
    ramp = torch.arange(128.0).expand(1, 1, 4, 128)
    exact = resample(ramp, grid_of(4), grid_of(1), (16, 512))
    half = resample(ramp.bfloat16(), grid_of(4), grid_of(1), (16, 512)).float()
    # Two of bfloat16's steps at 128 are 1; misplaced weights would be off by whole cells.
    assert (half - exact).abs().max() <= 1.0


# --- weights ------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def saved(path, content):
    torch.save(content, path)
    return path


def test_weights_come_back(tmp_path):
    source, target = small(), small()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    classifier = {"module.classifier.weight": torch.zeros(10, 4), "module.fc.bias": torch.zeros(10)}
    for content in ({**state, **classifier}, {"state_dict": state}, {"model": state, "epoch": 3}):
        load_weights(target, saved(tmp_path / "weights.pth", content))
        assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_counters_may_be_missing(tmp_path):
    state = small().state_dict()
    del state["1.num_batches_tracked"]
    load_weights(small(), saved(tmp_path / "weights.pth", state))


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: {name: value for name, value in state.items() if name != "0.weight"}, "0.weight is missing"),
    (lambda state: {**state, "0.weight": torch.zeros(5, 3, 3, 3)}, r"0.weight is \(5, 3, 3, 3\), .*\(4, 3, 3, 3\)"),
    (lambda state: {**state, "7.weight": torch.zeros(1)}, "7.weight is unknown"),
    (lambda state: {}, "0.weight is missing"),
])
def test_weights_that_do_not_fit(tmp_path, change, message):
    path, target = tmp_path / "weights.pth", small()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        load_weights(target, saved(path, change(small().state_dict())))
    assert str(path) in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_backbone_from_a_weights_file(tmp_path):
    source = narrow().eval()
    state = {**source.body.state_dict(), "fc.weight": torch.zeros(1000, 16), "fc.bias": torch.zeros(1000)}
    path = saved(tmp_path / "weights.pth", state)
    copy = narrow(weights=str(path)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(source(image), copy(image))
    with pytest.raises(UserError, match="do not fit"):
        narrow(weights=str(path), arguments={"channels": [8, 8, 16, 24], "stem_width": 8})

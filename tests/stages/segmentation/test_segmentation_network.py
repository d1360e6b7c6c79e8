"""Networks: any size in, the same size out, pixels where they lie, and what is frozen stays."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from segmentation_scenes import NARROW, settings
from torch import nn
from torch.nn import functional

from stages.cues.backbone import Backbone
from stages.runtime.errors import UserError
from stages.segmentation.labels import IGNORE
from stages.segmentation.losses import cross_entropy
from stages.segmentation.network import SegmentationNetwork, _means, dilated_backbone

DECODERS = ["pspnet", "deeplabv3plus"]
ARCHITECTURES = [*DECODERS, "plain"]
VGG = {"name": "vgg11", "arguments": {"mlp_ratio": 0.002}}


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("stride", "backbone", "dilate"), [
    (4, {}, True), (8, {}, True), (16, {}, True), (32, {}, True), (8, {}, False),
    (16, {"name": "mobilenetv2_100", "arguments": {}}, True), (8, VGG, False),
    (8, {"name": "convnext_atto", "arguments": {}}, True),
])
def test_any_size(architecture, stride, backbone, dilate):
    torch.manual_seed(0)
    model = SegmentationNetwork(settings(architecture, stride, backbone, dilate=dilate), 3).eval()
    with torch.no_grad():
        for size in ((61, 47), (64, 32), (1, 1), (33, 90)):
            image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
            logits = model(image)
            assert logits.shape == (2, 4, *size)
            assert torch.isfinite(logits).all()
            assert torch.allclose(model(image.float() / 255), logits, atol=1e-5)
            cells = model.cells(image)
            assert cells.shape[-1] == -(-(-(-size[1] // stride) * stride) // int(model.grid.stride))


def make_linear(model: SegmentationNetwork) -> None:
    """Every convolution a plain mean, nothing global, nothing else in between: a pixel's gradient is its view."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.ReLU)) or (name in ("norm", "act") and name in "normact"):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if model.settings.architecture == "pspnet":
        wide = model.backbone.channels[-1]
        with torch.no_grad():
            model.decoder.conv[0].weight[:, :-wide] = 0  # the pooled features come first
    elif model.settings.architecture == "deeplabv3plus":
        nn.init.zeros_(model.decoder.aspp[0].convs[4][1].weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("backbone", "dilate", "width", "slack"), [
    ({"name": "resnet18", "arguments": {}}, True, 901, 0.05),
    (VGG, False, 501, 0.05),
    # A ResNet-D's shortcuts average 2 x 2 cells beside centred convolutions: the two disagree by a pixel or two.
    ({}, True, 701, 1.5),
])
def test_features_lie_where_they_lie(architecture, backbone, dilate, width, slack):
    chosen = settings(architecture, 8, backbone, dilate=dilate, atrous_rates=(1, 2, 3))
    model = SegmentationNetwork(chosen, 1).eval()
    make_linear(model)
    for column in (width // 2, width // 2 + 5):
        image = torch.zeros(1, 3, 9, width, requires_grad=True)
        model(image)[..., column].double().sum().backward()
        weight = image.grad[0].double().abs().sum((0, 1))
        assert weight[0] == weight[-1] == 0, "the field of view must fit into the picture"
        centre = float((weight * torch.arange(width)).sum() / weight.sum())
        assert centre == pytest.approx(column, abs=slack)


@pytest.mark.parametrize("cells", [1, 3, 6, 7, 20])
def test_pooling_is_torchs(cells):
    maps = torch.randn(1, 2, cells, cells + 4)
    for bins in (1, 2, 3, 6):
        found = _means(cells, bins) @ maps @ _means(cells + 4, bins).T
        assert torch.allclose(found, functional.adaptive_avg_pool2d(maps, bins), atol=1e-6)


def test_dilation_keeps_the_field_of_view():
    dilated = dilated_backbone(settings(stride=8))
    assert {module.dilation for module in dilated.modules() if isinstance(module, nn.Conv2d)} == {(1, 1), (2, 2),
                                                                                              (4, 4)}
    plain = dilated_backbone(settings(stride=8, dilate=False))
    assert all(module.dilation == (1, 1) for module in plain.modules() if isinstance(module, nn.Conv2d))
    assert dilated.grid.stride == plain.grid.stride == 8


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_stay(architecture, frozen):
    torch.manual_seed(0)
    model = SegmentationNetwork(settings(architecture, backbone={"freeze_batch_norm": frozen},
                                         decoder_norm="frozen" if frozen else "batch"), 2)
    assert norms(model.backbone) and norms(model.decoder)
    model.eval()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    of_norms = {f"{name}.{part}" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
                for part in ("weight", "bias", "running_mean", "running_var")}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        labels = torch.randint(0, 3, (2, 40, 40))
        cross_entropy(model(torch.rand(2, 3, 40, 40)), labels).backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name for name in of_norms if not torch.equal(before[name], after[name])}
    assert changed == (set() if frozen else of_norms)
    assert not torch.equal(before["head.weight"], after["head.weight"])
    if frozen:
        assert not any(value.requires_grad for norm in norms(model) for value in norm.parameters())


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_one_small_image_a_step(architecture, norm):
    model = SegmentationNetwork(settings(architecture, decoder_norm=norm), 2)
    assert bool(norms(model.decoder)) == (norm != "group")
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model(torch.rand(1, 3, 24, 24)), torch.ones(1, 24, 24))
    loss.backward()
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert not unused
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


@pytest.mark.parametrize("architecture", DECODERS)
def test_an_image_of_which_nothing_is_known_moves_nothing(architecture):
    model = SegmentationNetwork(settings(architecture), 2)
    cross_entropy(model(torch.rand(2, 3, 33, 40)), torch.full((2, 33, 40), IGNORE)).backward()
    assert all((value.grad == 0).all() for value in model.parameters())


def test_layers_that_are_not_used_are_left_out():
    model = SegmentationNetwork(settings(stride=16, backbone={"name": "mobilenetv2_100", "arguments": {}}), 1)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(value.grad is not None for value in model.parameters())


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    # Widths that differ: between equal ones a ResNet has a shortcut of its own only where it strides.
    narrow = {"arguments": {"channels": [8, 12, 16, 24], "stem_width": 8}}
    state = Backbone(settings(stride=32, backbone=narrow).backbone).body.state_dict()
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    model = SegmentationNetwork(settings(stride=8, backbone={"weights": str(path), **narrow}), 2)
    own = model.backbone.body.state_dict()
    assert len(own) > 50
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    with pytest.raises(UserError, match="no such weights file"):
        SegmentationNetwork(settings(backbone={"weights": str(tmp_path / "none.pt")}), 2)
    with pytest.raises(UserError, match="do not fit"):
        SegmentationNetwork(settings(backbone={"weights": str(path), "name": "resnet18", "arguments": {}}), 2)


@pytest.mark.parametrize(("backbone", "message"), [
    ({"name": "resnet_of_nobody", "arguments": {}}, "resnet_of_nobody"),
    (VGG, "vgg11.*cannot dilate it to stride 8.*dilate: false"),
    ({"name": "densenet121", "arguments": {}}, "densenet121.*output_stride.*dilate: false"),
])
def test_impossible_backbones(backbone, message):
    with pytest.raises(UserError, match=message):
        SegmentationNetwork(settings(backbone=backbone), 1)


@pytest.mark.parametrize("wrong", [{"backbone": {**NARROW, "stride": 12}}, {"atrous_rates": (0, 1, 2)},
                                   {"architecture": "unet"}, {"dropout": 1.0}])
def test_impossible_settings(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)

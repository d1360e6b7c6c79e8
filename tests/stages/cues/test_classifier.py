"""The classifier: its score, modules behind its layers, what its layers say, Grad-CAM."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stages.cues.backbone import Grid
from stages.cues.classifier import Classifier, grad_cam
from stages.cues.settings import BackboneSettings
from stages.runtime.errors import UserError

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=8,
                          arguments={"channels": [8, 8, 16, 16], "stem_width": 8})
LAYERS = ["layer3", "layer4", "layer4.0.conv1", "layer4.0.bn1", "conv1.2", "layer2.0"]


def build() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(NARROW, 4, dropout=0.3, scale=3.0).eval()
    nn.init.normal_(model.head.weight, std=1.0)
    for module in model.modules():  # timm starts with residual branches that add nothing
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def network() -> Classifier:
    return build()


def test_score_is_the_mean_of_attention(network):
    images = torch.rand(3, 3, 97, 61)
    with torch.no_grad():
        attention = network.head(network.backbone(images))
        assert torch.allclose(network(images), network.scale * attention.mean(dim=(2, 3)), atol=1e-5)
    assert network.head.bias is None


def test_dropout_acts_in_training_only(network):
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        network.train()
        assert not torch.equal(network(image), network(image))
        network.eval()


def test_unknown_layers_are_refused_with_those_that_there_are(network):
    message = r"layer 'layer5': backbone 'resnet10t' .*did you mean 'layer\d'.*layer4"
    with pytest.raises(UserError, match=message) as info:
        network.layer("layer5")
    assert "bn1" in str(info.value)
    for call in (lambda: network.open_at("body.layer4", torch.rand(1, 3, 32, 32)),
                 lambda: network.insert_behind("", nn.Identity()),
                 lambda: grad_cam(network, torch.rand(3, 32, 32), "head", [0])):
        with pytest.raises(UserError, match="has none of that name"):
            call()


# --- a module behind a layer --------------------------------------------------------------------------------------


class Halved(nn.Module):
    """Half of what comes in, times something that can be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.factor * features


@pytest.mark.parametrize("name", ["layer4", "layer3"])
def test_a_module_behind_a_layer(name):
    model, image = build(), torch.rand(2, 3, 48, 64)
    before, logits = model.open_at(name, image)
    model.insert_behind(name, Halved())
    after, changed = model.open_at(name, image)
    assert torch.allclose(after, 0.5 * before, atol=1e-6)
    assert not torch.allclose(changed, logits, atol=1e-3)
    if name == "layer4":  # the last layer: what comes then is linear
        assert torch.allclose(changed, 0.5 * logits, atol=1e-5)
        assert torch.allclose(model.backbone(image), after, atol=1e-6)
        assert torch.allclose(model.backbone.levels(image)[-1], after, atol=1e-6)
    changed.sum().backward()
    own = dict(model.named_parameters())[f"inserted.{name}.factor"]
    assert own.grad.abs() > 0
    with pytest.raises(UserError, match="there is a Halved behind it already"):
        model.insert_behind(name, Halved())


def test_nested_names_have_a_place_in_the_state_dict():
    model = build()
    model.insert_behind("layer4.0.conv2", Halved())
    assert "inserted.layer4_0_conv2.factor" in model.state_dict()
    assert "inserted" not in " ".join(build().state_dict())


def test_a_copy_uses_its_own_module():
    model, image = build(), torch.rand(1, 3, 32, 32)
    model.insert_behind("layer4", Halved())
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        before = teacher(image)
        model.inserted["layer4"].factor.fill_(5.0)
        assert torch.equal(teacher(image), before)
        teacher.inserted["layer4"].factor.fill_(2.0)
        assert torch.allclose(teacher(image), 2 * before, atol=1e-5)


# --- activations and gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_a_layer(name, frozen):
    model, image = build().double(), torch.rand(1, 3, 40, 56, dtype=torch.float64)
    model.requires_grad_(not frozen)
    features, logits = model.open_at(name, image)
    with torch.no_grad():
        assert torch.allclose(logits, model(image), atol=1e-12)
    assert not model.layer(name)._forward_hooks
    gradient, = torch.autograd.grad(logits[0, 2], features)
    # Against finite differences: the layer's output moved by a little along a random direction.
    torch.manual_seed(1)
    direction = torch.randn_like(features)
    step, moved = 1e-7 * float(features.detach().abs().mean()), []
    for sign in (1, -1):
        hook = model.layer(name).register_forward_hook(lambda module, inputs, output, s=sign: output.detach().clone()
                                                       + s * step * direction)
        with torch.no_grad():
            moved.append(float(model(image)[0, 2]))
        hook.remove()
    slope = (moved[0] - moved[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert gradient.abs().max() > 0


def test_without_gradients_a_layer_is_only_read(network):
    with torch.no_grad():
        features, logits = network.open_at("layer4", torch.rand(1, 3, 32, 32))
    assert not features.requires_grad
    assert not logits.requires_grad


def test_grad_cam_of_the_last_layer_is_eq_1(network):
    """Behind the last layer only a mean and a linear layer follow: the gradient of a channel is its weight / cells."""
    image = torch.rand(3, 48, 64)
    found = grad_cam(network, image, "layer4", [3, 1])
    with torch.no_grad():
        features = network.backbone(image[None])
        wanted = network.head(features)[0, [3, 1]].clamp(min=0) * network.scale / features[0, 0].numel()
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["layer3", "layer4.0.bn1"])
def test_grad_cam_by_hand(network, name):
    image = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8)
    found = grad_cam(network, image, name, range(4))
    features, logits = network.open_at(name, image[None])
    for maps, index in zip(found, range(4), strict=True):
        gradient, = torch.autograd.grad(logits[0, index], features, retain_graph=True)
        wanted = torch.zeros(features.shape[-2:])
        for channel in range(features.shape[1]):
            wanted += gradient[0, channel].mean() * features[0, channel].detach()
        assert torch.allclose(maps, wanted.clamp(min=0), atol=1e-6)
    assert found.max() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_grad_cam_where_gradients_are_off(network, mode):
    image = torch.rand(3, 40, 48)
    wanted = grad_cam(network, image, "layer3", [0])
    with mode():
        copied = image * 1  # made in that mode
        assert torch.equal(grad_cam(network, copied, "layer3", [0]), wanted)
        assert grad_cam(network, copied, "layer3", []).shape == (0, *wanted.shape[1:])


@pytest.mark.parametrize(("name", "stride"), [("layer1", 4), ("layer2", 8), ("layer3", 8), ("conv1.0", 2)])
def test_where_the_cells_of_a_layer_lie(network, name, stride):
    assert network.backbone.grid_at(name).stride == stride
    if name == "layer3":
        assert network.backbone.grid_at(name) == network.backbone.grids[3]
    assert isinstance(network.backbone.grid_at(name), Grid)

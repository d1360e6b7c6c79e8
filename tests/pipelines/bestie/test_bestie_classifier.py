"""Peak attention, the classifier around it, and its attention maps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.bestie.classifier import PeakAttention, PeakClassifier, attention_maps
from pipelines.bestie.settings import PeakClassifierSettings
from stages.cues.settings import BackboneSettings

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=8,
                          arguments={"channels": [8, 8, 16, 24], "stem_width": 8})


def build(classes=3, **changes):
    torch.manual_seed(0)
    return PeakClassifier(PeakClassifierSettings(**{"backbone": NARROW, "width": 16, **changes}), classes)


def test_peak_attention_by_loop():
    torch.manual_seed(1)
    features = torch.randn(3, 4, 5, 6)
    features[1, 2] = -1.0  # a channel without a positive value
    for alpha in (0.0, 0.3, 0.7, 1.0):
        found = PeakAttention(alpha)(features)
        for image in range(3):
            for channel in range(4):
                positive = features[image, channel].clamp(min=0)
                boundary = positive.max() * alpha
                wanted = [value if value >= boundary else 0 for value in positive.flatten().tolist()]
                assert torch.allclose(found[image, channel].flatten(), torch.tensor(wanted))


def test_peak_attention_passes_gradients_to_the_peaks_alone():
    features = torch.tensor([[[[1.0, 0.69, 0.7, -2.0]]]], requires_grad=True)
    out = PeakAttention(0.7)(features)
    assert torch.allclose(out, torch.tensor([[[[1.0, 0.0, 0.7, 0.0]]]]))
    out.sum().backward()
    assert features.grad.flatten().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("attention", [(), (6,), (4, 6), (4, 5, 6)])
def test_which_layers_have_it(attention):
    model = build(attention=attention)
    assert [isinstance(gate, PeakAttention) for gate in model.gates] == [n in attention for n in (4, 5, 6)]
    assert not list(model.gates.parameters())


def test_attention_thins_the_maps_out():
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain, peaks = build(attention=()).eval(), build(attention=(6,), alpha=0.7).eval()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), peaks.parameters(), strict=True))
    features = []
    for model in (plain, peaks):
        model.gates[2].register_forward_hook(lambda _module, _inputs, output: features.append(output))
        with torch.no_grad():
            model(images)
    assert (features[1] > 0).sum() < 0.7 * (features[0] > 0).sum()
    assert torch.equal(features[1].amax((2, 3)), features[0].amax((2, 3)))


def test_logits_are_the_mean_of_the_maps():
    model = build(logit_scale=4.0).eval()
    images = torch.randint(0, 256, (2, 3, 64, 80), dtype=torch.uint8)
    with torch.no_grad():
        maps = model.maps(images)
        assert maps.shape == (2, 3, 8, 10)
        assert torch.allclose(model(images), 4 * maps.mean((2, 3)), atol=1e-6)


def test_vgg_at_stride_8_is_dilated():
    settings = BackboneSettings(name="vgg11", weights="none", stride=8)
    model = build(backbone=settings)
    layers = list(model.backbone.body.features)
    pools = [layer for layer in layers if isinstance(layer, nn.MaxPool2d)]
    assert [pool.stride for pool in pools][:3] == [2, 2, 2]
    assert (pools[3].kernel_size, pools[3].stride, pools[3].padding) == (3, 1, 1)
    assert (pools[4].kernel_size, pools[4].stride) == (1, 1), "no fifth pool"
    dilated = [layer.dilation for layer in layers if isinstance(layer, nn.Conv2d)]
    assert dilated == [(1, 1)] * 6 + [(2, 2)] * 2
    with torch.no_grad():
        assert model.maps(torch.zeros(1, 3, 64, 80, dtype=torch.uint8)).shape == (1, 3, 8, 10)


def test_parameter_groups():
    model = build(learning_rate=0.001)
    groups = model.parameter_groups()
    assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.002, 0.01, 0.02])
    chosen = [id(value) for group in groups for value in group["params"]]
    assert sorted(chosen) == sorted(id(value) for value in model.parameters())
    assert id(model.head.bias) in [id(value) for value in groups[3]["params"]]
    assert id(model.layers[0].weight) in [id(value) for value in groups[2]["params"]]


class Bright(nn.Module):
    """A classifier whose maps say where an image is bright, at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        from stages.cues.backbone import grid_of

        self.backbone = nn.Module()
        self.backbone.grid = grid_of(4)

    def maps(self, images):
        value = nn.functional.avg_pool2d(images.float(), 4)[:, :1]
        return torch.cat([value, -value, 0 * value], dim=1)


@pytest.mark.parametrize("side", [0, 64, 128])
@pytest.mark.parametrize("flip", [False, True])
def test_attention_maps_lie_where_the_image_is_bright(side, flip):
    image = torch.zeros(3, 80, 120, dtype=torch.uint8)
    image[:, 16:24, 84:100] = 200
    maps = attention_maps(Bright(), image, [2, 0, 1], side, flip)
    assert maps.shape == (3, 80, 120)
    assert not maps[0].any() and not maps[2].any(), "no positive attention"
    assert float(maps[1].max()) == pytest.approx(1, abs=0.02)
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    assert float((maps[1] * y).sum() / maps[1].sum()) == pytest.approx(19.5, abs=0.3)
    assert float((maps[1] * x).sum() / maps[1].sum()) == pytest.approx(91.5, abs=0.3)


def test_flipped_maps_are_equivariant():
    model = build().eval()
    image = torch.randint(0, 256, (3, 60, 84), dtype=torch.uint8)
    first = attention_maps(model, image, [0, 2], 64, True)
    mirrored = attention_maps(model, image.flip(-1), [0, 2], 64, True)
    assert torch.allclose(first, mirrored.flip(-1), atol=1e-3)
    assert attention_maps(model, image, [], 64, True).shape == (0, 60, 84)


def test_normalised_layers():
    model = build(normalise=True)
    assert [type(norm).__name__ for norm in model.norms] == ["BatchNorm2d"] * 3
    assert [type(norm).__name__ for norm in build().norms] == ["Identity"] * 3
    inputs: list[torch.Tensor] = []
    model.gates[2].register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    model.train()(torch.rand(4, 3, 64, 64))
    assert inputs[0].mean((0, 2, 3)).abs().max() < 1e-4, "what peak attention sees is normalised"

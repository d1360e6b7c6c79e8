"""Peaks, peak stimulation and the way back from a peak to the pixels, by hand on small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stages.cues.prm import PeakClassifier, find_peaks, image_peaks, peak_scores, positive_backward
from stages.cues.settings import BackboneSettings

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16,
                          arguments={"channels": [8, 8, 16, 16], "stem_width": 8})


def drawn(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def test_peaks_by_hand():
    maps = drawn([[5, 1, 1, 1, 2],
                  [1, 1, 1, 1, 2],
                  [1, 1, 4, 3, 1],
                  [0, 1, 1, 1, 1],
                  [0, 0, 1, 7, 7]])
    # The corner, the middle, the first of the two equal twos and of the two equal sevens; the median is 1.
    assert find_peaks(maps, 3)[0, 0].nonzero().tolist() == [[0, 0], [0, 4], [2, 2], [4, 3]]
    assert find_peaks(maps, 5)[0, 0].nonzero().tolist() == [[0, 0], [4, 3]]
    assert not find_peaks(torch.ones(1, 1, 4, 4), 3).any()


def test_low_maxima_are_no_peaks():
    maps = drawn([[0, 9, 9, 9, 9], [3, 0, 9, 9, 9], [0, 0, 9, 9, 9]]) + torch.arange(5) * 0.01
    assert not find_peaks(maps, 3)[0, 0, 1, 0]  # a local maximum, but below the median


def test_score_is_the_mean_of_the_peaks_and_stimulates_them_alone():
    maps = drawn([[5, 1, 1], [1, 1, 1], [1, 1, 3]]).repeat(1, 2, 1, 1)
    maps[0, 1] = 2.0  # level: no peak, so its maximum counts
    maps.requires_grad_()
    scores = peak_scores(maps, 3)
    assert scores.tolist() == [[4.0, 2.0]]
    gradient, = torch.autograd.grad(scores.sum(), maps)
    assert gradient[0, 0].nonzero().tolist() == [[0, 0], [2, 2]] and gradient[0, 0, 0, 0] == 0.5
    assert gradient[0, 1].nonzero().tolist() == [[0, 0]]


def plain_step(probability, inputs, weight, padding):
    """P(U) of one convolution of stride 1, by loops."""
    inputs = np.pad(inputs, ((0, 0), (padding, padding), (padding, padding)))
    positive = np.maximum(weight, 0)
    found = np.zeros(inputs.shape)
    outputs, _, rows, columns = weight.shape
    for channel in range(outputs):
        for y in range(probability.shape[1]):
            for x in range(probability.shape[2]):
                parts = positive[channel] * inputs[:, y:y + rows, x:x + columns]
                if parts.sum() > 0:
                    found[:, y:y + rows, x:x + columns] += probability[channel, y, x] * parts / parts.sum()
    return found[:, padding:found.shape[1] - padding, padding:found.shape[2] - padding]


def test_back_propagation_equals_loops():
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 3, 3, padding=1, bias=True), nn.Conv2d(3, 2, 2, bias=False)
    norm = nn.BatchNorm2d(3).eval()
    norm.weight.data, norm.bias.data = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.3, 0.4, -0.1])
    model = nn.Sequential(first, norm, nn.ReLU(inplace=True), second)
    image = torch.rand(1, 2, 5, 6, requires_grad=True)
    plain = model(image)
    with positive_backward(model):
        outputs = model(image)
        assert torch.equal(outputs, plain)  # the way up is as ever
        start = torch.zeros_like(outputs)
        start[0, 1, 2, 3] = 1
        found, = torch.autograd.grad(outputs, image, start)
    hidden = torch.relu(norm(first(image))).detach().numpy()[0]
    probability = plain_step(start.numpy()[0], hidden, second.weight.detach().numpy(), 0)
    expected = plain_step(probability, image.detach().numpy()[0], first.weight.detach().numpy(), 1)
    assert np.allclose(found[0].numpy(), expected, atol=1e-6)
    assert 0 < found.sum() <= 1 + 1e-5 and (found >= 0).all()
    # Outside the block gradients are gradients again.
    gradient, = torch.autograd.grad(model(image)[0, 1, 2, 3], image)
    assert not torch.allclose(gradient, found)
    assert "forward" not in vars(first)


def test_one_layer_by_hand():
    layer = nn.Conv2d(1, 1, 3, bias=False)
    layer.weight.data = drawn([[1, 0, -5], [0, 2, 0], [0, 0, 1]])
    image = drawn([[1, 9, 9], [9, 3, 9], [9, 9, 1]]).requires_grad_()
    with positive_backward(layer):
        found, = torch.autograd.grad(layer(image).sum(), image)
    assert torch.allclose(found, drawn([[1, 0, 0], [0, 6, 0], [0, 0, 1]]) / 8)


def test_negative_inputs_are_moved_to_zero():
    layer = nn.Conv2d(1, 1, (1, 3), bias=False)
    layer.weight.data = drawn([[1, 1, 1]])
    image = drawn([[-1, 0, 2]]).requires_grad_()
    with positive_backward(layer):
        found, = torch.autograd.grad(layer(image).sum(), image)
    assert torch.allclose(found, drawn([[0, 1, 3]]) / 4)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 71)])
def test_classifier(height, width):
    torch.manual_seed(0)
    model = PeakClassifier(NARROW, 3, enlarge=8, window=3).eval()
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    maps = model.maps(image[None])
    assert maps.shape == (1, 3, -(-height // 2), -(-width // 2)) and model.grid.stride == 2
    assert torch.allclose(model(image[None]), peak_scores(maps, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        found = image_peaks(model, image, [2, 0], least=float(maps.median()))
    assert {index for index, _, _ in found} <= {0, 2} and found
    assert [index for index, _, _ in found] == sorted((index for index, _, _ in found), reverse=True)
    for index, response, pixels in found:
        assert response > maps.median() and response <= maps[0, index].max() + 1e-4
        assert pixels.shape == (height, width) and np.isfinite(pixels).all() and pixels.min() >= 0 < pixels.max()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert image_peaks(model, image, [0, 1, 2], least=float(maps.max()) + 1) == []
    assert image_peaks(model, image, [], least=0) == []


def test_a_peak_is_traced_to_what_excites_it():
    """One bright spot; weights all alike, so that only the activity decides."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2,
                                                                                           bias=False))
    for layer in (layers[0], layers[2]):
        nn.init.constant_(layer.weight, 1.0)
    image = torch.full((1, 1, 15, 15), 0.01)
    image[0, 0, 6, 8] = 1
    image.requires_grad_()
    with positive_backward(layers):
        maps = layers(image)
        start = torch.zeros_like(maps)
        start[0, 0, 7, 7] = 1
        found, = torch.autograd.grad(maps, image, start)
    assert np.unravel_index(int(found[0, 0].argmax()), (15, 15)) == (6, 8)

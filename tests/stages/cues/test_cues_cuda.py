"""Classifiers, attention maps and peaks as on a GPU: nothing is left on the CPU, going forward or backward."""

from __future__ import annotations

import pytest
import torch

from stages.cues.backbone import Grid, constant, grid_of, resample
from stages.cues.cams import class_attention_maps
from stages.cues.classification import tag_losses
from stages.cues.classifier import Classifier, grad_cam
from stages.cues.prm import PeakClassifier, image_peaks
from stages.cues.settings import BackboneSettings
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16,
                          arguments={"channels": [8, 8, 16, 24], "stem_width": 8})


def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mixed", [False, True])
def test_the_classifier(mixed):
    torch.manual_seed(0)
    model = Classifier(NARROW, 3, dropout=0.2)
    with pretended_gpu() as gpu:
        model, given = gpu.take(model).train(), gpu.take({"image": images(), "target": torch.ones(2, 3)})
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = tag_losses(model, given)["classification"]
        loss.backward()
        assert all(value.grad.is_cuda for value in model.parameters()) and not gpu.waits
        model.eval()
        assert grad_cam(model, given["image"][0], "layer4", [0, 2]).is_cuda
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            maps, scores = class_attention_maps(model, given["image"][0], [0, 2], scales=(0.5, 1.0), flip=True,
                                                grid=grid_of(4))
        assert maps.is_cuda and scores.is_cuda and maps.dtype == scores.dtype == torch.float32


def test_attention_maps_in_mixed_precision():
    torch.manual_seed(0)
    model = Classifier(NARROW, 3).eval()
    assert_near(lambda: class_attention_maps(model, images()[0], [0, 2], scales=(0.5, 1.0), flip=True,
                                             grid=grid_of(4)), 0.05)


@pytest.mark.parametrize("mixed", [False, True])
def test_peak_responses(mixed):
    torch.manual_seed(0)
    model = PeakClassifier(NARROW, 3, enlarge=4, window=3)
    with pretended_gpu() as gpu:
        model, pixels = gpu.take(model), gpu.take(images())
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = model(pixels).float().square().sum()
        loss.backward()
        assert all(value.grad.is_cuda for value in model.parameters())
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            found = image_peaks(model.eval(), pixels[0], [0, 1], -1e9)
        assert found and found[0][2].shape == (40, 56)


def test_matrices_are_copied_to_the_gpu_once():
    maps, source, target = torch.randn(2, 3, 5, 7), Grid(16, 0), grid_of(4)
    wanted = resample(maps, source, target, (20, 28))
    with pretended_gpu() as gpu:
        there = gpu.take(maps)
        for copies in (2, 0, 0):
            gpu.waits.clear()
            found = resample(there, source, target, (20, 28))
            assert gpu.waits.total() == copies
        assert torch.equal(found.cpu(), wanted)
        half = resample(there.to(torch.bfloat16), source, target, (20, 28))
        assert half.dtype == torch.bfloat16 and half.is_cuda


def test_what_an_inference_left_may_be_trained_with():
    """Kept off the CPU only; a tensor of inference mode would be refused by the backward pass."""
    with pretended_gpu() as gpu:
        with torch.inference_mode():
            constant(torch.ones, 2, 2, like=gpu.take(torch.zeros(1)))
        kept = constant(torch.ones, 2, 2, like=gpu.take(torch.zeros(1)))
        assert not kept.is_inference() and kept.is_cuda
    assert constant(torch.ones, 2, 2, like=torch.zeros(1)) is not constant(torch.ones, 2, 2, like=torch.zeros(1))

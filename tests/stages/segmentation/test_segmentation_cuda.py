"""Segmentation networks as on a GPU: nothing is left on the CPU, going forward or backward."""

from __future__ import annotations

import pytest
import torch

from stages.segmentation.inference import cells_to_pixels, infer_cells, infer_semantic, most_likely
from stages.segmentation.losses import semantic_losses
from stages.segmentation.network import SegmentationNetwork
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu
from tests.stages.segmentation.segmentation_scenes import settings


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("architecture", ["pspnet", "deeplabv3plus", "plain"])
def test_training_and_inference(architecture, mixed):
    torch.manual_seed(0)
    model = SegmentationNetwork(settings(architecture, atrous_rates=(1, 2, 3)), 2).train()
    generator = torch.Generator().manual_seed(0)
    batch = {"image": torch.randint(0, 256, (2, 3, 48, 41), dtype=torch.uint8, generator=generator),
             "labels": torch.randint(-1, 3, (2, 48, 41), generator=generator).to(torch.int16)}
    with pretended_gpu() as gpu:
        model, given = gpu.take(model), gpu.take(batch)
        for _ in range(2):
            gpu.waits.clear()
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                loss = semantic_losses(model, given)["semantic"]
            loss.backward()
        assert loss.is_cuda and not gpu.waits
        assert all(value.grad.is_cuda for value in model.parameters())
        model.eval()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            shown = infer_semantic(model, given["image"][0], scales=(0.5, 1.0), flip=True, max_pixels=1100,
                                   classes=[0, 2])
            cells = infer_cells(model, given["image"][0], max_pixels=1100, flip=True)
        assert shown.is_cuda and cells.is_cuda and most_likely(shown, [0, 2]).shape == (48, 41)
        assert shown.dtype == cells.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["pspnet", "deeplabv3plus", "plain"])
@pytest.mark.parametrize("flip", [False, True])
def test_inference_in_mixed_precision(architecture, flip):
    torch.manual_seed(0)
    model = SegmentationNetwork(settings(architecture, atrous_rates=(1, 2, 3)), 2).eval()
    image = torch.randint(0, 256, (3, 48, 41), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def infer():
        cells = infer_cells(model, image, max_pixels=1100, flip=flip)
        return infer_semantic(model, image, scales=(0.5, 1.0), flip=flip, max_pixels=1100), cells, \
            cells_to_pixels(cells, model.grid, (48, 41))

    assert_near(infer, 0.05)

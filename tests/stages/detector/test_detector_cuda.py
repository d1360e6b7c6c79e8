"""torchvision's detector as on a GPU: a step with masks and crowds, without instances, and a prediction."""

from __future__ import annotations

import pytest
import torch

from stages.detector import network, torchvision_engine
from stages.detector.settings import DetectorSettings
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu
from tests.stages.detector.detector_scenes import TINY


def images() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    masks = torch.zeros(2, 40, 48, dtype=torch.uint8)
    masks[0, 4:16, 6:18], masks[1, 20:34, 26:40] = 1, 1
    crowd = torch.zeros(40, 48, dtype=torch.bool)
    crowd[:10, 36:46] = True
    shown = {"boxes": torch.tensor([[6.0, 4, 18, 16], [26, 20, 40, 34]]), "labels": torch.tensor([1, 2]),
             "masks": masks, "crowd": crowd}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
             "masks": torch.zeros(0, 40, 48, dtype=torch.uint8)}
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 40, 48, generator=generator) for _ in range(2)], [shown, empty]


@pytest.mark.parametrize("mixed", [False, True])
def test_training_and_prediction(mixed):
    settings = DetectorSettings(**TINY)
    torch.manual_seed(0)
    model = network.build(settings.torchvision, settings.predict, 2)
    with pretended_gpu() as gpu:
        model, batch = gpu.take(model).train(), gpu.take(images())
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            terms = torchvision_engine._losses(model, batch)
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        assert all(term.is_cuda for term in terms.values())
        assert all(value.grad.is_cuda for value in model.parameters() if value.grad is not None)
        predictor = torchvision_engine.Predictor(model, torch.device("cuda"), 0.5)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            found = predictor((255 * images()[0][0]).permute(1, 2, 0).to(torch.uint8).numpy())
        assert len(found) == 4 and found[0]["mask"].shape == (40, 48)


def test_prediction_in_mixed_precision():
    """Which boxes are proposed and kept is decided by order, so the heads are compared on the boxes that are given."""
    settings = DetectorSettings(**TINY)
    torch.manual_seed(0)
    model = network.build(settings.torchvision, settings.predict, 2).eval()
    shown = torch.stack(images()[0])
    boxes = [torch.tensor([[6.0, 4, 18, 16], [26.3, 20.7, 40.1, 34.9]]) for _ in range(2)]

    def infer():
        maps = model.backbone(shown)
        objectness, moves = model.rpn.head(list(maps.values()))
        pooled = model.roi_heads.box_roi_pool(maps, boxes, [(40, 48)] * 2)
        logits, regression = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        pooled = model.roi_heads.mask_roi_pool(maps, boxes, [(40, 48)] * 2)
        masks = model.roi_heads.mask_predictor(model.roi_heads.mask_head(pooled)).sigmoid()
        return objectness, moves, logits, regression, masks

    assert_near(infer, 0.05)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model([shown[0]])[0]
        proposals, _ = model.rpn(model.transform([shown[0]])[0], model.backbone(shown[:1]))
    assert len(found["boxes"]) == 4 and found["scores"].dtype == torch.float32
    for one in (found["boxes"], found["masks"], proposals[0]):
        assert one.dtype == torch.float32 and not torch.equal(one, one.bfloat16().float()), "rounded to bfloat16"

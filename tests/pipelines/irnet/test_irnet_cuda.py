"""IRNet as on a GPU: nothing is left on the CPU, going forward or backward, and the host hardly waits."""

from __future__ import annotations

import pytest
import torch

from pipelines.irnet.fields import fields, mean_displacement
from pipelines.irnet.losses import relation_losses
from pipelines.irnet.network import IRNet
from pipelines.irnet.settings import NetworkSettings
from stages.cues import backbone
from stages.cues.backbone import Backbone, grid_of
from stages.cues.settings import BackboneSettings
from stages.propagation.pairs import neighbour_offsets
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16,
                          arguments={"channels": [8, 8, 16, 24], "stem_width": 8})


def build() -> IRNet:
    torch.manual_seed(0)
    return IRNet(Backbone(NARROW), NetworkSettings(channels=16, boundary_channels=4), grid_of(4))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8, generator=generator),
            "labels": torch.randint(0, 3, (2, 16, 12), dtype=torch.uint8, generator=generator)}


def losses(model: IRNet, given: dict[str, torch.Tensor], radius: float = 4) -> torch.Tensor:
    return torch.stack(list(relation_losses(*model(given["image"]), given["labels"], radius).values())).sum()


@pytest.mark.parametrize("mixed", [False, True])
def test_a_training_step(mixed):
    backbone._kept.cache_clear()
    wanted, model = losses(build().train(), batch()), build().train()
    with pretended_gpu() as gpu:
        model, given = gpu.take(model), gpu.take(batch())
        for _ in range(2):  # what a network asks for at every step is made at the first one
            gpu.waits.clear()
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                loss = losses(model, given)
            loss.backward()
        assert all(value.grad.is_cuda for value in model.parameters() if value.requires_grad)
        assert gpu.waits == {"to gpu": 1}  # all offsets together
        assert loss.item() == pytest.approx(wanted.item(), rel=3e-3 if mixed else 0)
    backbone._kept.cache_clear()


def test_one_copy_whatever_the_radius():
    torch.manual_seed(0)
    displacement, boundary = torch.randn(1, 2, 12, 12), torch.randn(1, 12, 12)
    with pretended_gpu() as gpu:
        given = gpu.take([displacement, boundary, torch.ones(1, 12, 12, dtype=torch.uint8)])
        relation_losses(*given, radius=10)
        assert len(neighbour_offsets(10)) == 152 and gpu.waits == {"to gpu": 1}


@pytest.mark.parametrize("shown", [{}, {"max_pixels": 2000}, {"flip_displacement": False}])
def test_fields_in_mixed_precision(shown):
    model, image = build().eval(), batch()["image"][0]
    assert_near(lambda: fields(model, image, flip=True, **shown), 0.1)


@pytest.mark.parametrize("mixed", [False, True])
def test_fields_of_an_image(mixed):
    model, image = build().eval(), batch()["image"][0]
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            wanted = fields(model, image, flip=True, max_pixels=2000, flip_displacement=False)
        with pretended_gpu() as gpu, torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            found = fields(gpu.take(model), gpu.take(image), flip=True, max_pixels=2000, flip_displacement=False)
            assert all(one.is_cuda for one in found)
            mean = mean_displacement([(found[0], None)])
            assert not mean.is_cuda
            assert all(torch.equal(one.cpu(), other) for one, other in zip(found, wanted, strict=True))
    backbone._kept.cache_clear()

"""The generator's losses put together, against their parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.exits.losses import dice, point_loss, projection_loss
from pipelines.exits.settings import GeneratorSettings
from pipelines.exits.training import GeneratorLosses
from stages.propagation.mean_field import mean_field
from stages.runtime.ema import Teacher


class Masks(nn.Module):
    """A network that says the same of every crop."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)))

    def forward(self, images, boxes, scores=None):
        return self.values + 0 * images.float().mean()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inside = torch.zeros(2, 8, 8)
    inside[:, 2:7, 1:6] = 1
    labels = torch.full((2, 4, 4), -2, dtype=torch.int8)
    labels[:, 1:3, 1:3] = torch.tensor([[2, 1], [0, -1]], dtype=torch.int8)
    labels[1, 1:3, 1:3] = torch.tensor([[2, 0], [0, 0]], dtype=torch.int8)
    return {"image": torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator),
            "box": torch.tensor([[2.0, 4.0, 12.0, 14.0]]).expand(2, 4), "inside": inside, "labels": labels,
            "likely": torch.randn(2, 4, 4, generator=generator)}


def _losses(steps_done: int, **changes) -> tuple[Masks, GeneratorLosses]:
    student = Masks()
    teacher = Teacher(student, 0.9)
    with torch.no_grad():
        teacher.network.values.mul_(0.5)
    teacher.steps += steps_done
    settings = GeneratorSettings(mil_weight=10.0, point_weight=0.05, crf_weight=0.5, crf_start=0.1, **changes)
    return student, GeneratorLosses(teacher, settings, 100)


def test_terms_are_weighted_as_the_paper_says(batch):
    student, losses = _losses(50)
    terms = losses(student, batch)
    masks = student.values
    assert terms["point"].item() == pytest.approx(0.05 * point_loss(masks, batch["labels"]).mean().item())
    # The second crop has no retrieved point, so that the MIL loss stands in for it.
    assert terms["mil"].item() == pytest.approx(0.05 * 10 * projection_loss(masks, batch["inside"])[1].item() / 2)
    average = (masks + losses.teacher.network.values).detach() / 2
    small = nn.functional.avg_pool2d(batch["image"].float(), 2)
    crf = losses.settings.crf
    target = batch["inside"] * mean_field(
        average * batch["inside"], small, iterations=crf.iterations, gaussian_xy=crf.gaussian_xy,
        gaussian_weight=crf.gaussian_weight, bilateral_xy=crf.bilateral_xy, bilateral_rgb=crf.bilateral_rgb,
        bilateral_weight=crf.bilateral_weight)
    assert terms["crf"].item() == pytest.approx(0.5 * dice(masks, target).mean().item())


@pytest.mark.parametrize(("done", "share"), [(0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)])
def test_the_crf_loss_sets_in_gradually(batch, done, share):
    whole = _losses(50)
    part = _losses(done)
    assert part[1](part[0], batch)["crf"].item() == pytest.approx(share * whole[1](whole[0], batch)["crf"].item())


def test_the_crf_target_has_no_gradient_and_may_hold_a_share_of_the_scores(batch):
    student, losses = _losses(50)
    assert not losses.target(student.values.detach(), batch).requires_grad
    _, mixed = _losses(50, crf_scores=1.0)
    without = {name: value for name, value in batch.items() if name != "likely"}
    plain = losses.target(student.values.detach(), batch)
    assert not torch.allclose(mixed.target(student.values.detach(), batch), plain)
    assert torch.equal(mixed.target(student.values.detach(), without), plain)


def test_box_only_training_has_no_point_term(batch):
    student, losses = _losses(50, points="none")
    bare = {name: value for name, value in batch.items() if name not in ("labels", "likely")}
    terms = losses(student, bare)
    assert terms["point"].item() == 0
    assert terms["mil"].item() == pytest.approx(0.5 * projection_loss(student.values, bare["inside"]).mean().item())

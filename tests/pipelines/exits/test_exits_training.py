"""The generator's losses put together, against their parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.exits.losses import dice, point_loss, projection_loss
from pipelines.exits.settings import CrfSettings, GeneratorSettings, WindowCrfSettings
from pipelines.exits.targets import refined
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


DENSE = WindowCrfSettings(radius=0, gaussian_weight=1, clamp=0, binary=False)


def _losses(steps_done: int, score_share: float = 0.0, **changes) -> tuple[Masks, GeneratorLosses]:
    student = Masks()
    teacher = Teacher(student, 0.9)
    with torch.no_grad():
        teacher.network.values.mul_(0.5)
    teacher.steps += steps_done
    settings = GeneratorSettings(**{"mil_weight": 10.0, "point_weight": 0.05, "crf_weight": 0.5, "crf_start": 0.1,
                                    "mil_rise": 0, "crf_rise": 0, "crf": DENSE, **changes})
    return student, GeneratorLosses(teacher, settings, 100, score_share)


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


@pytest.mark.parametrize(("done", "mil", "crf"), [(0, 0.0, 0.0), (10, 0.5, 0.25), (30, 1.0, 0.75), (99, 1.0, 1.0)])
def test_losses_rise_over_a_number_of_steps(batch, done, mil, crf):
    whole, part = _losses(99), _losses(done, mil_rise=20, crf_rise=40)
    wanted, found = whole[1](whole[0], batch), part[1](part[0], batch)
    assert found["mil"].item() == pytest.approx(mil * wanted["mil"].item())
    assert found["crf"].item() == pytest.approx(crf * wanted["crf"].item())
    assert found["point"].item() == wanted["point"].item()


def test_the_teacher_and_the_crf_see_the_plain_view(batch):
    """The student is shown other colours; what it is to agree with does not know of them."""
    seen = []

    class Looking(Masks):
        def forward(self, images, boxes, scores=None):
            seen.append(images)
            return super().forward(images, boxes, scores)

    student = Looking()
    losses = GeneratorLosses(Teacher(student, 0.9), GeneratorSettings(crf=DENSE, crf_rise=0), 100)
    plain, other = batch["image"], 255 - batch["image"]
    losses(student, {**batch, "image": other, "plain": plain})
    assert [view is plain for view in seen] == [False, True]
    masks = student.values.detach()
    assert torch.equal(losses.target(masks, {**batch, "image": other, "plain": plain}), losses.target(masks, batch))
    assert not torch.equal(losses.target(masks, {**batch, "image": other}), losses.target(masks, batch))


def _window_crf(probability: np.ndarray, image: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """Mean-field of one crop whose pairs are the neighbours of each pixel, pixel by pixel in float64."""
    height, width = probability.shape
    near = [(y, x) for y in range(-settings.radius, settings.radius + 1)
            for x in range(-settings.radius, settings.radius + 1)]

    def kernel(y, x, v, u):
        colours = ((image[:, y, x] - image[:, v, u]) ** 2).sum() / settings.bilateral_rgb ** 2
        return np.exp(-(((y - v) ** 2 + (x - u) ** 2) / settings.bilateral_xy ** 2 + colours) / 2)

    def pairs(y, x):
        return [(y + dy, x + dx) for dy, dx in near if 0 <= y + dy < height and 0 <= x + dx < width]

    sums = np.array([[sum(kernel(y, x, *other) for other in pairs(y, x)) for x in range(width)] for y in range(height)])
    foreground = probability.copy()
    for _ in range(settings.iterations):
        after = np.empty_like(foreground)
        for y in range(height):
            for x in range(width):
                heard = sum(kernel(y, x, v, u) / np.sqrt(sums[y, x] * sums[v, u]) * (2 * foreground[v, u] - 1)
                            for v, u in pairs(y, x))
                logit = np.log(probability[y, x] / (1 - probability[y, x])) + settings.bilateral_weight * heard
                after[y, x] = 1 / (1 + np.exp(-logit))
        foreground = after
    return foreground


def test_the_window_crf_against_a_plain_loop():
    """As the paper presets have it: 3 x 3, probabilities of 0.1 to 0.9 inside the box, a mask of 0 and 1."""
    generator = np.random.default_rng(3)
    masks, image = generator.random((9, 8)), generator.integers(0, 40, (3, 9, 8)).astype(np.uint8)
    image[:, :, 4:] += 100
    inside = np.zeros((9, 8))
    inside[1:8, 1:7] = 1
    settings = WindowCrfSettings()
    assert (settings.radius, settings.clamp, settings.binary, settings.gaussian_weight) == (1, 0.1, True, 0)
    start = np.where(inside > 0, np.clip(masks, 0.1, 0.9), 1e-8)
    wanted = inside * (_window_crf(start, image.astype(float), settings) > 0.5)
    found = refined(*(torch.from_numpy(part)[None] for part in (masks, image, inside)), settings)[0].numpy()
    assert 5 < wanted.sum() < inside.sum() - 5
    assert set(np.unique(found)) == {0, 1}
    assert (found == wanted).all()
    soft = settings.model_copy(update={"binary": False, "iterations": 2})
    found = refined(*(torch.from_numpy(part)[None] for part in (masks, image, inside)), soft)[0].numpy()
    np.testing.assert_allclose(found, inside * _window_crf(start, image.astype(float), soft), atol=1e-6)


def test_the_crf_target_has_no_gradient_and_may_hold_a_share_of_the_scores(batch):
    student, losses = _losses(50)
    assert not losses.target(student.values.detach(), batch).requires_grad
    _, mixed = _losses(50, score_share=1.0)
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

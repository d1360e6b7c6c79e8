"""Eq. 3 to 6 on hand-drawn maps, by loops, and their gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from pipelines.bestie.losses import centre_loss, objective, offset_loss, semantic_loss
from pipelines.bestie.settings import NetworkSettings
from pipelines.bestie.targets import Targets


def targets(centre, offset, weight, offset_weight=None):
    return Targets(centre, offset, weight, weight if offset_weight is None else offset_weight)


def random_case(seed=0, count=2, classes=3, size=(4, 5)):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    def label():
        weight = draw(count, *size).clamp(min=0)
        return targets(draw(count, classes, *size), draw(count, 2, *size), weight)

    semantic = torch.randint(0, classes + 1, (count, *size), generator=rng).to(torch.int16)
    semantic[0, 0, :2] = -1
    return (draw(count, classes + 1, *size), draw(count, classes, *size), draw(count, 2, *size), semantic, label(),
            label())


def by_loop(errors, weight):
    total, count = 0.0, 0
    for image in range(len(weight)):
        for y in range(weight.shape[1]):
            for x in range(weight.shape[2]):
                if weight[image, y, x] > 0:
                    count += 1
                    total += float(weight[image, y, x]) * float(errors[image, :, y, x].sum())
    return total / max(count, 1)


def test_against_loops():
    logits, heat, offset, semantic, pseudo, refined = random_case()
    settings = NetworkSettings()
    found = objective(logits, heat, offset, semantic, pseudo, refined, settings)
    for name, label in (("pseudo", pseudo), ("refined", refined)):
        assert float(found[f"{name}_centre"]) == pytest.approx(
            200 * by_loop((heat - label.centre) ** 2, label.centre_weight))
        assert float(found[f"{name}_offset"]) == pytest.approx(
            0.01 * by_loop((offset - label.offset).abs(), label.offset_weight))
    wanted = [-float(logits[n, :, y, x].log_softmax(0)[int(semantic[n, y, x])])
              for n in range(2) for y in range(4) for x in range(5) if semantic[n, y, x] != -1]
    assert float(found["semantic"]) == pytest.approx(sum(wanted) / len(wanted))
    assert len(wanted) == 38
    hard = sorted(wanted)[-math.ceil(0.2 * 38):]
    assert float(semantic_loss(logits, semantic, 0.2)) == pytest.approx(sum(hard) / len(hard))


def test_hand_drawn():
    heat, offset = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
    centre = torch.tensor([[[[1.0, 0.5, 9.0]], [[0.0, 0.5, 9.0]]]])
    aim = torch.tensor([[[[1.0, -2.0, 9.0]], [[3.0, 0.0, 9.0]]]])
    label = targets(centre, aim, torch.tensor([[[1.0, 0.5, 0.0]]]))
    # Pixels: 1 * 1 and 0.5 * (0.25 + 0.25), over two; 1 * 4 and 0.5 * 2, over two.
    assert float(centre_loss(heat, label)) == pytest.approx(0.625)
    assert float(offset_loss(offset, label)) == pytest.approx(2.5)
    # Heat and offsets may be guided in different places.
    label = targets(centre, aim, torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]]))
    assert float(centre_loss(heat, label)) == 1
    assert float(offset_loss(offset, label)) == 2


def test_nothing_guided_is_no_loss_but_a_gradient():
    logits, heat, offset, semantic, pseudo, refined = random_case(1)
    empty = targets(pseudo.centre, pseudo.offset, torch.zeros_like(pseudo.centre_weight))
    outputs = [value.requires_grad_() for value in (logits, heat, offset)]
    for hardest in (1.0, 0.2):
        found = objective(*outputs, torch.full_like(semantic, -1), empty, empty, NetworkSettings(hardest=hardest))
        assert {float(value.detach()) for value in found.values()} == {0.0}
        sum(found.values()).backward()
        assert all(value.grad is not None and not value.grad.any() for value in outputs)


def test_options():
    case = random_case(2)
    plain = objective(*case, NetworkSettings())
    alone = objective(*case[:5], None, NetworkSettings())
    assert set(plain) == {"semantic", "pseudo_centre", "pseudo_offset", "refined_centre", "refined_offset"}
    assert set(alone) == {"semantic", "pseudo_centre", "pseudo_offset"}
    assert all(float(alone[name]) == float(plain[name]) for name in alone)
    average = objective(*case, NetworkSettings(average=True))
    for name, value in plain.items():
        assert float(average[name]) == pytest.approx(float(value) * (1 if name == "semantic" else 0.5))
    single = objective(*case[:5], None, NetworkSettings(average=True))
    assert float(single["pseudo_centre"]) == float(plain["pseudo_centre"])


def test_gradients_by_finite_differences():
    logits, heat, offset, semantic, pseudo, refined = random_case(3, size=(2, 3))
    outputs = [value.requires_grad_() for value in (logits, heat, offset)]
    for hardest in (1.0, 0.5):
        settings = NetworkSettings(centre_weight=2.0, offset_weight=3.0, hardest=hardest)

        def total(*values, settings=settings):
            return sum(objective(*values, semantic, pseudo, refined, settings).values())

        assert torch.autograd.gradcheck(total, outputs, eps=1e-6, atol=1e-6)


def test_unguided_pixels_do_not_count():
    _, heat, offset, _, pseudo, _ = random_case(4)
    before = float(centre_loss(heat, pseudo)), float(offset_loss(offset, pseudo))
    free = pseudo.centre_weight == 0
    heat[free[:, None].expand_as(heat)] = 100
    offset[free[:, None].expand_as(offset)] = -100
    assert (float(centre_loss(heat, pseudo)), float(offset_loss(offset, pseudo))) == before


def test_half_precision_is_computed_in_single():
    case = random_case(5, size=(64, 64))
    half = [value.float().bfloat16() for value in case[:3]]
    found = objective(*half, *case[3:], NetworkSettings())
    exact = objective(*(value.double() for value in half), *case[3:], NetworkSettings())
    for name, value in exact.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5)

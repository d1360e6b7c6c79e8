"""The losses of eq. 5, 6 and 8 against a loop over all pairs of pixels, in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from pipelines.irnet.losses import IGNORE, displacement_errors, relation_losses


def line(start: tuple[int, int], end: tuple[int, int]) -> set[tuple[int, int]]:
    """Pixels on a line: at every whole step along the longer axis the nearest pixel, both where two are equally near.

    Exact fractions, walked from either end: the definition does not depend on which.
    """
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    found = set()
    for step in range(steps + 1):
        exact = [Fraction(a) + Fraction(step * (b - a), steps) for a, b in zip(start, end, strict=True)]
        choices = [{math.floor(value + Fraction(1, 2)), math.ceil(value - Fraction(1, 2))} for value in exact]
        found |= {(row, column) for row in choices[0] for column in choices[1]}
    return found


def one_by_loop(displacement, boundary, labels, radius: float) -> dict[str, float]:
    """Means over ordered pairs i != j of one batch; every pair is met in both orders, as eq. 2 has it."""
    height, width = labels.shape[1:]
    cells = [(row, column) for row in range(height) for column in range(width)]
    sums = {"fg": 0.0, "bg": 0.0, "log_fg": 0.0, "log_bg": 0.0, "log_other": 0.0}
    counts = {"fg": 0, "bg": 0, "other": 0}
    for n in range(len(labels)):
        for i in cells:
            for j in cells:
                if i == j or math.hypot(i[0] - j[0], i[1] - j[1]) >= radius:
                    continue
                label_i, label_j = int(labels[n][i]), int(labels[n][j])
                if IGNORE in (label_i, label_j):
                    continue
                affinity = 1 - max(float(boundary[n][k].sigmoid()) for k in line(i, j))
                delta = [float(displacement[n, axis][i] - displacement[n, axis][j]) for axis in (0, 1)]
                if label_i != label_j:
                    sums["log_other"] += math.log(1 - affinity)
                    counts["other"] += 1
                elif label_i == 0:
                    sums["bg"] += abs(delta[0]) + abs(delta[1])
                    sums["log_bg"] += math.log(affinity)
                    counts["bg"] += 1
                else:
                    sums["fg"] += sum(abs(delta[axis] - (j[axis] - i[axis])) for axis in (0, 1))
                    sums["log_fg"] += math.log(affinity)
                    counts["fg"] += 1
    fg, bg, other = (max(counts[name], 1) for name in ("fg", "bg", "other"))
    return {"displacement_foreground": sums["fg"] / fg, "displacement_background": sums["bg"] / bg,
            "boundary": -sums["log_fg"] / (2 * fg) - sums["log_bg"] / (2 * bg) - sums["log_other"] / other}


def by_loop(displacement, boundary, labels, radius):
    """The mean over the images of what one image's pairs give."""
    images = [one_by_loop(displacement[n:n + 1], boundary[n:n + 1], labels[n:n + 1], radius)
              for n in range(len(labels))]
    return {name: sum(image[name] for image in images) / len(images) for name in images[0]}


def random_case(seed: int, count: int, height: int, width: int, values=(0, 1, 2, IGNORE)):
    torch.manual_seed(seed)
    displacement = 3 * torch.randn(count, 2, height, width, dtype=torch.float64)
    boundary = 2 * torch.randn(count, height, width, dtype=torch.float64)  # logits
    labels = torch.tensor(values, dtype=torch.uint8)[torch.randint(0, len(values), (count, height, width))]
    return displacement, boundary, labels


@pytest.mark.parametrize("radius", [1.01, 2.0, 2.3, 3.0, 5.0, 10.0])
def test_losses_by_loop(radius):
    displacement, boundary, labels = random_case(0, 2, 7, 8)
    found = relation_losses(displacement, boundary, labels, radius)
    wanted = by_loop(displacement, boundary, labels, radius)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-9), name


def test_the_mean_over_the_axes_is_half_of_their_sum():
    displacement, boundary, labels = random_case(0, 2, 7, 8)
    both, mean = (relation_losses(displacement, boundary, labels, 3.0, axes) for axes in ("sum", "mean"))
    assert float(both["boundary"]) == float(mean["boundary"])
    for name in ("displacement_foreground", "displacement_background"):
        assert float(mean[name]) == pytest.approx(float(both[name]) / 2, rel=1e-12)
        assert float(mean[name]) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 11)])
@pytest.mark.parametrize("values", [(0,), (1,), (IGNORE,), (0, 1), (1, 2), (0, IGNORE), (254, 0)])
def test_small_maps_and_empty_sets(size, values):
    displacement, boundary, labels = random_case(1, 1, *size, values)
    displacement.requires_grad_()
    boundary.requires_grad_()
    found = relation_losses(displacement, boundary, labels, 5.0)
    for name, value in by_loop(displacement.detach(), boundary.detach(), labels, 5.0).items():
        assert found[name].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name
    torch.stack(list(found.values())).sum().backward()
    assert torch.isfinite(displacement.grad).all()
    assert torch.isfinite(boundary.grad).all()


def test_the_radius_is_exclusive():
    labels = torch.tensor([[[0, IGNORE, IGNORE, 1]]], dtype=torch.uint8)
    displacement, boundary = torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 4)
    assert float(relation_losses(displacement, boundary, labels, 3.0)["boundary"]) == 0
    assert float(relation_losses(displacement, boundary, labels, 3.01)["boundary"]) == pytest.approx(math.log(2))


def test_ignored_cells_count_for_nothing_but_lie_on_lines():
    displacement, boundary, labels = random_case(2, 1, 6, 6)
    before = relation_losses(displacement, boundary, labels, 4.0)
    displacement[0][:, labels[0] == IGNORE] = 1e3
    after = relation_losses(displacement, boundary, labels, 4.0)
    assert float(before["displacement_foreground"]) == float(after["displacement_foreground"])
    assert float(before["displacement_background"]) == float(after["displacement_background"])
    boundary[0][labels[0] == IGNORE] = 6.0  # a boundary in no man's land still parts what lies on its two sides
    assert float(relation_losses(displacement, boundary, labels, 4.0)["boundary"]) != float(before["boundary"])


def two_instances() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of two far instances, and the field that points at their centroids (and nowhere in the background)."""
    labels = torch.zeros(1, 12, 40, dtype=torch.uint8)
    field = torch.zeros(1, 2, 12, 40, dtype=torch.float64)
    for rows, columns, label in ((slice(2, 9), slice(3, 10), 1), (slice(3, 10), slice(25, 38), 2)):
        labels[0, rows, columns] = label
        y, x = torch.meshgrid(torch.arange(12.0)[rows], torch.arange(40.0)[columns], indexing="ij")
        field[0, 0, rows, columns] = (y.mean() - y).double()
        field[0, 1, rows, columns] = (x.mean() - x).double()
    return labels, field


def test_ideal_field_has_no_loss():
    labels, field = two_instances()
    boundary = torch.zeros(1, 12, 40, dtype=torch.float64)
    found = relation_losses(field, boundary, labels, 10.0)
    assert float(found["displacement_foreground"]) == pytest.approx(0, abs=1e-12)
    assert float(found["displacement_background"]) == 0
    # The opposite sign, which points away from the centroids, is wrong by twice every distance.
    wrong = relation_losses(-field, boundary, labels, 10.0)
    assert float(wrong["displacement_foreground"]) > 5
    # A field is determined up to a constant: that is what the subtracted mean is for.
    moved = relation_losses(field + 3.7, boundary, labels, 10.0)
    assert float(moved["displacement_foreground"]) == pytest.approx(0, abs=1e-9)


def test_ideal_boundary_has_almost_no_loss():
    labels = torch.zeros(1, 6, 20, dtype=torch.uint8)
    labels[..., 11:] = 1
    labels[..., 10] = IGNORE
    boundary = torch.full((1, 6, 20), -20.0)
    boundary[..., 10] = 20
    assert float(relation_losses(torch.zeros(1, 2, 6, 20), boundary, labels, 5.0)["boundary"]) < 1e-4
    assert float(relation_losses(torch.zeros(1, 2, 6, 20), -boundary, labels, 5.0)["boundary"]) > 10


def test_gradients():
    displacement, boundary, labels = random_case(3, 1, 4, 4, (0, 1, 1, IGNORE))
    displacement.requires_grad_()
    boundary.requires_grad_()

    def total(field, edge):
        return torch.stack(list(relation_losses(field, edge, labels, 3.0).values())).sum()

    assert torch.autograd.gradcheck(total, (displacement, boundary), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_saturated_boundaries_stay_finite(value):
    displacement, _, labels = random_case(4, 1, 6, 6)
    boundary = torch.full((1, 6, 6), value, requires_grad=True)
    found = relation_losses(displacement.float(), boundary, labels, 4.0)
    assert torch.isfinite(found["boundary"])
    found["boundary"].backward()
    assert torch.isfinite(boundary.grad).all()


@pytest.mark.parametrize("sure", [5.0, 20.0, 100.0])
@pytest.mark.parametrize(("labels", "sign"), [([1, 1], 1), ([0, 0], 1), ([0, 1], -1)])
def test_a_sure_and_wrong_pair_has_a_gradient(labels, sign, sure):
    """One pair: -log a and -log(1 - a) are about as large as the logit, and their slope is about 1."""
    boundary = torch.tensor([[[0.0, 0.0]]]) + sign * sure
    boundary[0, 0, 1] += 0.5  # the larger logit alone decides
    boundary.requires_grad_()
    found = relation_losses(torch.zeros(1, 2, 1, 2), boundary, torch.tensor([[labels]], dtype=torch.uint8), 1.5)
    weight = 0.5 if labels[0] == labels[1] else 1.0  # halves of eq. 8
    highest = sign * sure + 0.5
    assert found["boundary"].item() == pytest.approx(weight * math.log1p(math.exp(-abs(highest)))
                                                     + weight * abs(highest), rel=1e-5)
    found["boundary"].backward()
    assert boundary.grad[0, 0, 0] == 0
    assert boundary.grad[0, 0, 1].item() == pytest.approx(sign * weight / (1 + math.exp(-abs(highest))), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_computed_in_single(dtype):
    displacement, boundary, labels = random_case(5, 1, 8, 8)
    boundary[0, :4] = 16.0  # 1 - affinity would be 0 in half precision
    low = relation_losses(displacement.float(), boundary.to(dtype), labels, 4.0)
    exact = relation_losses(displacement.float(), boundary.to(dtype).float(), labels, 4.0)
    assert {name: float(value) for name, value in low.items()} == {name: float(value) for name, value in exact.items()}
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in low.values())


def test_every_image_counts_alike():
    displacement, boundary, labels = random_case(6, 2, 6, 7)
    labels[1] = IGNORE
    labels[1, 0, :2] = 1
    both = relation_losses(displacement, boundary, labels, 3.0)
    wanted = by_loop(displacement, boundary, labels, 3.0)
    assert float(both["displacement_foreground"]) == pytest.approx(wanted["displacement_foreground"], rel=1e-9)


def test_mirroring_changes_nothing():
    displacement, boundary, labels = random_case(7, 1, 6, 9)
    mirrored = displacement.flip(-1) * torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 2, 1, 1)
    first = relation_losses(displacement, boundary, labels, 5.0)
    second = relation_losses(mirrored, boundary.flip(-1), labels.flip(-1), 5.0)
    for name in first:
        assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-9)


def test_errors_of_a_field_and_of_zeros():
    generator = torch.Generator().manual_seed(4)
    field = torch.randn(2, 6, 7, generator=generator) * 3
    labels = torch.randint(0, 4, (6, 7), generator=generator).where(torch.rand(6, 7, generator=generator) < 0.8,
                                                                    torch.tensor(IGNORE))
    boundary = torch.zeros(1, 6, 7)
    for found, one in zip(displacement_errors(field, labels, 3), (field, torch.zeros_like(field)), strict=True):
        wanted = one_by_loop(one[None], boundary, labels[None], 3)["displacement_foreground"]
        assert found.sum() == pytest.approx(wanted)
    # Where every cell points at the same place, eq. 5 is 0.
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    ones = torch.ones(6, 7, dtype=torch.int64)
    exact, zeros = displacement_errors(torch.stack([2 - rows, 3 - columns]), ones, 3)
    assert exact == pytest.approx([0, 0], abs=1e-5) and (zeros > 0.5).all()
    assert (displacement_errors(field, 0 * ones, 3) == 0).all()
    # One axis does not answer for the other.
    half, zeros = displacement_errors(torch.stack([2 - rows, 0 * columns]), ones, 3)
    assert half[0] == pytest.approx(0, abs=1e-5) and half[1] == pytest.approx(zeros[1])

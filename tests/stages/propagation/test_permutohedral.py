"""The permutohedral lattice against its definition."""

import itertools

import numpy as np
import pytest
import torch

from stages.propagation import permutohedral as module
from stages.propagation.permutohedral import _elevate, build_lattice, filter_values, scaled, transposed


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_embedding_is_a_scaled_rotation_into_the_plane(count):
    given = normal(count, 50)
    embedded = _elevate(given)
    assert embedded.sum(0).abs().max() < 1e-12
    assert np.allclose(embedded.T @ embedded, 2 / 3 * (count + 1) ** 2 * given.T @ given)


def all_points(count, reach=4):
    """The lattice points near 0: integers with one remainder modulo d + 1 that sum to 0."""
    side = count + 1
    for remainder in range(side):
        choices = [range(remainder - reach * side, reach * side + 1, side)] * side
        yield from (point for point in itertools.product(*choices) if sum(point) == 0)


def brute_force(embedded, values):
    """Splat, blur and slice with dense matrices over the points that a pixel touches; embedded (P, d + 1)."""
    side = embedded.shape[1]
    places = np.array(list(all_points(side - 1)))
    splat = np.zeros((len(places), len(embedded)))
    for pixel, position in enumerate(embedded):
        # The corners of a position's simplex are the points that differ from it by less than d + 1 across coordinates.
        corners = np.flatnonzero(np.ptp(position - places, axis=1) < side)
        assert len(corners) == side
        splat[corners, pixel] = np.linalg.solve(
            np.vstack([places[corners].T[:-1], np.ones(side)]), np.append(position[:-1], 1)
        )
    touched = splat.any(axis=1)
    places, splat = places[touched], splat[touched]
    points = splat @ values
    index = {tuple(place): row for row, place in enumerate(places.tolist())}
    for axis in range(side):
        step = np.where(np.arange(side) == axis, side - 1, -1)
        blur = np.eye(len(places))
        for row, place in enumerate(places):
            for neighbour in (place + step, place - step):
                if tuple(neighbour.tolist()) in index:
                    blur[row, index[tuple(neighbour.tolist())]] = 0.5
        points = blur @ points
    return splat.T @ points


@pytest.mark.parametrize("count", [1, 2, 3])
def test_splat_blur_slice_against_brute_force(count):
    given, values = normal(1, count, 80) * 0.5, normal(80, 3, seed=1)
    reference = brute_force(_elevate(given[0]).T.numpy(), values.numpy())
    assert np.allclose(filter_values(build_lattice(given), values), reference)


def test_points_may_be_numbered_in_32_or_64_bits(monkeypatch):
    given, types, places = normal(3, 5, 200), [], module._places
    monkeypatch.setattr(module, "_places", lambda points, wanted: types.append(points.dtype) or places(points, wanted))
    *short, near = build_lattice(given)
    monkeypatch.setattr(module, "LARGEST_SHORT_KEY", 0)
    *long, far = build_lattice(given)
    assert types == [torch.int32] * 6 + [torch.int64] * 6  # once per axis
    assert all(map(torch.equal, long, short))
    assert all(map(torch.equal, itertools.chain(*far), itertools.chain(*near)))


def test_images_of_a_batch_do_not_meet():
    given, values = normal(3, 5, 40), normal(3, 40, 2, seed=1)
    whole = filter_values(build_lattice(given), values.reshape(-1, 2)).reshape(3, 40, 2)
    for image in range(3):
        assert torch.allclose(whole[image], filter_values(build_lattice(given[image : image + 1]), values[image]))


def test_filter_is_about_a_gaussian():
    """The response to single pixels, averaged over their places between two lattice points."""
    along = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    lattice = build_lattice(along[None, None])
    variances = []
    for source in range(4000, 4434, 31):  # the points are 0.866 apart
        values = torch.zeros_like(along)
        values[source] = 1
        response = filter_values(lattice, values[:, None])[:, 0]
        distance = along - along[source]
        variances.append(float((response * distance**2).sum() / response.sum()))
        assert (response / response.max() - torch.exp(-(distance**2) / 2)).abs().max() < 0.15
    assert np.mean(variances) == pytest.approx(1, rel=0.02)


def test_transposed_filter_is_the_transposed_matrix():
    """It blurs in the reversed order; the order as it is would be wrong, as blurs lose what leaves the points."""
    lattice = build_lattice(normal(1, 5, 120))
    matrix = filter_values(lattice, torch.eye(120, dtype=torch.float64))
    back = filter_values(transposed(lattice), torch.eye(120, dtype=torch.float64))
    assert (back - matrix.T).norm() < 1e-14 * matrix.norm()
    assert (matrix - matrix.T).norm() > 0.01 * matrix.norm()


def test_scaled_filter():
    lattice = build_lattice(normal(1, 5, 60))
    before, after = normal(60, seed=1), normal(60, seed=2)
    matrix = filter_values(lattice, torch.eye(60, dtype=torch.float64))
    for first, second, expected in ((before, after, after[:, None] * matrix * before), (None, after, after[:, None] *
                                    matrix), (before, None, matrix * before), (None, None, matrix)):
        found = filter_values(scaled(lattice, first, second), torch.eye(60, dtype=torch.float64))
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_adjoint_in_single_precision():
    lattice = build_lattice(normal(1, 5, 3000).float())
    values, others = normal(3000, 4, seed=1).float(), normal(3000, 4, seed=2).float()
    forward, back = filter_values(lattice, values), filter_values(transposed(lattice), others)
    scale = float(forward.double().norm() * others.double().norm())
    assert abs(float((forward.double() * others).sum() - (values.double() * back).sum())) < 1e-6 * scale
    unreversed = filter_values(lattice, others)
    assert abs(float((forward.double() * others).sum() - (values.double() * unreversed).sum())) > 1e-4 * scale


@pytest.mark.parametrize("labels", [0, 1, 2, 9, 20])
@pytest.mark.parametrize("point_values", [0, 3000, 2**21])
def test_columns_are_filtered_alone(monkeypatch, labels, point_values):
    """However many of them at a time, and however they lie in memory."""
    monkeypatch.setattr(module, "POINT_VALUES", point_values)
    lattice, values = build_lattice(normal(2, 5, 150)), normal(300, labels, seed=1)
    found = filter_values(lattice, values)
    assert found.shape == (300, labels)
    assert torch.equal(filter_values(lattice, values.T.contiguous().T), found)
    for column in range(labels):
        alone = filter_values(lattice, values[:, column : column + 1])
        assert torch.allclose(found[:, column : column + 1], alone, rtol=0, atol=1e-12)


def test_inputs_are_left_alone_and_no_gradient_is_kept():
    lattice, values = build_lattice(normal(1, 5, 50).requires_grad_()), normal(50, 3, seed=1).requires_grad_()
    copy = values.detach().clone()
    assert not filter_values(lattice, values).requires_grad
    assert torch.equal(values, copy)


def test_too_many_widths_are_refused():
    with pytest.raises(ValueError, match="give a radius"):
        build_lattice(normal(1, 5, 10) * 1e4)

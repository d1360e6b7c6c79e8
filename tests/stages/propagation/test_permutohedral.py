"""The permutohedral lattice against its definition."""

import itertools

import numpy as np
import pytest
import torch

from stages.propagation.permutohedral import _elevate, build_lattice, filter_values


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
    given, values = normal(1, count, 80) * 0.5, normal(80, seed=1)
    reference = brute_force(_elevate(given[0]).T.numpy(), values.numpy())
    assert np.allclose(filter_values(build_lattice(given), values), reference)


def test_images_of_a_batch_do_not_meet():
    given, values = normal(3, 5, 40), normal(3, 40, seed=1)
    whole = filter_values(build_lattice(given), values.reshape(-1)).reshape(3, 40)
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
        response = filter_values(lattice, values)
        distance = along - along[source]
        variances.append(float((response * distance**2).sum() / response.sum()))
        assert (response / response.max() - torch.exp(-(distance**2) / 2)).abs().max() < 0.15
    assert np.mean(variances) == pytest.approx(1, rel=0.02)


def test_sorted_sums_are_those_of_the_cpu():
    given, values = normal(2, 5, 200), normal(400, seed=1)
    lattice = build_lattice(given)
    flat = lattice.corners.reshape(-1)
    elsewhere = lattice._replace(order=torch.argsort(flat, stable=True), lengths=torch.bincount(flat))
    assert torch.allclose(filter_values(elsewhere, values), filter_values(lattice, values))


def test_too_many_widths_are_refused():
    with pytest.raises(ValueError, match="give a radius"):
        build_lattice(normal(1, 5, 10) * 1e4)

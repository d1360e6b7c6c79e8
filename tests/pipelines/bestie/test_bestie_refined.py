"""Refined labels against plain loops, on random and on hand-drawn crops."""

from __future__ import annotations

import numpy as np
import plain_refined as plain
import pytest
import torch
from plain_targets import centre_maps, offset_field
from scipy import ndimage

from pipelines.bestie.centres import lattice_points, nearest_centre, offset_clusters, window_maxima
from pipelines.bestie.refined import point_targets, refined_targets
from pipelines.bestie.settings import CentreSettings, RefinementSettings
from pipelines.bestie.targets import gaussian_maps, pseudo_targets
from pipelines.bestie.transfer import candidate_components

SMALL = CentreSettings(window=9, threshold=0.3, offset=1.5, tolerance=3, heat=0.05, merge=6)


def settings(**changes):
    centres = SMALL.model_copy(update={name: changes.pop(name) for name in list(changes)
                                       if name in CentreSettings.model_fields})
    return RefinementSettings(**{"centres": centres, **changes})


def random_case(seed, count=3, classes=3, size=(24, 30), smooth=1.5, coarse=False):
    """Outputs of a network that knows something: blobs of classes, smooth heat, offsets towards random points."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.standard_normal((count, classes + 1, *size)), (0, 0, 3, 3))
    semantic = fields.argmax(1).astype(np.int16)
    semantic[rng.random(semantic.shape) < 0.01] = -1
    heat = ndimage.gaussian_filter(rng.standard_normal((count, classes, *size)), (0, 0, smooth, smooth))
    heat = 0.5 * heat / heat.std()
    grid = np.stack(np.mgrid[:size[0], :size[1]]).astype(float)
    offset = np.empty((count, 2, *size))
    for index in range(count):
        aims = rng.uniform(0, 1, (12, 2)) * size
        squares = ((grid[:, None] - aims.T[:, :, None, None]) ** 2).sum(0)
        offset[index] = aims[squares.argmin(0)].transpose(2, 0, 1) - grid
    offset += 0.3 * rng.standard_normal(offset.shape)
    if coarse:  # ties everywhere
        heat, offset = np.round(heat, 1), np.round(offset)
    logits = rng.standard_normal((count, classes + 1, *size))
    components = np.stack([candidate_components(one, range(classes), 5) for one in semantic])
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in {
        "heat": heat.astype(np.float32), "offset": offset.astype(np.float32), "logits": logits.astype(np.float32),
        "semantic": semantic, "components": components}.items()}


def compare(case, chosen, sigma=2.0):
    """Ours and the loop's; returns ours."""
    found = refined_targets(**case, settings=chosen, sigma=sigma)
    probability = case["logits"].softmax(1).numpy()
    for index in range(len(case["heat"])):
        centre, offset, weight = plain.refined(
            case["heat"][index].numpy(), case["offset"][index].numpy(), probability[index],
            case["semantic"][index].numpy(), case["components"][index].numpy(), chosen, sigma)
        assert np.array_equal(found.offset[index].numpy(), offset)
        assert np.allclose(found.offset_weight[index].numpy(), weight, rtol=1e-6, atol=0)
        assert np.allclose(found.centre[index].numpy(), centre, rtol=1e-6, atol=1e-7)
    assert torch.equal(found.centre_weight, found.offset_weight)
    return found


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("changes", [
    {}, {"clustering": False}, {"most": 1}, {"most": 2, "window": 5}, {"centre": "nearest", "window": 3, "most": 50},
    {"centre": "found", "weight": "heat_class"}, {"threshold": 0.8, "merge": 0.0},
    {"threshold": 9.0, "heat": -9.0, "offset": 2.5}, {"threshold": 9.0, "heat": -9.0, "offset": 1.0, "tolerance": 4},
    {"window": 1, "most": 1000, "threshold": -9.0}, {"window": 51}], ids=str)
def test_random_crops(changes, coarse):
    guided = 0
    for seed in range(4):
        case = random_case(seed, coarse=coarse)
        guided += int((compare(case, settings(**dict(changes))).offset_weight != 0).sum())
    assert guided > 0


@pytest.mark.parametrize(("count", "classes", "size"), [(1, 1, (20, 20)), (4, 2, (9, 33)), (2, 5, (33, 9)),
                                                       (1, 2, (1, 40)), (2, 2, (40, 1)), (2, 1, (1, 1))])
def test_sizes(count, classes, size):
    for seed in range(3):
        case = random_case(seed, count, classes, size)
        case["components"] = torch.stack([torch.from_numpy(candidate_components(one.numpy(), range(classes), 1))
                                          for one in case["semantic"]])
        compare(case, settings(window=5))


def test_paper_values_at_a_larger_crop():
    case = random_case(11, 1, 2, (90, 110), smooth=6.0)
    found = compare(case, RefinementSettings(), sigma=6.0)
    assert (found.offset_weight > 0).any()


def drawn(rows, classes=1, count=1):
    """A case without any centre, from drawings of class numbers: heat 0, offsets that point nowhere near."""
    semantic = np.array([[int(mark) if mark != "." else 0 for mark in row] for row in rows], np.int16)
    shape = semantic.shape
    components = candidate_components(semantic, range(classes), 1)
    case = {"heat": torch.zeros(count, classes, *shape), "offset": torch.full((count, 2, *shape), 50.0),
            "logits": torch.zeros(count, classes + 1, *shape),
            "semantic": torch.from_numpy(semantic).expand(count, *shape).contiguous(),
            "components": torch.from_numpy(components).expand(count, *shape).contiguous()}
    return case


def test_no_component():
    found = compare(drawn(["....", "...."]), settings())
    assert not found.centre.any() and not found.offset.any() and not found.offset_weight.any()


def test_component_without_a_centre_guides_nothing():
    case = drawn(["11..1", "11..1"])
    case["heat"][0, 0, 0, 1] = 0.7
    found = compare(case, settings())
    assert torch.equal(found.offset_weight[0], torch.tensor([[0.7, 0.7, 0, 0, 0], [0.7, 0.7, 0, 0, 0]]))
    # The centroid (0.5, 0.5), rounded down.
    assert torch.equal(found.offset[0, :, 1, 1], torch.tensor([-1.0, -1.0]))
    assert found.centre[0, 0, 0, 0] == 1


def test_two_images_with_other_components():
    case = drawn(["11.11", "11.11"], count=2)
    case["heat"][0, 0, 0, 0], case["heat"][1, 0, 1, 4] = 0.4, 0.9
    found = compare(case, settings())
    assert torch.equal(found.offset_weight[0, 0], torch.tensor([0.4, 0.4, 0, 0, 0]))
    assert torch.equal(found.offset_weight[1, 0], torch.tensor([0, 0, 0, 0.9, 0.9]))


def test_five_centres_are_used_and_six_are_not():
    case = drawn(["1" * 30])
    case["offset"].zero_()
    for position in (0, 6, 12, 18, 24):
        case["heat"][0, 0, 0, position] = 0.5
    chosen = settings(window=3, clustering=False)
    assert (compare(case, chosen).offset_weight == 0.5).all()
    case["heat"][0, 0, 0, 29] = 0.5
    assert not compare(case, chosen).offset_weight.any()


def test_pixels_follow_their_offsets_and_not_their_place():
    case = drawn(["11111111"])
    case["heat"][0, 0, 0, 1], case["heat"][0, 0, 0, 6] = 0.5, 0.8
    case["offset"].zero_()
    case["offset"][0, 1, 0, :4] = 5  # the left half points right
    case["offset"][0, 1, 0, 4:] = -4
    found = compare(case, settings(window=3))
    assert torch.equal(found.offset_weight[0, 0], torch.tensor([0.8] * 4 + [0.5] * 4))
    assert found.offset[0, 1, 0].tolist() == [1, 0, -1, -2, 1, 0, -1, -2]


def test_single_pixels_and_touching_classes():
    case = drawn(["12.", "211", "..2"], classes=2)
    case["heat"][:] = 0.5
    found = compare(case, settings())
    assert int((found.offset_weight > 0).sum()) == 6
    assert not found.offset[0, :, 2, 2].any()


def test_heat_of_another_class_or_component_is_no_centre():
    case = drawn(["111..222", "111..222"], classes=2)
    case["heat"][0, 1, 0, 0] = 1.0  # class 2's heat inside the component of class 1
    assert not compare(case, settings()).offset_weight.any()
    # The same class, inside the window, but another component: neither beats the other.
    case = drawn(["11.11"])
    case["heat"][0, 0, 0, 1], case["heat"][0, 0, 0, 3] = 0.6, 0.9
    assert torch.equal(compare(case, settings()).offset_weight[0, 0], torch.tensor([0.6, 0.6, 0, 0.9, 0.9]))


def disc(size, centre, drawing=None):
    """Offsets of a square object towards its centre."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return torch.stack([centre[0] - y, centre[1] - x])


def test_center_clustering_finds_what_the_heat_misses():
    case = drawn(["1" * 15] * 15)
    case["offset"][0] = disc(15, (7, 6))
    chosen = settings(offset=2.5, merge=100.0)
    case["heat"][0, 0, 7, 6] = 0.05
    assert not compare(case, chosen).offset_weight.any(), "its heat must be above 0.05"
    case["heat"][0, 0, 7, 6] = 0.06
    found = compare(case, chosen)
    assert (found.offset_weight == 0.5).all(), "the class probability of even logits"
    assert not compare(case, settings(clustering=False)).offset_weight.any()
    # Near a centre of the heat map it is no second one; far from it, it is.
    case["heat"][0, 0, 0, 0] = 0.4
    assert (compare(case, chosen).offset_weight == 0.4).all()
    near = compare(case, settings(offset=2.5, merge=5.0)).offset_weight
    assert near.unique().tolist() == [0.5], "all offsets point at the clustered centre"


@pytest.mark.parametrize(("length", "points"), [(2.5, 21), (1.5, 9), (1.0, 1), (2.0, 9), (3.0, 25), (0.5, 1)])
def test_lattice_points(length, points):
    assert lattice_points(length) == points


@pytest.mark.parametrize(("area", "kept"), [(17, False), (18, False), (19, True), (23, True), (24, False), (25, False)])
def test_cluster_areas_have_strict_bounds(area, kept):
    offset = torch.full((1, 2, 1, 40), 9.0)
    offset[..., 3:3 + area] = 0
    first, y, x = offset_clusters(offset, torch.ones(1, 1, 40, dtype=torch.int64), 2.5, 3)
    assert first.tolist() == ([3] if kept else [])
    assert (y.tolist(), x.tolist()) == (([0], [3 + (area - 1) // 2]) if kept else ([], []))


def test_clusters_that_meet_at_corners_or_at_a_component_are_two():
    offset = torch.full((1, 2, 6, 6), 9.0)
    offset[..., :3, :3] = 0
    offset[..., 3:, 3:] = 0
    components = torch.ones(1, 6, 6, dtype=torch.int64)
    first, y, x = offset_clusters(offset, components, 1.5, 1)
    assert list(zip(y.tolist(), x.tolist(), strict=True)) == [(1, 1), (4, 4)]
    offset[..., :3, 3:] = 0  # one cluster of 27, but parted by components
    assert len(offset_clusters(offset, components, 1.5, 1)[0]) == 0
    components[:, :, 3:] = 2
    assert offset_clusters(offset, components, 1.5, 1)[1].tolist() == [1]  # the other is 18 by now


def test_long_clusters_do_not_leave_pieces():
    """A winding line is far longer than the steps of the labelling; none of its parts may pass for a cluster."""
    rng = np.random.default_rng(0)
    for density in (0.5, 0.6, 0.7):
        offset = torch.full((2, 2, 60, 60), 9.0)
        offset[torch.from_numpy(rng.random((2, 1, 60, 60)) < density).expand(-1, 2, -1, -1)] = 0
        found = offset_clusters(offset, torch.tensor([1, 2]).view(2, 1, 1).expand(2, 60, 60), 2.5, 3)
        wanted = [(image * 3600 + min(cluster)[0] * 60 + min(cluster)[1])
                  for image in range(2) for cluster in plain.four_connected((offset[image, 0] == 0).numpy())
                  if 18 < len(cluster) < 24]
        assert found[0].tolist() == wanted


def test_a_plateau_has_one_maximum():
    values = torch.zeros(1, 5, 30)
    values[0, :, 3:9] = 1
    found = window_maxima(values, torch.ones(1, 5, 30, dtype=torch.int64), 41, 0.5)
    assert found.tolist() == [3]


def test_nearest_centre_of_many():
    rng = torch.Generator().manual_seed(0)
    group = torch.randint(0, 4, (200,), generator=rng)
    owner = torch.randint(0, 3, (60,), generator=rng).sort().values  # group 3 has none
    target, centre = torch.rand(2, 200, generator=rng) * 50, torch.randint(0, 50, (2, 60), generator=rng)
    found = nearest_centre(target[0], target[1], group, owner, centre[0], centre[1], 4)
    for index in range(200):
        own = (owner == group[index]).nonzero()[:, 0]
        squares = ((centre[:, own] - target[:, index, None]) ** 2).sum(0)
        assert int(found[index]) == (int(own[squares.argmin()]) if len(own) else -1)


@pytest.mark.parametrize("coarse", [False, True])
def test_points(coarse):
    rng = np.random.default_rng(3)
    for seed in range(4):
        case = random_case(seed, coarse=coarse)
        points = np.full((3, 20, 3), -1)
        for index, count in enumerate((0, 7, 20)):
            points[index, :count] = rng.integers(0, (2, 24, 30), (count, 3))  # the third class has none
        found = point_targets(case["offset"], case["semantic"], torch.from_numpy(points), 3, 2.0)
        for index in range(3):
            centre, offset, weight = plain.by_points(case["offset"][index].numpy(), case["semantic"][index].numpy(),
                                                     points[index], 3, 2.0)
            assert np.array_equal(found.offset[index].numpy(), offset)
            assert np.array_equal(found.offset_weight[index].numpy(), weight)
            assert np.allclose(found.centre[index].numpy(), centre, rtol=1e-6, atol=1e-7)
        assert not found.offset_weight[0].any()
        assert not found.offset_weight[1:][case["semantic"][1:] == 3].any()


def test_points_on_the_border_and_none_at_all():
    semantic = torch.tensor([[[1, 1, 0, 1], [1, 1, -1, 1]]], dtype=torch.int16)
    points = torch.tensor([[[0, 0, 1], [0, 1, 3]]])  # at the border of either component
    offset = torch.zeros(1, 2, 2, 4)
    found = point_targets(offset, semantic, points, 1, 1.0)
    assert found.offset[0, 1, 0].tolist() == [1, 0, 0, 0]
    assert found.offset_weight[0].tolist() == [[1, 1, 0, 1], [1, 1, 0, 1]]
    none = point_targets(offset, semantic, points[:, :0], 1, 1.0)
    assert not none.centre.any() and not none.offset_weight.any()


def test_the_same_twice_and_without_a_gradient():
    case = random_case(5)
    case["heat"].requires_grad_()
    first, second = (refined_targets(**case, settings=settings(), sigma=2.0) for _ in range(2))
    for name in ("centre", "offset", "centre_weight", "offset_weight"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert not getattr(first, name).requires_grad


def test_half_precision_is_computed_in_single():
    case = random_case(6)
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in case.items()}
    single = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    first, second = (refined_targets(**one, settings=settings(), sigma=2.0) for one in (half, single))
    assert torch.equal(first.offset, second.offset)
    assert first.centre.dtype == first.offset_weight.dtype == torch.float32


def test_gaussians_and_pseudo_targets_are_those_of_the_loader():
    rng = np.random.default_rng(1)
    centres = np.concatenate([rng.integers(0, 3, (6, 1)), rng.integers(0, 40, (6, 1)), rng.integers(0, 50, (6, 1))], 1)
    wanted = centre_maps(centres, 3, (40, 50), 4.0)
    image = torch.zeros(7, dtype=torch.int64)
    rows = torch.from_numpy(np.concatenate([centres, [[-1, -1, -1]]]))
    assert np.allclose(gaussian_maps(image, rows[:, 0], rows[:, 1], rows[:, 2], (1, 3, 40, 50), 4.0)[0], wanted,
                       atol=1e-7)
    instances = np.zeros((40, 50), np.int32)
    instances[3:9, 4:20], instances[20:30, 20:40] = 2, 5
    both = torch.stack([rows, rows])
    both[0] = -1
    found = pseudo_targets(torch.from_numpy(np.stack([np.zeros_like(instances), instances])), both, 3, 4.0)
    assert not found.centre[0].any() and not found.offset[0].any() and not found.offset_weight[0].any()
    assert np.allclose(found.centre[1], wanted, atol=1e-7)
    assert np.array_equal(found.offset[1], offset_field(instances, centres))
    assert np.array_equal(found.offset_weight[1], instances > 0)
    assert torch.equal(found.centre_weight, found.offset_weight)
    everywhere = pseudo_targets(torch.from_numpy(instances)[None], both[1:], 3, 4.0,
                                torch.from_numpy(instances < 5)[None])
    assert np.array_equal(everywhere.centre_weight[0], instances < 5)
    free = found.unguided(torch.ones(2, 40, 50, dtype=torch.bool))
    assert (free.centre_weight == 1).all() and (free.offset_weight == 1).all() and free.centre is found.centre

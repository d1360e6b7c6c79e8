"""The batched mean-field against every pair written out in float64, and against pydensecrf."""

import numpy as np
import pytest
import torch

from stages.propagation import mean_field as module
from stages.propagation.dense_crf import dense_crf
from stages.propagation.kernels import window_offsets
from stages.propagation.mean_field import mean_field, mean_field_by
from stages.propagation.settings import MeanFieldSettings

SETTINGS = {
    "iterations": 5,
    "gaussian_xy": 2.0,
    "gaussian_weight": 2.0,
    "bilateral_xy": 10.0,
    "bilateral_rgb": 20.0,
    "bilateral_weight": 4.0,
}
ALL = 1000  # a radius that covers every image here


def example(batch=2, height=9, width=11, seed=0, noise=20.0):
    """Probabilities (B, H, W) that are noisy and higher on the right, and images (B, 3, H, W) of two noisy colours."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64) * noise
    image[..., width // 2 :] += torch.tensor([150.0, 90.0, 30.0])[:, None, None]
    probability = torch.rand(batch, height, width, generator=generator, dtype=torch.float64) * 0.7
    probability[..., width // 2 :] += 0.3
    return probability, image


def test_settings_reach_the_mean_field():
    probability, image = example()
    given = {**SETTINGS, "bilateral_xy": 6.0, "bilateral_weight": 3.0}
    assert torch.equal(mean_field_by(MeanFieldSettings(**given), probability, image),
                       mean_field(probability, image, **given)), "without a radius all pairs count"
    settings = MeanFieldSettings(**given, radius=2)
    found = mean_field_by(settings, probability, image)
    assert torch.equal(found, mean_field(probability, image, **given, radius=2))
    for name, default in MeanFieldSettings().model_dump().items():  # each of them says something
        other = mean_field_by(settings.model_copy(update={name: default}), probability, image)
        assert not torch.equal(other, found), name


def every_pair(probability, image, settings, counts=lambda dy, dx: 1.0):
    """Dense mean-field of one crop in float64; ``counts(dy, dx)`` is how often a pair counts in the bilateral term."""
    height, width = probability.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    gaussian = np.zeros((len(pixels),) * 2)
    bilateral = np.zeros_like(gaussian)
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            distance = (y - v) ** 2 + (x - u) ** 2
            colours = sum((image[c, y, x] - image[c, v, u]) ** 2 for c in range(3))
            gaussian[i, j] = np.exp(-distance / (2 * settings["gaussian_xy"] ** 2))
            exponent = distance / settings["bilateral_xy"] ** 2 + colours / settings["bilateral_rgb"] ** 2
            bilateral[i, j] = np.exp(-exponent / 2) * counts(y - v, x - u)
    coupling = np.zeros_like(gaussian)
    for weight, kernel in ((settings["gaussian_weight"], gaussian), (settings["bilateral_weight"], bilateral)):
        sums = kernel.sum(1)
        coupling += weight * kernel / np.sqrt(np.outer(sums, sums))
    both = np.stack([1 - probability, probability]).reshape(2, -1)
    energy = -np.log(np.maximum(both, 1e-8))
    marginals = np.exp(-energy) / np.exp(-energy).sum(0)
    for _ in range(settings["iterations"]):
        # A label pays for what the neighbours give to the other one.
        cost = energy + np.stack([coupling @ marginals[1], coupling @ marginals[0]])
        marginals = np.exp(cost.min(0) - cost)
        marginals /= marginals.sum(0)
    return marginals[1].reshape(height, width)


def expected(probability, image, settings=SETTINGS, **options):
    return np.stack(
        [every_pair(p, i, settings, **options) for p, i in zip(probability.numpy(), image.numpy(), strict=True)]
    )


@pytest.mark.parametrize("shape", [(2, 9, 11), (1, 1, 7), (1, 7, 1), (1, 1, 1), (3, 4, 2)])
@pytest.mark.parametrize("change", [{}, {"gaussian_weight": 0.0}, {"bilateral_weight": 0.0}, {"iterations": 0}])
def test_all_pairs_against_brute_force(shape, change):
    probability, image = example(*shape)
    settings = SETTINGS | change
    reference = expected(probability, image, settings)
    exact = mean_field(probability, image, radius=ALL, **settings)
    assert exact.dtype == torch.float64
    assert np.abs(exact.numpy() - reference).max() < 1e-12
    single = mean_field(probability.float(), image.float(), radius=ALL, **settings)
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - reference).max() < 1e-5


@pytest.mark.parametrize(("radius", "dilation"), [(3, 1), (0, 1), (6, 2), (7, 3), (ALL, 2), (ALL, 50)])
def test_window_against_brute_force(radius, dilation):
    probability, image = example(1)

    def counts(dy, dx):
        if dy == dx == 0:
            return 1.0
        inside = max(abs(dy), abs(dx)) <= radius and dy % dilation == 0 and dx % dilation == 0
        return float(dilation**2) if inside else 0.0

    found = mean_field(probability, image, radius=radius, dilation=dilation, **SETTINGS)
    assert np.abs(found.numpy() - expected(probability, image, counts=counts)).max() < 1e-12


def test_offsets_are_one_half_of_the_window():
    half = window_offsets(20, 20, 5, 2)
    assert len(half) == len(set(half)) == (5 * 5 - 1) // 2
    both = set(half) | {(-dy, -dx) for dy, dx in half}
    assert both == {(y, x) for y in (-4, -2, 0, 2, 4) for x in (-4, -2, 0, 2, 4)} - {(0, 0)}
    assert window_offsets(1, 1, 5) == []


@pytest.mark.parametrize("crops", [0, 1, 2])
def test_bounded_memory_gives_the_same(monkeypatch, crops):
    probability, image = example(3)
    whole = mean_field(probability, image, radius=4, **SETTINGS)
    per_crop = len(window_offsets(9, 11, 4)) * 9 * 11 * 8
    monkeypatch.setattr(module, "WEIGHT_BYTES", crops * per_crop)
    assert torch.allclose(mean_field(probability, image, radius=4, **SETTINGS), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"radius": ALL}, {"radius": 4, "dilation": 2}])
def test_batch_is_one_by_one(options):
    probability, image = example(4)
    whole = mean_field(probability, image, **options, **SETTINGS)
    single = [
        mean_field(probability[i : i + 1], image[i : i + 1], **options, **SETTINGS) for i in range(len(probability))
    ]
    assert torch.allclose(whole, torch.cat(single), rtol=0, atol=1e-12)
    order = [2, 0, 3, 1]
    assert torch.allclose(mean_field(probability[order], image[order], **options, **SETTINGS), whole[order], atol=1e-12)


@pytest.mark.parametrize(
    "turn", [lambda a: a.flip(-1), lambda a: a.flip(-2), lambda a: a.transpose(-1, -2)], ids=["x", "y", "transpose"]
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_flips(turn, dilation):
    probability, image = example()
    found = mean_field(turn(probability), turn(image), radius=4, dilation=dilation, **SETTINGS)
    assert torch.allclose(
        found, turn(mean_field(probability, image, radius=4, dilation=dilation, **SETTINGS)), atol=1e-12
    )


def test_labels_and_channels_can_be_exchanged():
    probability, image = example()
    whole = mean_field(probability, image, radius=ALL, **SETTINGS)
    assert torch.allclose(mean_field(1 - probability, image, radius=ALL, **SETTINGS), 1 - whole, atol=1e-12)
    assert torch.allclose(mean_field(probability, image[:, [2, 0, 1]], radius=ALL, **SETTINGS), whole, atol=1e-12)


def test_mask_moves_to_the_edge_of_the_colours():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 9:] = 200
    probability = torch.full((1, 16, 16), 0.2)
    probability[..., 7:] = 0.8  # two columns too early
    probability[0, 3, 3] = 0.8
    for radius in (None, 8):
        refined = mean_field(probability, image, radius=radius) > 0.5
        assert torch.equal(refined, (torch.arange(16) >= 9).expand(1, 16, 16))


@pytest.mark.parametrize("radius", [None, 3])
def test_certain_probabilities_and_constant_images(radius):
    image = torch.full((2, 3, 8, 8), 128.0)
    probability = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    found = mean_field(probability, image, radius=radius, **SETTINGS)
    assert found[0].max() < 1e-6
    assert found[1].min() > 1 - 1e-6
    half = mean_field(torch.full((2, 8, 8), 0.5), image, radius=radius, **SETTINGS)
    assert torch.allclose(half, torch.full_like(half, 0.5))


@pytest.mark.parametrize("radius", [None, 3])
@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0), (1, 1, 1), (2, 1, 5), (2, 5, 1)])
def test_shapes(radius, shape):
    probability, image = example(*shape)
    found = mean_field(probability.float(), image.float(), radius=radius, **SETTINGS)
    assert found.shape == shape
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("radius", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, radius):
    probability, image = (tensor.to(dtype) for tensor in example())
    found = mean_field(probability, image, radius=radius, **SETTINGS)
    assert found.dtype == torch.float32
    assert torch.equal(found, mean_field(probability.float(), image.float(), radius=radius, **SETTINGS))


@pytest.mark.parametrize("radius", [None, 3])
def test_no_gradient_same_bytes_and_inputs_left_alone(radius):
    probability, image = example()
    probability.requires_grad_()
    copies = probability.detach().clone(), image.clone()
    found = mean_field(probability, image, radius=radius, **SETTINGS)
    assert not found.requires_grad
    assert torch.equal(found, mean_field(probability, image, radius=radius, **SETTINGS))
    assert torch.equal(probability.detach(), copies[0])
    assert torch.equal(image, copies[1])


@pytest.mark.parametrize("radius", [None, 3])
def test_mixed_precision_around_it_changes_nothing(radius):
    probability, image = (tensor.float() for tensor in example())
    alone = mean_field(probability, image, radius=radius, **SETTINGS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mean_field(probability, image, radius=radius, **SETTINGS)
    assert torch.equal(found, alone)


def test_lattices_of_parts_of_a_batch(monkeypatch):
    probability, image = example(5)
    whole = mean_field(probability, image, **SETTINGS)
    monkeypatch.setattr(module, "LATTICE_PIXELS", 2 * 9 * 11)
    assert torch.allclose(mean_field(probability, image, **SETTINGS), whole, rtol=0, atol=1e-12)


def test_uint8_images():
    probability, image = example()
    image = image.to(torch.uint8)
    found = mean_field(probability, image, **SETTINGS)
    assert torch.equal(found, mean_field(probability, image.double(), **SETTINGS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": torch.rand(4, 4)}, "probability must be"),
        ({"probability": torch.ones(1, 4, 4, dtype=torch.int64)}, "probability must be"),
        ({"probability": torch.full((1, 4, 4), 1.5)}, "must lie in"),
        ({"probability": torch.full((1, 4, 4), torch.nan)}, "must lie in"),
        ({"image": torch.rand(1, 3, 4, 5)}, "the image must be"),
        ({"image": torch.rand(3, 4, 4)}, "the image must be"),
        ({"image": torch.full((1, 3, 4, 4), torch.inf)}, "finite"),
        ({"bilateral_rgb": 0.0}, "widths"),
        ({"iterations": -1}, "iterations"),
        ({"radius": -1}, "radius"),
        ({"radius": 3, "dilation": 0}, "dilation"),
        ({"dilation": 2}, "give a radius"),
    ],
)
def test_refused(change, message):
    arguments = {"probability": torch.rand(1, 4, 4), "image": torch.rand(1, 3, 4, 4), **change}
    with pytest.raises(ValueError, match=message):
        mean_field(**arguments)


def pydensecrf(probability, image, settings):
    """pydensecrf on each crop, the marginal of the foreground."""
    crops = []
    for p, i in zip(probability.numpy(), image.numpy(), strict=True):
        marginals = dense_crf(
            np.moveaxis(i, 0, -1).astype(np.uint8),
            np.stack([1 - p, p]),
            iterations=settings["iterations"],
            gaussian_sxy=settings["gaussian_xy"],
            gaussian_compat=settings["gaussian_weight"],
            bilateral_sxy=settings["bilateral_xy"],
            bilateral_srgb=settings["bilateral_rgb"],
            bilateral_compat=settings["bilateral_weight"],
        )
        crops.append(marginals[1])
    return np.stack(crops)


def natural(batch=3, height=48, width=64):
    """Smooth shading, two objects with soft edges and a little noise; blurred probabilities of the objects."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    disc = torch.sigmoid((0.3 - ((y - 0.5) ** 2 + (x - 0.4) ** 2).sqrt()) * 60)
    bar = torch.sigmoid((0.08 - (x - 0.85).abs()) * 80)
    colour = torch.rand(batch, 3, 3, 1, 1, generator=generator) * 150
    image = colour[:, 0] + 60 * y + colour[:, 1] * disc + colour[:, 2] * bar
    image += 5 * torch.randn(image.shape, generator=generator)
    probability = 0.2 + 0.6 * torch.sigmoid((0.34 - ((y - 0.55) ** 2 + (x - 0.45) ** 2).sqrt()) * 12)
    probability = probability + 0.05 * torch.randn(batch, height, width, generator=generator)
    return probability.clamp(0, 1), image.clamp(0, 255).floor()


def noisy(batch=3, height=48, width=64):
    """Uniform noise in all colours: nearly every pixel is alone in its corner of the lattice."""
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(batch, 3, height, width, generator=generator) * 256
    return torch.rand(batch, height, width, generator=generator), image.floor()


# Both filter on the same kind of lattice; what differs is the Gaussian term, which is exact here, and which corners a
# pixel on the boundary of two simplices touches. Measured: 2e-4 and 3e-3 of the marginals, 1e-4 and 3e-3 of the labels.
@pytest.mark.parametrize(("pictures", "tolerance"), [(natural, 1e-3), (noisy, 1e-2)])
@pytest.mark.parametrize(
    "change",
    [{}, {"gaussian_weight": 0.0}, {"bilateral_xy": 40.0, "bilateral_rgb": 13.0, "bilateral_weight": 10.0}],
)
def test_lattice_against_pydensecrf(pictures, tolerance, change):
    probability, image = pictures()
    settings = SETTINGS | change
    reference = pydensecrf(probability, image, settings)
    found = mean_field(probability, image, **settings).numpy()
    assert np.abs(found - reference).mean() < tolerance
    assert ((found > 0.5) != (reference > 0.5)).mean() < tolerance


def test_bilateral_term_alone_is_that_of_pydensecrf():
    probability, image = natural()
    settings = SETTINGS | {"gaussian_weight": 0.0}
    found = mean_field(probability, image, **settings).numpy()
    assert np.abs(found - pydensecrf(probability, image, settings)).max() < 1e-4


# The lattice's own error. Measured: 2e-3 of the marginals of natural images, 2e-2 of those of noise with weak terms;
# with a weight of 4 noise settles elsewhere: 7e-2 of the marginals, 6 % of the labels.
@pytest.mark.parametrize(
    ("pictures", "weight", "tolerance"), [(natural, 1.0, 0.005), (natural, 4.0, 0.005), (noisy, 1.0, 0.04)]
)
def test_lattice_against_all_pairs(pictures, weight, tolerance):
    probability, image = pictures(2, 24, 32)
    settings = SETTINGS | {"bilateral_weight": weight}
    reference = mean_field(probability, image, radius=ALL, **settings).numpy()
    found = mean_field(probability, image, **settings).numpy()
    assert np.abs(found - reference).mean() < tolerance
    assert ((found > 0.5) != (reference > 0.5)).mean() < tolerance

"""The mean-field of many labels: against every pair written out, pydensecrf and the two-class one; its gradients."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from stages.propagation import dense_crf
from stages.propagation import permutohedral as lattice_module
from stages.propagation.kernels import gaussian_kernel, window_kernel, window_offsets
from stages.propagation.label_mean_field import image_kernels, label_mean_field
from stages.propagation.mean_field import mean_field
from tests.stages.propagation.reference import dense_kernels

WIDTHS = {"gaussian_xy": 2.0, "bilateral_xy": 8.0, "bilateral_rgb": 20.0}
WEIGHTS = [1.5, 2.5]
NORMALISATIONS = ["symmetric", "rows"]
NOISE = 255 * torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))


def noise(labels=3, height=6, width=7, seed=0):
    """Unnormalised log unaries (L, H, W) and an image (3, H, W) of two noisy colours, float64."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, height, width, generator=generator, dtype=torch.float64) * 40
    image[..., width // 2 :] += torch.tensor([150.0, 90.0, 30.0])[:, None, None]
    return 2 * torch.randn(labels, height, width, generator=generator, dtype=torch.float64), image


def scene(labels=6, height=48, width=64, seed=1):
    """Smooth shading, discs with soft edges and a little noise; unaries that prefer discs beside the true ones.

    Returns log probabilities (L, H, W) float32 and an image (3, H, W) uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    image = 40 + 60 * y + torch.zeros(3, 1, 1)
    logits = torch.zeros(labels, height, width)
    for label in range(1, labels):
        centre = 0.15 + 0.7 * torch.rand(2, generator=generator)
        distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt()
        disc = torch.sigmoid((0.2 - distance) * 60)
        image = image * (1 - disc) + disc * 255 * torch.rand(3, 1, 1, generator=generator)
        moved = ((y - centre[0] - 0.05) ** 2 + (x - centre[1] + 0.05) ** 2).sqrt()
        logits[label] = torch.sigmoid((0.22 - moved) * 20) * 3
    image += 4 * torch.randn(image.shape, generator=generator)
    logits += 0.3 * torch.randn(logits.shape, generator=generator)
    return logits.log_softmax(0), image.clamp(0, 255).to(torch.uint8)


def exact_kernels(image, normalisation="symmetric"):
    """The pipeline's Gaussian and, in place of the lattice, a window as large as the image."""
    colour = image[None] / WIDTHS["bilateral_rgb"]
    offsets = window_offsets(*image.shape[1:], max(image.shape[1:]))
    return (gaussian_kernel(colour[:, 0], WIDTHS["gaussian_xy"], normalisation),
            window_kernel(colour, WIDTHS["bilateral_xy"], offsets, normalisation=normalisation))


def every_pair(log_unary, image, weights, steps, normalisation):
    """Marginals with dense matrices and Potts costs, label by label; torch, so that autograd gives their gradients."""
    kernels = [torch.from_numpy(k) for k in dense_kernels(image.numpy(), **WIDTHS, normalisation=normalisation)]
    coupling = sum(weight * kernel for weight, kernel in zip(weights, kernels, strict=True))
    energy = -log_unary.reshape(len(log_unary), -1)
    q = torch.softmax(-energy, 0)
    for _ in range(steps):
        cost = torch.stack([sum((q[m] @ coupling.T for m in range(len(q)) if m != label), torch.zeros_like(q[0]))
                            for label in range(len(q))])
        q = torch.softmax(-energy - cost, 0)
    return q.reshape(log_unary.shape)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("labels", "height", "width"), [(3, 6, 7), (1, 4, 5), (4, 1, 1), (5, 1, 9), (20, 5, 6)])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_all_pairs_against_brute_force(labels, height, width, steps, normalisation):
    """Marginals and all gradients. Row sums' own kernels are not symmetric, so both ways of a matrix count."""
    unary, image = noise(labels, height, width)
    target = torch.randn(unary.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for ours in (True, False):
        given, weights = unary.clone().requires_grad_(), torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
        if ours:
            found = label_mean_field(given, exact_kernels(image, normalisation), weights, steps).exp()
        else:
            found = every_pair(given, image, weights, steps, normalisation)
        gradients = torch.autograd.grad((found * target).sum(), [given, weights], materialize_grads=True)
        results.append([found.detach(), *gradients])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("labels", "height", "width"), [(3, 3, 4), (1, 2, 3), (2, 1, 1)])
def test_gradient_by_finite_differences(labels, height, width, normalisation):
    unary, image = noise(labels, height, width)
    kernels = image_kernels(image, **WIDTHS, normalisation=normalisation)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, w: label_mean_field(u, kernels, w, 3), (unary.requires_grad_(), weights))


def test_gradient_without_the_reversed_order_is_wrong():
    unary, image = noise(3, 8, 9)
    gaussian, bilateral = image_kernels(image, **WIDTHS)
    target = torch.randn(unary.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gradients = []
    for kernel in (bilateral, bilateral._replace(transposed=bilateral.filtered)):
        given = unary.clone().requires_grad_()
        found = label_mean_field(given, (gaussian, kernel), WEIGHTS, 3).exp()
        gradients.append(torch.autograd.grad((found * target).sum(), given)[0])
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()


def pydensecrf(log_unary, image, weights, steps, normalisation):
    densecrf = dense_crf.densecrf
    labels, height, width = log_unary.shape
    kind = {"symmetric": densecrf.NORMALIZE_SYMMETRIC, "rows": densecrf.NORMALIZE_AFTER}[normalisation]
    model = densecrf.DenseCRF2D(width, height, labels)
    model.setUnaryEnergy(np.ascontiguousarray(-log_unary.numpy().reshape(labels, -1), np.float32))
    gaussian, bilateral = weights
    if gaussian:
        model.addPairwiseGaussian(sxy=WIDTHS["gaussian_xy"], compat=gaussian, normalization=kind)
    if bilateral:
        model.addPairwiseBilateral(sxy=WIDTHS["bilateral_xy"], srgb=WIDTHS["bilateral_rgb"],
                                   rgbim=np.ascontiguousarray(image.permute(1, 2, 0).numpy()), compat=bilateral,
                                   normalization=kind)
    return np.array(model.inference(steps), np.float32).reshape(labels, height, width)


@pytest.mark.skipif(bool(dense_crf.MISSING), reason="pydensecrf is not installed")
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("labels", "height", "width"), [(2, 48, 64), (6, 48, 64), (20, 70, 50), (4, 1, 1), (3, 1, 40)])
def test_bilateral_term_is_that_of_pydensecrf(labels, height, width, normalisation):
    """Both filter on the same lattice, so all that differs is the rounding of float32."""
    unary, image = scene(labels, height, width)
    found = label_mean_field(unary, image_kernels(image, **WIDTHS, normalisation=normalisation), [0.0, 4.0], 5).exp()
    reference = pydensecrf(unary, image, [0.0, 4.0], 5, normalisation)
    assert np.abs(found.numpy() - reference).max() < 1e-3
    assert np.abs(found.numpy() - reference).mean() < 1e-5


@pytest.mark.skipif(bool(dense_crf.MISSING), reason="pydensecrf is not installed")
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("labels", [2, 6, 20])
def test_both_terms_against_pydensecrf(labels, normalisation):
    """Its Gaussian term is filtered on a lattice, ours exactly: that alone differs, as the bilateral term does not.

    Measured: up to 4e-4 of the marginals and .23 % of the labels, where the CRF moves the marginals by .06 to .40.
    """
    unary, image = scene(labels)
    found = label_mean_field(unary, image_kernels(image, **WIDTHS, normalisation=normalisation), [3.0, 4.0], 5)
    reference = pydensecrf(unary, image, [3.0, 4.0], 5, normalisation)
    assert np.abs(found.exp().numpy() - reference).mean() < 1e-3
    assert (found.argmax(0).numpy() != reference.argmax(0)).mean() < 0.005


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_lattice_against_all_pairs(normalisation):
    """The lattice's own error, which pydensecrf shares. Measured: .0045 of the marginals, 2 % of the labels."""
    unary, image = (tensor.double() for tensor in scene(6, 24, 32))
    kernels = image_kernels(image, **WIDTHS, normalisation=normalisation)
    found = label_mean_field(unary, kernels, [3.0, 4.0], 5).exp()
    exact = every_pair(unary, image, [3.0, 4.0], 5, normalisation)
    assert (found - exact).abs().mean() < 0.01
    assert (found.argmax(0) != exact.argmax(0)).double().mean() < 0.04


def test_two_labels_are_the_two_class_mean_field():
    probability = scene(2)[0].double().exp()[1]
    image = scene(2)[1].double()
    expected = mean_field(probability[None], image[None], iterations=4, gaussian_weight=WEIGHTS[0],
                          bilateral_weight=WEIGHTS[1], **WIDTHS)[0]
    unary = torch.stack([1 - probability, probability]).log()
    found = label_mean_field(unary, image_kernels(image, **WIDTHS), WEIGHTS, 4).exp()
    assert torch.allclose(found[1], expected, rtol=0, atol=1e-10)


def test_labels_can_be_exchanged_and_equal_ones_stay_equal():
    unary, image = noise(20)
    unary[7] = unary[3]
    kernels = image_kernels(image, **WIDTHS)
    found = label_mean_field(unary, kernels, WEIGHTS, 3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(label_mean_field(unary[order], kernels, WEIGHTS, 3), found[order], rtol=0, atol=1e-12)
    assert torch.equal(found[7], found[3])
    assert torch.allclose(found.exp().sum(0), torch.ones(6, 7, dtype=torch.float64))


def test_only_differences_of_the_unaries_count():
    unary, image = noise()
    kernels = image_kernels(image, **WIDTHS)
    shifted = label_mean_field(unary + torch.randn(6, 7, dtype=torch.float64), kernels, WEIGHTS, 3)
    assert torch.allclose(shifted, label_mean_field(unary, kernels, WEIGHTS, 3), rtol=0, atol=1e-12)


def test_forbidden_labels_stay_forbidden():
    unary, image = noise()
    unary[1, 2:] = -torch.inf
    unary.requires_grad_()
    found = label_mean_field(unary, image_kernels(image, **WIDTHS), WEIGHTS, 3)
    assert (found[1, 2:] == -torch.inf).all()
    assert torch.isfinite(found[1, :2]).all()
    found.exp()[0].sum().backward()
    assert torch.isfinite(unary.grad).all()


def test_labels_move_to_the_edges_of_the_colours():
    image = torch.zeros(3, 12, 24)
    image[:, :, 9:16] = 120
    image[:, :, 16:] = 240
    logits = torch.zeros(3, 12, 24)
    logits[0, :, :7] = logits[1, :, 7:14] = logits[2, :, 14:] = 1.5  # two columns too early
    found = label_mean_field(logits, image_kernels(image, **WIDTHS), [1.0, 6.0], 5).argmax(0)
    columns = torch.arange(24)
    assert torch.equal(found, ((columns >= 9).long() + (columns >= 16).long()).expand(12, 24))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_same_bytes_in_parts_and_without_touching_the_inputs(monkeypatch, normalisation):
    unary, image = scene(9, 20, 30)
    unary.requires_grad_()
    copies = unary.detach().clone(), image.clone()
    results = []
    for point_values in (2**21, 2**21, 0):
        monkeypatch.setattr(lattice_module, "POINT_VALUES", point_values)
        weights = torch.tensor(WEIGHTS, requires_grad=True)
        found = label_mean_field(unary, image_kernels(image, **WIDTHS, normalisation=normalisation), weights, 3)
        results.append([found.detach(), *torch.autograd.grad(found[0].sum(), [unary, weights])])
    for one, same, parts in zip(*results, strict=True):
        assert torch.equal(one, same)
        assert torch.allclose(one, parts, rtol=1e-4, atol=1e-5)
    assert torch.equal(unary.detach(), copies[0])
    assert torch.equal(image, copies[1])


def test_no_gradient_for_the_image():
    unary, image = noise()
    image.requires_grad_()
    found = label_mean_field(unary, image_kernels(image, **WIDTHS), WEIGHTS, 2)
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_and_mixed_precision_are_computed_in_float32(dtype):
    unary, image = (tensor.to(dtype) for tensor in noise())
    kernels = image_kernels(image, **WIDTHS)
    found = label_mean_field(unary, kernels, WEIGHTS, 3)
    assert found.dtype == torch.float32
    plain = label_mean_field(unary.float(), image_kernels(image.float(), **WIDTHS), WEIGHTS, 3)
    assert torch.equal(found, plain)
    gradients = []
    for enabled in (True, False):
        given = unary.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            mixed = label_mean_field(given, image_kernels(image, **WIDTHS), WEIGHTS, 3)
            gradients.append(torch.autograd.grad(mixed[0].sum(), given)[0])
        assert torch.equal(mixed, plain)
    assert torch.equal(*gradients)


def test_nothing_is_left_on_another_device():
    """Whatever is made without a device lies on ``meta`` here, where it can meet no number."""
    unary, image = noise()
    kernels = image_kernels(image, **WIDTHS)
    expected = label_mean_field(unary, kernels, WEIGHTS, 2)
    with torch.device("meta"):
        given = unary.clone().requires_grad_()
        found = label_mean_field(given, image_kernels(image, **WIDTHS), WEIGHTS, 2)
        found.sum().backward()
    assert torch.equal(found, expected)
    assert given.grad.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu():
    unary, image = scene(20)
    results = []
    for device in ("cpu", "cuda", "cuda"):
        given = unary.to(device, torch.float64).requires_grad_()
        found = label_mean_field(given, image_kernels(image.to(device, torch.float64), **WIDTHS), WEIGHTS, 3)
        results.append([found.detach().cpu(), torch.autograd.grad(found[0].sum(), given)[0].cpu()])
    for cpu, first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert torch.allclose(first, cpu, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_empty(shape):
    found = label_mean_field(torch.zeros(shape), image_kernels(torch.zeros(3, 4, 5)), WEIGHTS, 3)
    assert found.shape == shape


@pytest.mark.parametrize(("change", "message"), [
    ({"log_unary": torch.zeros(4, 5)}, "unaries must be"),
    ({"log_unary": torch.zeros(2, 4, 5, dtype=torch.int64)}, "unaries must be"),
    ({"log_unary": torch.zeros(2, 4, 6)}, "kernels filter"),
    ({"log_unary": torch.zeros(2, 4, 5, dtype=torch.float64)}, "kernels filter"),
    ({"weights": [1.0]}, "needs a weight"),
    ({"steps": -1}, "steps"),
])
def test_refused(change, message):
    arguments = {"log_unary": torch.zeros(2, 4, 5), "kernels": image_kernels(torch.zeros(3, 4, 5)),
                 "weights": WEIGHTS, "steps": 2, **change}
    with pytest.raises(ValueError, match=message):
        label_mean_field(**arguments)


@pytest.mark.parametrize(("image", "change", "message"), [
    (torch.zeros(1, 3, 4, 5), {}, "the image must be"),
    (torch.zeros(4, 5, 3), {}, "the image must be"),
    (torch.zeros(3, 0, 5), {}, "the image must be"),
    (torch.full((3, 4, 5), torch.nan), {}, "finite"),
    (torch.zeros(3, 4, 5), {"bilateral_xy": 0.0}, "widths"),
    (torch.zeros(3, 4, 5), {"gaussian_xy": float("nan")}, "widths"),
    (NOISE, {"bilateral_rgb": 1e-3}, "too small for a lattice"),
    (NOISE.double(), {"bilateral_rgb": 1e-6}, "too small for a lattice"),
    (torch.zeros(3, 4, 5), {"normalisation": "columns"}, "symmetric or rows"),
])
def test_images_and_widths_refused(image, change, message):
    with pytest.raises(ValueError, match=message):
        image_kernels(image, **change)

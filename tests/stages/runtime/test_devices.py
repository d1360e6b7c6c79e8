"""Which device a setting means, and what is set with it."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.panoptic.instance_head import InstanceHead, stuff_detections
from pipelines.wise import grouping
from stages.cues import attention, backbone
from stages.cues.prm import PeakClassifier, image_peaks
from stages.cues.settings import BackboneSettings
from stages.propagation import kernels, points, random_walk, tensor_walk
from stages.propagation.label_mean_field import image_kernels, label_mean_field
from stages.runtime import devices


@pytest.fixture
def _as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("mixed", [False, True])
def test_kernels_keep_all_digits(_as_before, mixed):
    """Where a GPU's products have been made short, or mixed, those of the walks, the CRF and the k-means are not."""
    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("mm", "bmm", "baddbmm", "addmm", "_linalg_solve_ex"):
                found.append(torch.get_float32_matmul_precision())
                types_seen.update(value.dtype for value in args if isinstance(value, torch.Tensor))
            return func(*args, **(kwargs or {}))

    torch.manual_seed(0)
    found: list[str] = []
    types_seen: set[torch.dtype] = set()
    torch.set_float32_matmul_precision("high")
    maps, features = torch.rand(1, 2, 9, 7), torch.rand(2, 3, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), Products():
        kernels.gaussian_kernel(maps[0], 2.0).filtered(maps)
        exponent = points.feature_exponent(features, 0.1) + points.colour_exponent(torch.rand(2, 3, 16, 16), 4, 0.2)
        transition = points.transition_matrix(exponent.exp(), 2)
        points.propagation_scores(transition, transition[:, :2], 2)
        points.converged_scores(transition, transition[:, :2], 0.5)
        yx = grouping.background_pixels(maps[0], np.ones((9, 7), bool), 3)
        grouping.group(maps[0], yx[:1], yx[1:])
        assert torch.is_autocast_enabled("cpu") == mixed
    assert len(found) > 12 and set(found) == {"highest"} and types_seen == {torch.float32}
    assert torch.get_float32_matmul_precision() == "high"


def _maps() -> torch.Tensor:
    return torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def _attention() -> torch.Tensor:
    """Of tokens whose queries and keys are known: what is cast is the network, and that is left out."""
    module = mock.Mock(qkv=lambda tokens: tokens, num_heads=2, scale=1.0, q_norm=torch.nn.Identity(),
                       k_norm=torch.nn.Identity())
    return attention._mean_attention(module, 3 * _maps().flatten(1).reshape(1, 15, 24))


def _peaks() -> list:
    torch.manual_seed(0)
    chosen = BackboneSettings(name="resnet10t", weights="none", stride=16,
                              arguments={"channels": [8, 8, 16, 24], "stem_width": 8})
    model = PeakClassifier(chosen, 2, enlarge=4, window=3).eval()
    return image_peaks(model, (255 * _maps()[0]).to(torch.uint8).repeat_interleave(4, 1), [0, 1], -1e9)


def _points() -> list:
    similarity = (points.feature_exponent(_maps().flatten(2), 0.1)).exp()
    transition = points.transition_matrix(similarity, 3)
    sources = points.seed_rows(torch.eye(2, 120, dtype=torch.bool)[None])
    return [points.propagation_scores(transition, sources, 4), points.converged_scores(transition, sources, 0.5),
            points.colour_exponent(_maps(), 4, 0.2)]


def _clusters() -> list:
    embeddings = torch.rand(3, 60, 50, generator=torch.Generator().manual_seed(0))
    yx = grouping.background_pixels(embeddings, np.ones((60, 50), bool), 4)
    return [yx, grouping.group(embeddings, yx[:2], yx[2:])]


EXACT = {
    "walk": lambda: tensor_walk.random_walk(_maps()[0], _maps()[0, 0], steps=16),
    "walk in torch": lambda: random_walk.walk(torch, _maps()[0], _maps()[0, 0].double(), 3.0, 10.0, 16),
    "CRF of labels": lambda: label_mean_field(_maps()[0].log_softmax(0), image_kernels(
        255 * _maps()[0], gaussian_xy=2, bilateral_xy=8, bilateral_rgb=20), (2.0, 3.0), 3),
    "lattice": lambda: kernels.bilateral_kernel(_maps(), 4.0).filtered(_maps()),
    "instance CRF": lambda: InstanceHead(bilateral_xy=8)(_maps()[0].log_softmax(0), 255 * _maps()[0],
                                                         stuff_detections([0, 1, 2], _maps())),
    "points": _points, "clusters": _clusters, "attention": _attention, "peaks": _peaks,
    "places of maps": lambda: backbone.resample_output(_maps(), backbone.Grid(16, 0), backbone.grid_of(4), (24, 20)),
}
HAVE_PRODUCTS = {"points", "clusters", "attention", "peaks", "places of maps"}
"""Those that mixed precision would reach; the others are made of sums and products by element, or into given tensors,
and shall stay so."""


def _bytes(values: object) -> list[bytes]:
    return [(leaf.numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)).tobytes()
            for leaf in tree_leaves(values)]


@pytest.mark.parametrize("name", EXACT)
def test_mixed_precision_does_not_reach_what_is_exact(name):
    with torch.no_grad():
        wanted = _bytes(EXACT[name]())
        with torch.autocast("cpu", torch.bfloat16):
            assert _bytes(EXACT[name]()) == wanted


@pytest.mark.parametrize("name", sorted(HAVE_PRODUCTS))
def test_without_its_guard_each_would_differ(name):
    """So the test above can fail."""
    with torch.no_grad():
        wanted = _bytes(EXACT[name]())
        with torch.autocast("cpu", torch.bfloat16), mock.patch.object(torch, "is_autocast_enabled", return_value=False):
            try:
                assert _bytes(EXACT[name]()) != wanted
            except (TypeError, RuntimeError):  # NumPy has no bfloat16, and no product has factors of two types
                pass


@pytest.mark.parametrize(("gpu", "wanted"), [(True, "high"), (False, "highest")])
def test_products_take_tensor_cores_on_cuda_alone(_as_before, gpu, wanted):
    torch.set_float32_matmul_precision("highest")
    with mock.patch.object(torch.cuda, "is_available", return_value=gpu), \
            mock.patch.object(torch.cuda, "current_device", return_value=0):
        assert devices.resolve("auto").type == ("cuda" if gpu else "cpu")
    assert torch.get_float32_matmul_precision() == wanted

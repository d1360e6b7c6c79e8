"""WISE as on a GPU: nothing is left on the CPU but what is worked out there, going forward or backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.wise.blobs import blob_points, make_points
from pipelines.wise.grouping import background_pixels, group
from pipelines.wise.network import WiseNet
from pipelines.wise.prediction import colours, image_maps, likeness, similarity
from pipelines.wise.pseudo_masks import Pairs
from pipelines.wise.settings import NetworkSettings
from pipelines.wise.training import joint_losses
from stages.cues.settings import BackboneSettings
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu

NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16,
                          arguments={"channels": [8, 8, 16, 16], "stem_width": 8})


def build(**changes) -> tuple[WiseNet, NetworkSettings]:
    torch.manual_seed(0)
    settings = NetworkSettings(backbone=NARROW, strides=(16, 8, 4), dimensions=5, term_warmup=10, **changes)
    return WiseNet(settings, 2), settings


def sample(height: int, width: int, gpu) -> dict:
    """As the training loop hands it over: points stay arrays, image and pairs go to the GPU."""
    rng = np.random.default_rng(0)
    yx = np.stack([rng.permutation(height)[:12], rng.permutation(width)[:12]], 1)
    found = {"yx": torch.from_numpy(yx), "first": torch.tensor([0, 1, 2, 3]), "second": torch.tensor([4, 5, 6, 7]),
             "same": torch.tensor([True, False, True, False]), "weight": torch.full((4,), 0.25),
             "points": torch.tensor([0, 1]), "seeds": torch.tensor([2]), "hard": torch.tensor([8, 9, 10, 11])}
    assert set(found) == set(Pairs.__dataclass_fields__)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))
    return {"image": gpu.take(image), "pairs": gpu.take(found),
            "points": make_points(np.array([[5, 6], [20, 21], [20, 30]]), np.array([1, 2, 2]), (height, width))}


@pytest.mark.parametrize(("mixed", "changes"), [(False, {}), (True, {}), (False, {"shared": False, "width": 8}),
                                                (False, {"coordinates": True})])
def test_a_training_step(mixed, changes):
    model, settings = build(**changes)
    with pretended_gpu() as gpu:
        model = gpu.take(model).train()
        given = [sample(32, 48, gpu), sample(40, 33, gpu)]
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            terms = joint_losses(model, model, given, settings)
        assert all(term.is_cuda for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        assert all(value.grad.is_cuda for value in model.parameters() if value.grad is not None)
        gpu.waits.clear()
        joint_losses(model, model, given[:1], settings)
        # Blobs and watersheds are found on the CPU: there and back once, and what they ask for in between.
        assert gpu.waits["from gpu"] <= 4 and gpu.waits.total() <= 20, gpu.waits


@pytest.mark.parametrize("max_pixels", [10_000, 1000])
def test_an_image_in_mixed_precision(max_pixels):
    """Logits, embeddings and all that is made of them: blobs, groups, the pictures for the gallery."""
    model, _ = build(embedding_scale=30)
    pixels = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    yx = np.array([[3, 4], [20, 30]])

    def infer():
        location, embeddings = image_maps(model.eval(), pixels, max_pixels)
        points, scores, _ = blob_points(location.softmax(0).numpy(), 0.0)
        assert points.yx.shape == (len(scores), 2)
        labels = group(embeddings, yx, background_pixels(embeddings, np.ones((32, 48), bool), 2))
        assert labels.dtype == torch.int64
        return location, embeddings, likeness(embeddings, torch.zeros(32, 48), yx), similarity(embeddings, yx), \
            colours(embeddings)

    assert_near(infer, 0.05)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_image(mixed):
    model, _ = build()
    with pretended_gpu() as gpu, torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        location, embeddings = image_maps(gpu.take(model).eval(), sample(32, 48, gpu)["image"], 1000)
        assert location.is_cuda and embeddings.is_cuda and location.shape[1:] == (32, 48)
        assert colours(embeddings).is_cuda
        assert location.dtype == embeddings.dtype == torch.float32
        yx = np.array([[3, 4], [20, 30]])
        assert group(embeddings, yx, background_pixels(embeddings, np.ones((32, 48), bool), 2)).is_cuda
        labels = gpu.take(torch.randint(-1, 2, (32, 48)))
        assert likeness(embeddings, labels, yx).shape == (2,) and similarity(embeddings, yx).shape == (32, 48)

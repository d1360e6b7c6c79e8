"""Cross-entropy against its definition, and what is ignored counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.segmentation.labels import IGNORE
from stages.segmentation.losses import cross_entropy


def test_the_mean_over_decided_pixels():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 3, (2, 4, 5, 6)), generator.integers(-1, 4, (2, 5, 6))
    terms = []
    for n, y, x in np.ndindex(labels.shape):
        if labels[n, y, x] != IGNORE:
            chances = np.exp(logits[n, :, y, x])
            terms.append(-np.log(chances[labels[n, y, x]] / chances.sum()))
    found = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels.astype(np.int16)))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


def test_ignored_pixels_have_no_gradient():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    labels = torch.randint(0, 3, (2, 8, 8), dtype=torch.int16)
    labels[:, 2:5] = IGNORE
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert (logits.grad[:, :, 2:5] == 0).all()
    assert (logits.grad[:, :, :2].abs().sum(1) > 0).all()
    changed = logits.detach().clone()
    changed[:, :, 2:5] += 100
    assert cross_entropy(changed, labels) == loss


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_decided(kind):
    logits = torch.randn(2, 3, 8, 8).to(kind).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(logits, torch.full((2, 8, 8), IGNORE, dtype=torch.int16))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss == 0
    assert (logits.grad == 0).all()


def test_half_precision_does_not_overflow():
    logits = torch.full((1, 2, 400, 400), 30.0, dtype=torch.float16)
    logits[:, 1] = -30
    loss = cross_entropy(logits, torch.ones(1, 400, 400, dtype=torch.int16))  # the sum is 9.6 million
    assert float(loss) == pytest.approx(60, rel=1e-4)

"""The comparison of single precision with bfloat16 tells a loss that bears it from one that does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.precision import SMALL, agreement, main
from stages.runtime.errors import UserError
from stages.runtime.memory import Step


def step(spoilt: bool) -> Step:
    def loss(model: nn.Module, device: torch.device) -> torch.Tensor:
        out = model(torch.randn(64, 16))
        # The difference of numbers near 1000: bfloat16 has steps of 4 there.
        return ((model[0](torch.randn(64, 16)) + 1000).to(out.dtype) - 1000 if spoilt else out).float().square().mean()

    return Step("small", 64, lambda: nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 8)), loss, "sgd")


def test_agreement():
    difference, cosine = agreement(step(False))
    assert difference < 0.02 and cosine > 0.999
    difference, cosine = agreement(step(True))
    assert difference > 0.1 or cosine < 0.99


def test_every_method_can_be_asked_for():
    assert set(SMALL) == {"irnet", "bestie", "exits", "wise", "panoptic"}
    with pytest.raises(UserError, match="PRESET"):
        main(["voc2012", "irnt"])

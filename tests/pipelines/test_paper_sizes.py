"""Networks and losses of the paper presets at their own sizes, on torch's fake tensors.

Of a GPU that is not there the forward pass can be had alone: the backward pass asks CUDA for a context (torch 2.15). So
on ``cuda`` it goes to the loss, with the casts that CUDA's autocast makes, and the backward pass is that of the count
of memory. At small sizes both run as on a GPU in the tests of each method (``test_*_cuda.py``).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipelines.irnet.losses import relation_losses
from pipelines.irnet.steps import PAIR_BYTES
from pipelines.memory import DATA, METHODS, main, preset_steps
from pipelines.settings import load_params
from stages.propagation.pairs import neighbour_offsets
from stages.runtime.errors import UserError
from stages.runtime.memory import LiveBytes, fake_network, mixed, step_memory

PRESETS = Path(__file__).resolve().parents[2] / "pipelines/presets"
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("method", METHODS)
def test_forward_on_a_gpu(method):
    settings = load_params(PRESETS / "voc2012.yaml")
    for step in preset_steps(settings, method, DATA["voc"]):
        mode = FakeTensorMode(allow_non_fake_inputs=False)
        network = fake_network(step, mode, CUDA)
        for precision in ("32-true", "bf16-mixed"):
            with mode, mixed(precision, CUDA):
                loss = step.loss(network, CUDA)
            assert loss.device == CUDA and loss.shape == () and loss.requires_grad, step.name


def test_memory_of_a_preset():
    """Of IRNet's classifier in VOC's preset: 16 crops of 512 px through a ResNet-50, forward and backward."""
    step = preset_steps(load_params(PRESETS / "voc2012.yaml"), "irnet", DATA["voc"])[0]
    single, half = step_memory(step), step_memory(step, "bf16-mixed")
    assert step.name == "train_classifier" and step.batch == 16
    assert 7e9 < single.activations < 9e9 and single.peak < single.activations + 1e9
    assert 0.45 < half.activations / single.activations < 0.6


def test_what_a_pair_of_irnets_loss_takes():
    """The bytes that stand for the offsets which the count leaves out."""
    kept = {}
    for radius in (3.0, 5.0):
        displacement, boundary = (torch.zeros(2, *size, requires_grad=True) for size in ((2, 64, 64), (64, 64)))
        with LiveBytes() as live:
            terms = relation_losses(displacement, boundary, torch.zeros(2, 64, 64, dtype=torch.uint8), radius)
            kept[radius] = live.now
        assert len(terms) == 3
    offsets = len(neighbour_offsets(5.0)) - len(neighbour_offsets(3.0))
    assert (kept[5.0] - kept[3.0]) / (offsets * 2 * 64 * 64) == pytest.approx(PAIR_BYTES, rel=0.1)


def test_mistyped_methods_are_answered(capsys):
    with pytest.raises(UserError, match=r"irnt: .*did you mean 'irnet'"):
        main([str(PRESETS / "voc2012"), "irnt"])
    with pytest.raises(UserError, match="name a preset"):
        main([])

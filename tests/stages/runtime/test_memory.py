"""The count of a step's memory, against the same step with real tensors and against torch's allocator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.runtime.memory import LiveBytes, Step, StepMemory, pixels, step_memory
from tests.pretended_gpu import Planted

KB = 1024


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
                         nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def loss(model: nn.Module, device: torch.device) -> torch.Tensor:
    return model(pixels(8, 64, 64, device).float() / 255).square().mean()


def small(**changes) -> Step:
    return Step(**{"name": "small", "batch": 8, "build": network, "loss": loss, "optimizer": "adam", **changes})


def test_by_hand():
    """One layer: the weight and its gradient 4 KB each, of Adam two more; activations: input and output."""
    def squares(model, device):
        return model(torch.zeros(64, 32, device=device)).square().sum()

    found = step_memory(Step("line", 64, lambda: nn.Linear(32, 32, bias=False), squares, "adam"))
    assert found.weights == found.gradients == 4 * KB
    assert found.state == pytest.approx(8 * KB, abs=16)  # and the number of steps
    assert found.activations == pytest.approx(8 * KB + 8 * KB, abs=16)
    # Going backward: the square's gradient beside what it needs, with the state.
    assert 4 * KB + 8 * KB + 24 * KB <= found.peak <= 4 * KB + 8 * KB + 41 * KB
    assert step_memory(Step("line", 64, lambda: nn.Linear(32, 32, bias=False), squares, "sgd", 0.0)).state == 0


def test_counted_without_content_as_with_it():
    torch.manual_seed(0)
    model = network().train()
    with LiveBytes() as live:
        value = loss(model, torch.device("cpu"))
        activations = live.now
        value.backward()
        del value
        most = live.most
    found = step_memory(small(), device="cpu")
    assert (found.activations, found.peak - found.weights - found.state) == (activations, most)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(48, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 256), nn.GELU(),
                         nn.Linear(256, 10))


def of_rows(model: nn.Module, device: torch.device) -> torch.Tensor:
    return model(torch.rand(512, 48, device=device)).log_softmax(1).square().mean()


@pytest.mark.parametrize(("build", "value", "most_more"), [(perceptron, of_rows, 1.05), (network, loss, 1.6)])
def test_against_the_allocator(build, value, most_more):
    """The profiler's record of what torch allocated and freed in a real step; convolutions on a CPU also take room to
    work in, which is not counted."""
    torch.manual_seed(0)
    model = build().train()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        value(model, torch.device("cpu")).backward()
    record = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(record, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    found = step_memory(small(build=build, loss=value), device="cpu")
    assert 0.95 <= most / (found.peak - found.weights - found.state) <= most_more


def test_casts_are_those_of_the_device():
    """CUDA normalises layers in single precision, and so keeps a second copy of what goes on in bfloat16."""
    single, half = (step_memory(small(build=perceptron, loss=of_rows), precision) for precision in (
        "32-true", "bf16-mixed"))
    on_cpu = step_memory(small(build=perceptron, loss=of_rows), "bf16-mixed", "cpu")
    assert single == step_memory(small(build=perceptron, loss=of_rows), device="cpu")
    assert on_cpu.activations < half.activations and half.peak - on_cpu.peak == half.activations - on_cpu.activations
    assert not torch.is_autocast_enabled("cuda")


def test_attention_keeps_no_matrix_of_all_pairs():
    def attend(model, device):
        tokens = model(torch.rand(2, 4, 512, 16, device=device))
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).square().sum()

    step = Step("tokens", 2, lambda: nn.Linear(16, 16), attend, "sgd")
    found, pairs = step_memory(step), 4 * 2 * 4 * 512 * 512
    assert found.activations < pairs / 4
    assert found.activations == pytest.approx(step_memory(step, device="cpu").activations, rel=0.1)


def test_what_is_mixed_halves_and_what_stands_beside_adds_up():
    single, half = step_memory(small()), step_memory(small(), "bf16-mixed")
    assert 0.4 * single.activations < half.activations < 0.8 * single.activations and half.weights == single.weights
    beside = step_memory(small(copies=1, held=1000))
    assert beside == StepMemory(2 * single.weights, single.activations + 1000, single.gradients, single.state,
                                single.peak + single.weights + 1000)


def test_a_tensor_that_was_left_behind_is_an_error():
    """Made with the network, but neither parameter nor buffer."""
    with pytest.raises((AssertionError, RuntimeError)):
        step_memory(Step("planted", 1, Planted, lambda model, device: model(torch.zeros(2, 3, device=device)).sum(),
                         "sgd"))

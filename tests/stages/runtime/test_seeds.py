import numpy as np
import pytest
import torch

from stages.runtime import devices, seeds
from stages.runtime.errors import UserError


def test_streams_depend_on_seed_and_keys_only():
    def draw(*keys):
        return seeds.generator(*keys).random(4).tolist()

    assert draw(0, "crop", 1, 2) == draw(0, "crop", 1, 2)
    streams = [draw(0), draw(1), draw(0, "crop"), draw(0, "crop", 1), draw(0, "crop", 12), draw(0, "crop", 1, 2),
               draw(0, "crop", "1"), draw(0, "crop1"), draw(0, 1, "crop")]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_numbers_of_any_integer_type_are_the_same_key():
    assert seeds.entropy(np.int64(3), "a") == seeds.entropy(3, "a")
    assert seeds.entropy(3, np.int64(5)) == seeds.entropy(3, 5)


def test_the_stream_is_the_same_on_every_machine():
    assert seeds.entropy(0, "crop", 3) == 4340636707541052567
    assert 0 <= seeds.entropy(2**40, "x") < 2**63


def test_devices():
    assert devices.resolve("cpu") == torch.device("cpu")
    assert devices.resolve("auto").type in ("cpu", "cuda", "mps")
    for wrong in ("gpu", "cuda:99", ""):
        with pytest.raises(UserError, match=r"device: .* cannot be used here .*; use 'auto' or 'cpu'") as caught:
            devices.resolve(wrong)
        assert "\n" not in str(caught.value)


def test_each_process_has_a_device_of_its_own(monkeypatch):
    """Before anything is built on it: otherwise every rank builds on the first GPU."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)  # for the whole process
    for name, value in {"WORLD_SIZE": "8", "RANK": "6", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    for device in ("auto", "cuda", "cuda:0"):
        assert devices.resolve(device) == torch.device("cuda", 2)
    assert current == [2, 2, 2]
    assert devices.resolve("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match="has no GPU of its own .4 there.; use at most 4 processes"):
        devices.resolve("auto")

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


def test_torch_streams():
    first, second = (torch.rand(3, generator=seeds.torch_generator(0, key)) for key in ("a", "b"))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.rand(3, generator=seeds.torch_generator(0, "a")))


def test_devices():
    assert devices.resolve("cpu") == torch.device("cpu")
    assert devices.resolve("auto").type in ("cpu", "cuda", "mps")
    for wrong in ("gpu", "cuda:99", ""):
        with pytest.raises(UserError, match=r"device: .* cannot be used here .*; use 'auto' or 'cpu'") as caught:
            devices.resolve(wrong)
        assert "\n" not in str(caught.value)

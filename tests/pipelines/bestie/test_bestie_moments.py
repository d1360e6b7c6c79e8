"""What is kept at some moments of a training survives its checkpoint."""

from __future__ import annotations

import json

import torch

from pipelines.bestie.moments import Clock


def test_a_resumed_clock_goes_on(tmp_path):
    whole, first, second = (Clock(7, 3, lambda: [{"score": 0.5, "kind": "pseudo"}]) for _ in range(3))
    assert whole.due == {3, 5, 7}
    for step in range(1, 8):
        whole.tick(step)
    for step in range(1, 5):
        first.tick(step)
    torch.save({"clock": first.state_dict()}, tmp_path / "checkpoint.pt")
    second.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["clock"])
    assert second.done == 4
    for step in range(5, 8):
        second.tick(step)
    assert json.dumps(second.kept) == json.dumps(whole.kept)  # to the byte, so the order of the keys too
    assert [moment["share"] for moment in whole.kept] == [0.4286, 0.7143, 1.0]
    assert Clock(7, 0, list).due == set()

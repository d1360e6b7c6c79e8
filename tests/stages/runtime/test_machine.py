"""Which of the seconds by kind of device an estimate takes."""

from __future__ import annotations

import pytest

from stages.runtime.machine import Machine, gpu_seconds

RATES = {"cpu": 6.0, "cuda": 0.6}


@pytest.mark.parametrize(("machine", "networks", "others"), [
    (Machine("cpu", 8, 2, "bf16-mixed"), 6.0, 6.0), (Machine("mps"), 6.0, 6.0), (Machine("cuda"), 0.6, 0.6),
    (Machine("cuda", 8, 3), 0.2, 0.2), (Machine("cuda", 8, 3, "bf16-mixed"), 0.1, 0.2),
    (Machine("cuda", precision="16-mixed"), 0.3, 0.6)])
def test_rates(machine, networks, others):
    """Processes share a CPU's two cores, and have a GPU each; mixed precision speeds up a GPU's networks alone."""
    assert machine.rate(RATES) == pytest.approx(networks)
    assert machine.rate(RATES, mixed=False) == pytest.approx(others)


def test_seconds_of_operations():
    assert gpu_seconds(100) == pytest.approx(2)

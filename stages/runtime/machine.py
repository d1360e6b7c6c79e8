"""What the work runs on, for estimates of its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A third of an A100's peak (156 TFLOP/s in TF32, 312 in bfloat16), which large networks reach; not measured here.
TERAFLOPS = 50.0
MIXED = 2.0
"""How much faster mixed precision is there."""


@dataclass(frozen=True)
class Machine:
    """Kind of device (``cpu``, ``cuda``, ``mps``), workers for images, and training processes, one per GPU."""

    device: str
    workers: int = 1
    processes: int = 1
    precision: str = "32-true"

    def rate(self, rates: Mapping[str, float], *, mixed: bool = True) -> float:
        """Of the seconds by kind of device those of this one.

        Args:
            rates: ``cpu``: on two cores, however many processes share them; ``cuda``: on one GPU in single precision,
                which is shared out over the processes' GPUs. Devices without an entry count as a CPU.
            mixed: whether it is the work of networks, which mixed precision speeds up.
        """
        if self.device not in rates or self.device == "cpu":
            return rates["cpu"]
        faster = MIXED if mixed and self.precision != "32-true" else 1.0
        return rates[self.device] / faster / self.processes


def gpu_seconds(teraflop: float) -> float:
    """On one GPU in single precision, of so many operations by a large network."""
    return teraflop / TERAFLOPS

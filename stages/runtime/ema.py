"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stages.runtime.together import take_from_first


class Teacher(nn.Module):
    """A network whose weights follow those of another, and how many steps it has followed.

    Args:
        student: whose weights it starts with.
        momentum: share of the old average that a step keeps; at first less, so that the start is forgotten.
    """

    steps: Tensor

    def __init__(self, student: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self.momentum = momentum
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    def forward(self, *inputs: Any) -> Any:
        """As the student's."""
        return self.network(*inputs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        """The count stays on the CPU, wherever the network goes: reading it from a GPU would make the host wait."""
        super()._apply(fn, recurse)
        self.steps = self.steps.cpu()
        return self

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Move towards the student by one step; buffers are copied.

        Of several processes each has counted the batch norm's statistics on its own share. All teachers take those of
        the first, as the students do at their next step: a checkpoint has no others.
        """
        done = int(self.steps)
        share = 1 - min(self.momentum, (1 + done) / (10 + done))
        for mean, value in zip(self.network.parameters(), student.parameters(), strict=True):
            mean.lerp_(value, share)
        for kept, buffer in zip(self.network.buffers(), student.buffers(), strict=True):
            kept.copy_(buffer)
        take_from_first(self.network.buffers())
        self.steps += 1

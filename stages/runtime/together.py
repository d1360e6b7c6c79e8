"""What the processes of a stage do at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor

from stages.runtime import distributed


def wait_for_all() -> None:
    """Return when every process of the stage is here; at once where there is one."""
    if distributed.world_size() == 1:
        return
    if not torch.distributed.is_initialized():
        # One process's share may take hours longer than another's. A training that follows in the same processes finds
        # this group and exchanges its gradients by it, on GPUs by NCCL.
        gpus = torch.cuda.is_available() and torch.distributed.is_nccl_available()
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(days=7))
    torch.distributed.barrier()


def take_from_first(values: Iterable[Tensor]) -> None:
    """Give tensors, in place, the values that they have in the first process; nothing happens where there is one.

    Args:
        values: the same ones, in the same order, in every process of a training.
    """
    if distributed.world_size() > 1:
        for value in values:
            torch.distributed.broadcast(value, 0)

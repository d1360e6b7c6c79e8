"""Training on several processes: one command, ``torchrun`` underneath."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def rank() -> int:
    """This process's rank among the training processes; 0 when there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch(module: str, params: Path, processes: int) -> None:
    """Replace this process by ``torchrun`` with ``processes`` ranks of ``module``; nothing happens for one process.

    Called first thing by stages that train. Under ``torchrun`` already (typed by the user, or by this function) it
    returns at once.
    """
    if processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    # Ranks would otherwise each use every core, and torchrun warns about its own default.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", "--standalone",
                              f"--nproc-per-node={processes}", "-m", module, "--params", str(params)])

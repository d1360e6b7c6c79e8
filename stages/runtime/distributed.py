"""Several processes of one stage: one command, ``torchrun`` underneath."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stages.runtime.fingerprint import module_of
from stages.runtime.stage import LAUNCHER


def rank() -> int:
    """This process's rank among the stage's processes; 0 when there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's rank among those on this machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launch(file: str | Path, params: Path, processes: int) -> None:
    """Replace this process by ``torchrun`` with ``processes`` ranks of a stage; nothing happens for one process.

    Called first thing by stages that train or infer on a device. Under ``torchrun`` already (typed by the user, or by
    this function) it returns at once.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file.
        processes: on this machine.
    """
    if processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    # Ranks would otherwise each use every core, and torchrun warns about its own default.
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", threads)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *LAUNCHER, "--standalone", f"--nproc-per-node={processes}",
                              "-m", module_of(file), "--params", str(params)])

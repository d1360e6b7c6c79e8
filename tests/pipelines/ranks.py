"""The processes of a stage as ``torchrun`` starts them, but forked from one that has imported everything.

A process that begins from nothing spends ten seconds on imports, a small training one. Each notes what its trainings
end with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages.runtime import distributed, training
from stages.runtime.fingerprint import fingerprint


def digests(model: nn.Module) -> dict[str, str]:
    """Of the parameters; a process's own batches may have moved its buffers since they were last made equal."""
    return {name: hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()
            for name, value in model.named_parameters()}


def note(folder: Path, rank: int, model: nn.Module) -> None:
    number = len(list(folder.glob(f"rank{rank}-*.json")))
    (folder / f"rank{rank}-{number}.json").write_text(json.dumps(digests(model)))


def run_shared(module: str, folder: Path, processes: int, seconds: float = 400,
               until: Callable[[], bool] = lambda: False) -> list[list[dict[str, str]]]:
    """Run a stage's ``main`` in ``folder`` as so many processes; when ``until`` holds they are killed.

    Returns:
        For every process what its trainings ended with: the digest of each parameter by its name.
    """
    stage = import_module(module)
    fingerprint(module)  # kept, so that no process has to read the code again
    notes = folder / "notes" / module
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = {}
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            _be_rank(stage, folder, notes, rank, processes, port)
        running[pid] = rank
    try:
        deadline, failed = time.monotonic() + seconds, set()
        while running and not failed and not until() and time.monotonic() < deadline:
            for pid, rank in list(running.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    del running[pid]
                    failed |= {rank} if status else set()
            time.sleep(0.05)
        logs = [(notes / f"rank{rank}.log").read_text()[-3000:] for rank in sorted(failed or running.values())]
        assert not failed, f"{module}: rank {sorted(failed)} failed\n" + "\n".join(logs)
        assert not running or until(), f"{module}: no end after {seconds} s\n" + "\n".join(logs)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return [[json.loads((notes / f"rank{rank}-{number}.json").read_text())
             for number in range(len(list(notes.glob(f"rank{rank}-*.json"))))] for rank in range(processes)]


def _be_rank(stage: Any, folder: Path, notes: Path, rank: int, processes: int, port: int) -> None:
    """What a forked process does until it ends."""
    code = 1
    try:
        log = os.open(notes / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        if processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), GROUP_RANK="0",
                              LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                              TORCHELASTIC_RUN_ID="test")
        _watch(notes)
        stage.main(Path("params.yaml"))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a busy machine may otherwise end a rank before gloo's threads
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _watch(notes: Path) -> None:
    fit = training.fit

    def watched(model: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
        trained = fit(model, *arguments, **options)
        note(notes, distributed.rank(), trained)
        return trained

    training.fit = watched
    engine = sys.modules.get("stages.detector.detectron2_engine")
    if engine is not None:
        _watch_detectron2(engine, notes)


def _watch_detectron2(engine: Any, notes: Path) -> None:
    create, train, made = engine.create_ddp_model, engine._train, []

    def created(model: nn.Module, **options: Any) -> nn.Module:
        made.append(model)
        return create(model, **options)

    def trained(*arguments: Any) -> None:
        train(*arguments)
        note(notes, distributed.rank(), made[-1])

    engine.create_ddp_model, engine._train = created, trained

"""Two processes of a script, as ``torchrun`` starts them: on one machine, or one on each of two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run_two(script: str, *words: str, machines: int = 1, cwd: Path | None = None) -> None:
    """Run ``script`` as two ranks.

    Args:
        script: path of a Python file.
        words: its arguments.
        machines: 1 or 2; each has an agent of its own, all of which run here.
        cwd: where.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = [f"--nnodes={machines}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *(several if machines > 1 else ["--standalone"]),
               f"--nproc-per-node={2 // machines}", script, *words]
    agents = [subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
              for _ in range(machines)]
    try:
        said = [agent.communicate(timeout=180)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0] * machines, "\n".join(said)

"""Time and peak memory of one function in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Measurement(NamedTuple):
    seconds: float  # the best of the repeats
    peak_mb: float  # how far the first call grew the process beyond its imports and inputs, in MiB
    result: np.ndarray


def measure(prepare: str, repeats: int = 1, **arguments: Any) -> Measurement:
    """Measure a function in a fresh process.

    Args:
        prepare: "module:function"; called with ``arguments``, it imports what is needed, makes the inputs, and returns
            the function without arguments that is measured and that returns an array.
        repeats: the function is called this often; the best time counts, as other programs can only slow it down.
        arguments: JSON values.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.npy")
        task = json.dumps({"prepare": prepare, "repeats": repeats, "arguments": arguments, "result": str(result)})
        command = [sys.executable, "-m", "benchmarks.measure", task]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
        return Measurement(**json.loads(output.splitlines()[-1]), result=np.load(result))


def row(size: int, ours: Measurement, reference: Measurement | None) -> dict[str, float]:
    """One row of the table: our figures and, where there is a reference, its time, the ratio and the relative error."""
    figures = {"size": size, "seconds": ours.seconds, "peak_mb": ours.peak_mb}
    if reference is not None:
        difference = np.asarray(ours.result, dtype=np.float64) - reference.result
        figures |= {
            "reference_seconds": reference.seconds,
            "reference_peak_mb": reference.peak_mb,
            "ratio": reference.seconds / ours.seconds,
            "rel_error": float(np.linalg.norm(difference) / np.linalg.norm(reference.result)),
        }
    return figures


def _reset_peak() -> bool:
    """Set the peak of this process's memory back to what it holds now; False where the system has no such thing."""
    if not STATUS.exists():
        return False
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _memory(key: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in MiB."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main(task: dict[str, Any]) -> None:
    module, name = task["prepare"].split(":")
    function = getattr(import_module(module), name)(**task["arguments"])
    # Without a reset the imports' own peak hides as much growth as they have freed since.
    before = _memory("VmRSS") if _reset_peak() else _memory("VmHWM")
    times = []
    for index in range(task["repeats"]):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
        if index == 0:
            peak = _memory("VmHWM") - before
    np.save(task["result"], result)
    sys.stdout.write(json.dumps({"seconds": min(times), "peak_mb": max(peak, 0.0)}) + os.linesep)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))

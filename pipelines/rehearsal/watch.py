"""A watch on the stages of a ``dvc repro``: seconds, memory of their processes, and the pace of their loops."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from stages.runtime.progress import PACE
from stages.runtime.stage import kill_descendants

_INTERVAL = 0.2
"""Seconds between two looks at the processes."""


@dataclass
class Measured:
    """What a stage took.

    Attributes:
        seconds: from its start to the start of the next one.
        peak: most bytes of resident memory of all its processes together; what they share counts in each.
        loops: lines that its progress bars left (see ``stages/runtime/progress.py``).
        busy: share of the cores that other work kept busy.
    """

    seconds: float = 0.0
    peak: int = 0
    busy: float = 0.0
    loops: list[dict[str, Any]] = field(default_factory=list)


class Watch:
    """Follows DVC's processes (see ``workspace.Watcher``) and ends a stage that takes too much memory.

    Args:
        pace: file for the lines of the progress bars; it is begun anew.
        most: bytes of resident memory that the processes of a stage may take together.

    Attributes:
        stages: by name as DVC has it, in their order.
        exceeded: the stage that took too much, if one did.
    """

    def __init__(self, pace: Path, most: float) -> None:
        self.pace, self.most = pace, most
        pace.parent.mkdir(parents=True, exist_ok=True)
        pace.unlink(missing_ok=True)
        self.environment: Mapping[str, str] = {PACE: str(pace)}
        self.stages: dict[str, Measured] = {}
        self.exceeded: str | None = None
        self._now: str | None = None
        self._since = 0.0
        self._pid: int | None = None
        self._others = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def started(self, pid: int) -> None:
        """Look at the processes below DVC's from now on."""
        self.exceeded, self._pid = None, pid
        self._end.clear()
        self._thread = threading.Thread(target=self._look, args=(pid,), name="watch", daemon=True)
        self._thread.start()

    def running(self, stage: str) -> None:
        """A stage begins, and the one before has ended."""
        self._close()
        # A stage that runs again, with smaller batches, is the one that counts.
        self.stages.pop(stage, None)
        self.stages[stage], self._now, self._since = Measured(), stage, time.monotonic()
        self._others = others(self._pid)

    def ended(self) -> None:
        """The last stage has ended."""
        self._close()
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def last(self) -> str | None:
        """The stage that began last."""
        return next(reversed(self.stages), None)

    def _close(self) -> None:
        if self._now is None:
            return
        found = self.stages[self._now]
        found.seconds = time.monotonic() - self._since
        found.busy = max(0.0, others(self._pid) - self._others) / max(found.seconds, 1e-9) / (os.cpu_count() or 1)
        lines = [json.loads(line) for line in self.pace.read_text(encoding="utf-8").splitlines()] \
            if self.pace.exists() else []
        self.pace.unlink(missing_ok=True)
        found.loops, self._now = lines, None

    def _look(self, pid: int) -> None:
        while not self._end.wait(_INTERVAL):
            stage, taken = self._now, resident(pid)
            if stage is None:
                continue
            found = self.stages[stage]
            found.peak = max(found.peak, taken)
            if taken > self.most:
                self.exceeded = stage
                kill_descendants(pid)


def others(pid: int | None) -> float:
    """Seconds that the cores have worked so far for other processes than one, those below it, living or waited for,
    and this one."""
    if pid is None:
        return 0.0
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0) \
        - getattr(times, "guest_nice", 0.0) - getattr(times, "steal", 0.0)
    own = psutil.Process().cpu_times()
    mine = own.user + own.system
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.Error:
        return busy - mine
    for process in family:
        try:
            mine += sum(process.cpu_times()[:4])  # user, system, and the same of children that were waited for
        except psutil.Error:  # it has ended
            continue
    return busy - mine


def resident(pid: int) -> int:
    """Bytes of resident memory of all processes below one."""
    total = 0
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0
    for process in below:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return total

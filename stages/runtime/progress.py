"""Progress with an estimate of the time left, and a record of how fast it went for who asks for one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

PACE = "WEAKMASK_PACE"
"""Environment variable that names a file: every bar that ends adds a line of JSON to it, see ``_timed``."""


def progress(items: Iterable[Item], total: int | None, description: str, initial: int = 0, *, first: int = 1,
             **facts: int) -> Iterator[Item]:
    """Pass ``items`` on while a bar on standard error shows how far it is and how long it will take.

    Where standard error is not a terminal (a log, CI) a line appears every ten seconds at most.

    Args:
        items: what is worked on.
        total, description, initial: of the bar.
        first: items that come at once, and with the time of the start, where several workers begin together.
        facts: further numbers for the record: ``samples`` and ``batch`` of a training; of a loop whose items are no
            single images ``images``, all of them together; ``most``, how many items there are at most, however many
            images there are.
    """
    interval = 0.1 if sys.stderr.isatty() else 10.0
    bar = iter(tqdm(items, total=total, desc=description, initial=initial, mininterval=interval, file=sys.stderr,
                    dynamic_ncols=sys.stderr.isatty()))
    file = os.environ.get(PACE)
    return bar if file is None else _timed(bar, Path(file), description, first, facts)


def _timed(bar: Iterator[Item], file: Path, description: str, first: int, facts: dict[str, int]) -> Iterator[Item]:
    """Pass the items on and note, when the last of them is done: ``stage`` (as DVC names it), ``walk`` (the bar's
    description), ``items``, ``seconds`` of all, ``start`` (seconds of the first ones, ``first`` of them), the facts,
    and on a GPU ``gpu_bytes``, the most that its tensors ever took in this process."""
    times = [time.monotonic()]
    for item in bar:
        yield item
        times.append(time.monotonic())
    first = min(first, len(times) - 1)
    line: dict[str, Any] = {"stage": os.environ.get("DVC_STAGE", ""), "walk": description, "items": len(times) - 1,
                            "first": first, "seconds": times[-1] - times[0], "start": times[first] - times[0], **facts}
    torch = sys.modules.get("torch")  # this module stays free of it
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        line["gpu_bytes"] = torch.cuda.max_memory_allocated()
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")

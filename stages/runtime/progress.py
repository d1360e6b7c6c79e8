"""Progress with an estimate of the time left, and a record of how fast it went for who asks for one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

PACE = "WEAKMASK_PACE"
"""Environment variable that names a file: every bar that ends adds a line of JSON to it, see ``_timed``."""


def progress(items: Iterable[Item], total: int | None, description: str, initial: int = 0, *, first: int = 1,
             part: str | Callable[[Item], str] = "", own: Callable[[Item], float] | None = None,
             **facts: int) -> Iterator[Item]:
    """Pass ``items`` on while a bar on standard error shows how far it is and how long it will take.

    Where standard error is not a terminal (a log, CI) a line appears every ten seconds at most.

    Args:
        items: what is worked on.
        total, description, initial: of the bar.
        first: items that come at once, and with the time of the start: several workers begin together, a network looks
            at several images.
        part: which split the items are of (train, val); of items of both what says it.
        own: seconds that an item took in its worker, where several work side by side.
        facts: further numbers for the record: ``samples`` and ``batch`` of a training, whose last step has the end of
            it in its time; ``images``, how many there are where the items are groups of them; ``most``, how many items
            there are however many images; ``workers`` that share the items; ``rank`` of one of several processes.
    """
    interval = 0.1 if sys.stderr.isatty() else 10.0
    bar = iter(tqdm(items, total=total, desc=description, initial=initial, mininterval=interval, file=sys.stderr,
                    dynamic_ncols=sys.stderr.isatty()))
    file = os.environ.get(PACE)
    return bar if file is None else _timed(bar, Path(file), description, first, part, own, facts)


def _timed(bar: Iterator[Item], file: Path, description: str, first: int, part: str | Callable[[Item], str],
           own: Callable[[Item], float] | None, facts: dict[str, int]) -> Iterator[Item]:
    """Pass the items on and note for each part, when the last of them is done: ``stage`` (as DVC names it), ``walk``
    (the bar's description), ``part``, ``items``, ``seconds`` of all, ``each`` (seconds of one in its worker, without
    the start if there are others), the facts, and on a GPU ``gpu_bytes``, the most that its tensors ever took in this
    process."""
    rows: list[tuple[str, float, float]] = []
    since = time.monotonic()
    for item in bar:
        yield item
        now = time.monotonic()
        rows.append((part if isinstance(part, str) else part(item), now - since, own(item) if own else now - since))
        since = now
    torch = sys.modules.get("torch")  # this module stays free of it
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    with file.open("a", encoding="utf-8") as lines:
        for name in dict.fromkeys(row[0] for row in rows):
            mine = [(number, *row) for number, row in enumerate(rows) if row[0] == name]
            end = len(rows) - 1 if "batch" in facts else len(rows)
            steady = [row for row in mine if first <= row[0] < end] or mine
            line: dict[str, Any] = {
                "stage": os.environ.get("DVC_STAGE", ""), "walk": description, "part": name, "items": len(mine),
                "seconds": sum(row[2] for row in mine), "each": sum(row[3] for row in steady) / len(steady), **facts}
            if on_gpu:
                line["gpu_bytes"] = torch.cuda.max_memory_allocated()  # type: ignore[union-attr]
            lines.write(json.dumps(line) + "\n")

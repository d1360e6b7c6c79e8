"""Progress with an estimate of the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int | None, description: str, initial: int = 0) -> Iterator[Item]:
    """Pass ``items`` on while a bar on standard error shows how far it is and how long it will take.

    Where standard error is not a terminal (a log, CI) a line appears every ten seconds at most.
    """
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return iter(tqdm(items, total=total, desc=description, initial=initial, mininterval=interval, file=sys.stderr,
                     dynamic_ncols=sys.stderr.isatty()))

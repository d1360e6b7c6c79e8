"""Per-image work in chunks whose results are kept, so that a killed stage loses a chunk at most."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from stages.labels.coco import Entry
from stages.runtime.files import write_json
from stages.runtime.parallel import parallel_map
from stages.runtime.settings import RuntimeSettings
from stages.runtime.work import Work

CHUNK = 16
Item = TypeVar("Item")


def map_chunks(function: Callable[[Item], Entry], items: Sequence[Item], files: Sequence[Sequence[str]],
               work: Work, part: str, runtime: RuntimeSettings) -> list[Entry]:
    """``[function(item) for item in items]``, taking up what an earlier run of the same work has left.

    Args:
        function: picklable; gives what JSON can hold. Results with non-empty ``problems`` are not kept.
        items: what to work on.
        files: the files that each item's result depends on; a changed one means that its chunk is done again.
        work: holds the results until the stage ends.
        part: train or val, which also names the results in the work folder and the progress bar.
        runtime: workers and backend.
    """
    folder = work.subfolder(f"chunks-{part}")
    jobs = [(folder / f"{start:09d}.json", list(items[start:start + CHUNK]), list(files[start:start + CHUNK]))
            for start in range(0, len(items), CHUNK)]
    done = parallel_map(functools.partial(_run, function), jobs, runtime, f"{part} (x{CHUNK} images)",
                        part=part, images=len(items))
    return [result for chunk in done for result in chunk]


def _run(function: Callable[[Item], Entry], job: tuple[Path, list[Item], list[Sequence[str]]]) -> list[Entry]:
    target, items, files = job
    stamp = [_stamp(path) for group in files for path in group]
    if target.is_file():
        kept = json.loads(target.read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return kept["results"]
    results = [function(item) for item in items]
    if not any(result.get("problems") for result in results):
        write_json(target, {"stamp": stamp, "results": results})
    return results


def _stamp(path: str) -> list[str | int]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, 0, 0]
    return [path, status.st_size, status.st_mtime_ns]

"""Stages that a setting leaves without work still have to leave an output."""

from __future__ import annotations

from pathlib import Path

from stages.runtime.files import write_json
from stages.runtime.work import Work


def skip(file: str, output: Path, reason: str) -> None:
    """Publish a folder that holds nothing but ``skipped.json``.

    Args:
        file: ``__file__`` of the stage's module.
        output: the folder.
        reason: which setting made the work superfluous.
    """
    with Work(file, [], reason) as work:
        write_json(work.subfolder("result") / "skipped.json", {"reason": reason}, indent=2)
        work.publish({"result": output})

"""Stages that a setting leaves without work still have to leave an output."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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


def hand_on(file: str, source: Path, output: Path, names: Sequence[str]) -> None:
    """Publish a folder with copies of another stage's files.

    Args:
        file: ``__file__`` of the stage's module.
        source: folder of the other stage.
        output: the folder.
        names: of the files.

    Raises:
        UserError: one of them is missing.
    """
    with Work(file, [source / name for name in names], "handed on") as work:
        for name in names:
            shutil.copyfile(source / name, work.subfolder("result") / name)
        work.publish({"result": output})

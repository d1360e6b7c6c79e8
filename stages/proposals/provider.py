"""Who made the stored proposals, as methods hand it on and metric files repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.labels.coco import Entry
from stages.labels.figures import files_digest
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json

RECORD = "provider.json"
"""Beside the files of the images."""


def used_proposals(folder: Path, images: Sequence[Entry]) -> dict[str, Any]:
    """What a method says of its proposals, for ``stages.labels.figures.write_figures``.

    Args:
        folder: of `propose`.
        images: of val; `score` may look at their proposals, so a digest of them is part of it.

    Raises:
        UserError: the folder's record is missing or damaged.
    """
    path = folder / RECORD
    record = read_json(path)
    wanted = {"provider": str, "trained_on_masks": bool, "tuned_on_masks": bool}
    if not isinstance(record, dict) or not all(isinstance(record.get(name), kind) for name, kind in wanted.items()):
        raise UserError(f"{path}: {', '.join(wanted)} were expected; delete its folder and run `dvc repro` again")
    return {**{name: record[name] if kind is str else int(record[name]) for name, kind in wanted.items()},
            "folder": folder.as_posix(), "digest": proposals_digest(folder, images)}


def proposals_digest(folder: Path, images: Sequence[Entry]) -> str:
    """Of the files of some images."""
    return files_digest(folder, [folder / f"{key}.npz" for key in sorted(map(layout.image_key, images))])

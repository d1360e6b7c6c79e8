"""The method's own two or three numbers, and what else of it is measured: data/<method>/figures.json.

Each method's last label stage writes the file and `score` puts the numbers into the headline, under ``method``. Its
``measured`` part names what `score` reads of the method beside the labels (folders semantic/ and points/, labels of
val), with a digest of the content: not every method has them, so dvc.yaml cannot name them, and this file, which it
does name, changes when they do.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json

MOST = 3
"""Numbers that a method may have in the headline, which holds 25 over all files."""
CHUNK = 1 << 20


def figures_path(method: str) -> Path:
    """Where a method's last label stage writes its numbers."""
    return layout.method_data(method) / "figures.json"


def write_figures(path: str | Path, figures: Mapping[str, float], measured: Iterable[str | Path] = (),
                  placed: Mapping[str, str | Path] | None = None) -> None:
    """Write the method's numbers.

    Args:
        path: data/<method>/figures.json.
        figures: at most three, by the names that people say, units in docs/metrics.md.
        measured: files and folders beside ``path`` that `score` measures; absent ones are left out.
        placed: more of them, which other stages have made and put in place: their names from data/<method> on.

    Raises:
        ValueError: more than three numbers, something that is no finite number, or a path that is not beside ``path``.
    """
    path = Path(path)
    if len(figures) > MOST:
        raise ValueError(f"{path}: {len(figures)} figures, the headline has room for {MOST}: {', '.join(figures)}")
    wrong = [name for name, value in figures.items() if not _is_number(value)]
    if wrong:
        raise ValueError(f"{path}: not a finite number: {', '.join(wrong)}")
    digests = {Path(place).relative_to(path.parent).as_posix(): content_digest(place)
               for place in measured if Path(place).exists()}
    digests |= {name: content_digest(place) for name, place in (placed or {}).items()}
    write_json(path, {"figures": dict(figures), "measured": dict(sorted(digests.items()))}, indent=2)


def read_figures(path: str | Path) -> dict[str, float]:
    """The numbers that :func:`write_figures` wrote; none if there is no such file.

    Raises:
        UserError: the file holds something else.
    """
    path = Path(path)
    if not path.exists():
        return {}
    content = read_json(path)
    figures = content.get("figures") if isinstance(content, Mapping) else None
    if not isinstance(figures, Mapping) or not all(map(_is_number, figures.values())) or len(figures) > MOST:
        raise UserError(f"{path}: at most {MOST} numbers under \"figures\" were expected; delete it and run "
                        "`dvc repro` to make it anew")
    return dict(figures)


def content_digest(place: str | Path) -> str:
    """32 hexadecimal digits of a file, or of the names and contents of all files below a folder."""
    place = Path(place)
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            name = path.relative_to(place).as_posix().encode()
            # Lengths in front: no two different folders give the same stream of bytes.
            digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

"""The method's own two or three numbers, and what else of it is measured: data/<method>/figures.json.

Each method's last label stage writes the file and `score` puts the numbers into the headline, under ``method``. Its
``measured`` part names what `score` reads of the method beside the labels (folders semantic/ and points/, labels of
val), with a digest of the content: not every method has them, so dvc.yaml cannot name them, and this file, which it
does name, changes when they do. ``proposals`` says, of methods that use them, who made the segment proposals and
whether masks were used for that, and again has a digest: every metric file repeats it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import is_finite, read_json, write_json

MOST = 3
"""Numbers that a method may have in the headline, which holds 25 over all files; two less with proposals, which take a
number in each file."""
PROPOSALS = {"provider": str, "trained_on_masks": int, "tuned_on_masks": int, "folder": str, "digest": str}
"""What is said of segment proposals: who made them, whether masks were used to train that, or to choose a few of its
parameters (0 or 1), where they lie, and a digest of those of val."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What a method's figures.json says.

    Attributes:
        headline: at most three numbers.
        details: further ones.
        proposals: see ``PROPOSALS``; None where the method uses none.
    """

    headline: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)
    proposals: Mapping[str, Any] | None = None

    @property
    def all(self) -> dict[str, float]:
        """Headline and details."""
        return {**self.headline, **self.details}

    def of_proposals(self) -> dict[str, str | int]:
        """``provider``, ``trained_on_masks`` and ``tuned_on_masks``; nothing without proposals."""
        kept = ("provider", "trained_on_masks", "tuned_on_masks")
        return {} if self.proposals is None else {name: self.proposals[name] for name in kept}


def figures_path(method: str) -> Path:
    """Where a method's last label stage writes its numbers."""
    return layout.method_data(method) / "figures.json"


def write_figures(path: str | Path, figures: Mapping[str, float], measured: Iterable[str | Path] = (),
                  elsewhere: Mapping[str, str | Path] | None = None, details: Mapping[str, float] | None = None,
                  proposals: Mapping[str, Any] | None = None) -> None:
    """Write the method's numbers.

    Args:
        path: data/<method>/figures.json.
        figures: at most three, with proposals at most one, by the names that people say, units in docs/metrics.md.
        measured: files and folders beside ``path`` that `score` measures; absent ones are left out.
        elsewhere: the same of those that are not beside ``path``, e.g. because it lies in a work folder yet, by their
            names in data/<method>.
        details: further numbers, for the detail file.
        proposals: see ``PROPOSALS``, of methods that use them.

    Raises:
        ValueError: more numbers than that, something that is no finite number, a path that is not beside ``path``, or
            other things said of proposals.
    """
    path, details = Path(path), details or {}
    most = MOST - 2 * (proposals is not None)
    if len(figures) > most:
        raise ValueError(f"{path}: {len(figures)} figures, the headline has room for {most}: {', '.join(figures)}")
    wrong = [name for name, value in {**figures, **details}.items() if not is_finite(value)]
    if wrong:
        raise ValueError(f"{path}: not a finite number: {', '.join(wrong)}")
    if set(figures) & set(details):
        raise ValueError(f"{path}: said twice: {', '.join(sorted(set(figures) & set(details)))}")
    if proposals is not None and not _is_provider(proposals):
        raise ValueError(f"{path}: of proposals {', '.join(PROPOSALS)} were expected, found {dict(proposals)}")
    places = {Path(place).relative_to(path.parent).as_posix(): place for place in measured} | dict(elsewhere or {})
    digests = {name: content_digest(place) for name, place in places.items() if Path(place).exists()}
    content = {"figures": dict(figures), "details": dict(details), "measured": dict(sorted(digests.items())),
               "proposals": None if proposals is None else dict(proposals)}
    write_json(path, {name: value for name, value in content.items()
                      if value or name in ("figures", "measured")}, indent=2)


def read_figures(path: str | Path) -> Figures:
    """What :func:`write_figures` wrote; nothing if there is no such file.

    Raises:
        UserError: the file holds something else.
    """
    path = Path(path)
    if not path.exists():
        return Figures()
    content = read_json(path)
    found = content if isinstance(content, Mapping) else {}
    figures, details, proposals = found.get("figures"), found.get("details", {}), found.get("proposals")
    if not _are_numbers(figures) or not _are_numbers(details) or len(figures) > MOST:
        raise UserError(f"{path}: at most {MOST} numbers under \"figures\" were expected; delete it and run "
                        "`dvc repro` to make it anew")
    if proposals is not None and not _is_provider(proposals):
        raise UserError(f"{path}: under \"proposals\" {', '.join(PROPOSALS)} were expected; delete it and run "
                        f"`dvc repro` to make it anew")
    return Figures(dict(figures), dict(details), proposals)


def _are_numbers(values: object) -> TypeGuard[Mapping[str, float]]:
    return isinstance(values, Mapping) and all(map(is_finite, values.values()))


def _is_provider(record: object) -> bool:
    return isinstance(record, Mapping) and set(record) == set(PROPOSALS) and all(
        isinstance(record[name], kind) and not isinstance(record[name], bool)
        and (kind is str or record[name] in (0, 1)) for name, kind in PROPOSALS.items())


def content_digest(place: str | Path) -> str:
    """32 hexadecimal digits of a file, or of the names and contents of all files below a folder."""
    place = Path(place)
    return files_digest(place, sorted(place.rglob("*")) if place.is_dir() else [place])


def files_digest(place: Path, paths: Iterable[Path]) -> str:
    """The same of some files below ``place``, in the order that they are given in."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        if path.is_file():
            name = path.relative_to(place).as_posix().encode()
            # Lengths in front: no two different folders give the same stream of bytes.
            digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()
